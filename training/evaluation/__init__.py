"""What a segmenter is worth and what it costs, at one ξ or many: accuracy, tokens, MACs, latency."""
