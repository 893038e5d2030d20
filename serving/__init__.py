"""Model repositories for NVIDIA Triton Inference Server: written by dovit-serve, run by Triton's Python backend."""
