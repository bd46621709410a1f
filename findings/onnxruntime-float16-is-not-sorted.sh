#!/usr/bin/env bash
# A float16 model that onnxruntime's own converter wrote is no valid ONNX, and onnxruntime runs it.
#
# onnxruntime 1.32.0, onnx 1.23.2: convert_float_to_float16(keep_io_types=True) appends the cast of an
# input behind the nodes that read it. The standard asks for a topological order: onnx.checker refuses
# the file, onnxruntime loads and runs it. A reader of ONNX files has to sort nodes itself.
# This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0 packaging==26.0
cd "$folder"
env/bin/python - <<'PYTHON'
import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

# The package `onnxruntime.transformers` asks for PyTorch; this file of it does not.
path = Path(ort.__file__).parent / "transformers" / "float16.py"
spec = importlib.util.spec_from_file_location("float16", path)
float16 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(float16)

w = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
nodes = [
    helper.make_node("MatMul", ["x", "w"], ["h"]),
    helper.make_node("Relu", ["h"], ["y"]),
]
ends = [
    [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 4))] for name in ("x", "y")
]
model = helper.make_model(
    helper.make_graph(nodes, "small", *ends, [w]),
    opset_imports=[helper.make_opsetid("", 18)],
    ir_version=9,
)
onnx.checker.check_model(model)
half = float16.convert_float_to_float16(model, keep_io_types=True)
print("order:", [node.op_type for node in half.graph.node])
try:
    onnx.checker.check_model(half)
    refused = False
except onnx.checker.ValidationError as err:
    refused = "topologically sorted" in str(err)
print("onnx.checker refuses it:", refused)
session = ort.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
(y,) = session.run(None, {"x": np.ones((2, 4), np.float32)})
print("onnxruntime runs it:", y.tolist())
assert refused and y.tolist() == [[4.0] * 4] * 2
PYTHON
