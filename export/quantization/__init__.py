"""Static int8 and fp8 quantization of a bundle's products, as QuantizeLinear and DequantizeLinear nodes in its ONNX files.

ranges.py    the range of each product's input, over the tokens that reach it
products.py  scales, int8 or fp8 weights and corrected biases, a product at a time
nodes.py     the nodes of the quantized products
measure.py   a quantized chain against the float32 one
search.py    which products stay in floating point so that the bounds hold
bundle.py    a float32 bundle as a quantized one
"""
