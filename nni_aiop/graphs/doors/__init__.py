"""The doors through which networks become compute graphs: modules, ONNX files, codes."""
