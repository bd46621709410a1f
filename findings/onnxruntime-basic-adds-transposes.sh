#!/usr/bin/env bash
# onnxruntime's basic level, which is there to remove redundant nodes, makes three transposes of one.
#
# onnxruntime 1.32.0, onnx 1.23.2: queries, keys and values cut from one transposed tensor (Transpose,
# then three Gather) come back as three Gather, each with a Transpose of its own: 9 nodes become 11.
# Whoever compares files before and after by their nodes, or counts transposes as a cost, sees another
# network. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
env/bin/python - <<'PYTHON'
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

shape = numpy_helper.from_array(np.array([2, 5, 3, 4, 4]), "shape")
w = numpy_helper.from_array(np.ones((4, 5), np.float32), "w")
places = [numpy_helper.from_array(np.array(i), f"place_{i}") for i in range(3)]
nodes = [
    helper.make_node("Reshape", ["x", "shape"], ["split"]),
    helper.make_node("Transpose", ["split"], ["turned"], perm=[2, 0, 3, 1, 4]),
    *(helper.make_node("Gather", ["turned", f"place_{i}"], [f"part_{i}"], axis=0) for i in range(3)),
    helper.make_node("MatMul", ["part_0", "w"], ["q"]),
    helper.make_node("MatMul", ["q", "part_1"], ["r"]),
    helper.make_node("MatMul", ["r", "w"], ["s"]),
    helper.make_node("MatMul", ["s", "part_2"], ["y"]),
]
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 5, 48))
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 4, 5, 4))
model = helper.make_model(
    helper.make_graph(nodes, "cuts", [x], [y], [shape, w, *places]),
    opset_imports=[helper.make_opsetid("", 18)],
    ir_version=9,
)
onnx.checker.check_model(model, full_check=True)
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.optimized_model_filepath = "basic.onnx"
ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
before = Counter(node.op_type for node in model.graph.node)
after = Counter(node.op_type for node in onnx.load("basic.onnx").graph.node)
print("before", dict(before))
print("after ", dict(after))
assert before["Transpose"] == 1, before
assert after["Transpose"] == 3, after
PYTHON
