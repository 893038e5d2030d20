"""OpenVINO as the provider of a session on a CPU.

device.py    whether it is there, and what its CPU computes in
engine.py    runs one step
accuracy.py  what bf16 costs a bundle, measured once
speed.py     whether it is faster than ONNX Runtime for a bundle, measured once
records.py   where both are kept
"""
