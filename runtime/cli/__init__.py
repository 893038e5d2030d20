"""The commands that run a bundle, and what all commands have in common."""
