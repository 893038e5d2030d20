"""Processes that build plans, and the cache of what they built."""
