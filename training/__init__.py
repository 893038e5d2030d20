"""From a plain segmenter to a DoViT checkpoint: training, evaluation, calibration, and a procedural data set.

Only training needs torch; what evaluates and calibrates a bundle needs no more than the runtime does.
"""
