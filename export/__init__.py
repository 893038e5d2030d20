"""From a PyTorch checkpoint to a bundle of ONNX subgraphs. Knows torch and ONNX, and nothing of TensorRT."""
