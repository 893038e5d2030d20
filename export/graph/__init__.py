"""From torch modules to one ONNX graph with token-pass nodes, and from that graph to the steps of a bundle."""
