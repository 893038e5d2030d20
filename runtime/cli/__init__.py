"""The commands that run and inspect a bundle, and code shared by all commands."""
