"""What a segmenter is worth and what it costs: accuracy, tokens, MACs, latency; calibration of thresholds; labelled data.

Needs no more than the runtime does; torch only where a torch model is evaluated.
"""
