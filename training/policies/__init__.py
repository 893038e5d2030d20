"""Who decides which tokens stay: the paper's confidence, a fixed ratio, or DynamicViT's prediction modules."""
