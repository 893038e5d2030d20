"""From a plain segmenter to a DoViT checkpoint."""
