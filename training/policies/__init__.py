"""Policies that select the tokens to keep: the paper's confidence, a fixed ratio, or DynamicViT's prediction modules."""
