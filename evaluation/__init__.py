"""Evaluation of segmenters (accuracy, tokens, MACs, latency), calibration of thresholds, and labelled data sets.

Has the runtime's dependencies only; torch is needed only to evaluate a torch model.
"""
