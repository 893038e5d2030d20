"""The chain on a GPU: memory planned once, operations in a fixed order, the whole image as one CUDA graph."""
