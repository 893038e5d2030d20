"""From a plan set's steps to its program: which operation runs when, on which tensors, and where those lie. See docs/program.md.

operations.py   the steps as operations of segments, and what each reads and writes
memory.py       lifetimes of tensors, and their offsets in the arena
write.py        the program, and its file in a bundle
"""
