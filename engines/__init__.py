"""From the ONNX subgraphs of a bundle to TensorRT plans. Knows TensorRT and ONNX, and nothing of torch.

    lowering/     the subgraphs as a flavour can build them: parts without custom nodes, in a lower precision
    building/     the processes that build, the calls of TensorRT in them, the cache
    planning/     the program that runs the plans and the kernels between them
    build.py      all plans of a bundle
    accuracy.py   the accuracy of a precision, measured without a GPU
    add.py        all of it together, for dovit-export

`dovit-export --out engines/`, typed in a checkout, writes its bundle into this folder; git and wheels leave it out.
"""
