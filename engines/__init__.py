"""From the ONNX subgraphs of a bundle to TensorRT engines. Will know TensorRT and ONNX, and nothing of torch.

No engine is built yet: bundles hold ONNX subgraphs only, and run with ONNX Runtime.

`dovit-export --out engines/`, typed in a checkout, writes its bundle into this folder; git and wheels leave it out.
"""
