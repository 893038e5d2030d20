"""`dovit-bench`: the chain against the dense model, side by side in one run."""
