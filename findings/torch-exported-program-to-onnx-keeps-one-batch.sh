#!/usr/bin/env bash
# An exported program that takes any batch becomes an ONNX file that takes one, with dynamic_axes.
#
# torch 2.13.0, onnx 1.23.2, onnxruntime 1.32.0: a class token is expanded to the batch and joined to
# the rows. Of the module itself torch.onnx.export(dynamo=False, dynamic_axes=...) at batch 2 makes a
# file that runs at batch 3. Of torch.export's program of it, whose sizes are operations
# (aten.sym_size, aten.expand) and which itself takes any batch, the same call writes 2 into the file
# without a warning, and onnxruntime raises an error at batch 3. (program.module() must be wrapped as
# a plain GraphModule first: the exporter calls train(), which it refuses.) This script fails if that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0
"$folder/env/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0 numpy
cd "$folder"
env/bin/python - <<'PYTHON'
import warnings

import onnxruntime as ort
import torch
from torch import nn


class Token(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 1, 4))

    def forward(self, x):
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)


module, x = Token().eval(), torch.rand(2, 3, 4)
exported = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
part = exported.module(check_guards=False)
program = torch.fx.GraphModule(part, part.graph)
assert program(torch.rand(3, 3, 4)).shape == (3, 4, 4)  # it takes any batch

runs, told = {}, {}
ort.set_default_logger_severity(4)
for name, one in {"module": module, "program": program}.items():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.onnx.export(
            one, (x,), f"{name}.onnx", dynamo=False, input_names=["x"], output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        )
    told[name] = [str(w.message) for w in found if "constant" in str(w.message)]
    session = ort.InferenceSession(f"{name}.onnx")
    try:
        session.run(None, {"x": torch.rand(3, 3, 4).numpy()})
        runs[name] = True
    except Exception:
        runs[name] = False
print(runs, told)
assert runs == {"module": True, "program": False}, runs
assert not told["program"], told
PYTHON
