"""The chain beside what a user would run instead, each in a process of its own."""
