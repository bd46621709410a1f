#!/usr/bin/env bash
# PyTorch's newer exporter writes an LSTM with projections without its projection, and says nothing.
#
# torch 2.13.0, onnxscript 0.7.2, onnx 1.23.2, onnxruntime 1.32.0: nn.LSTM(5, 16, proj_size=4) is
# exported with success by torch.onnx.export(dynamo=True). The file has one LSTM with hidden_size 4
# beside weights of 16 hidden numbers, and the matrix that projects them is nowhere: onnx.checker
# refuses it when it infers shapes, and onnxruntime fails when it runs it. The older exporter
# (dynamo=False) refuses the module in a sentence. Whoever counts weights in such a file counts fewer
# than there are. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0
"$folder/env/bin/pip" install --quiet numpy onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cd "$folder"
env/bin/python - 2>errors.txt <<'PYTHON'
import contextlib
import io
import warnings

import onnx
import onnxruntime as ort
import torch

warnings.simplefilter("ignore")
net, x = torch.nn.LSTM(5, 16, proj_size=4).eval(), torch.randn(7, 3, 5)
model = torch.onnx.export(net, (x,), dynamo=True, verbose=False).model_proto
(node,) = (node for node in model.graph.node if node.op_type == "LSTM")
hidden = next(a.i for a in node.attribute if a.name == "hidden_size")
shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
held = [shapes[name] for name in node.input if name in shapes]
print("hidden_size", hidden, "beside tensors of", held)
assert hidden == 4 and (1, 16, 5) in held
assert not {(4, 16), (1, 4, 16)} & set(shapes.values()), "the projection"
try:
    onnx.checker.check_model(model, full_check=True)
    valid = True
except onnx.shape_inference.InferenceError:
    valid = False
try:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.run(None, {session.get_inputs()[0].name: x.numpy()})
    runs = True
except Exception:
    runs = False
try:
    with contextlib.redirect_stdout(io.StringIO()):  # where it prints the module
        torch.onnx.export(net, (x,), io.BytesIO(), dynamo=False)
    older = True
except torch.onnx.errors.OnnxExporterError:
    older = False
print("valid:", valid, " runs:", runs, " written by the older exporter:", older)
assert (valid, runs, older) == (False, False, False)
PYTHON
