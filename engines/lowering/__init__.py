"""From a bundle's float32 subgraphs to what a builder is given: parts without custom nodes, in a lower precision."""
