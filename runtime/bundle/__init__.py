"""The bundle on disk: its manifest, and how one is opened. Export writes what is described here."""
