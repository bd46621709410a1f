#!/usr/bin/env bash
# One module, three counts of parameters in its ONNX file: an untrained network is exported smaller.
#
# torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxslim 0.1.98, onnxsim 0.8.1: two convolutions, each
# with a batch normalisation, have 792 weights without the normalisations. With numbers as after
# training either exporter folds these into 16 biases: 808. As torch.nn initialises them every bias
# is 0: torch.onnx.export(dynamo=True) leaves the biases out (792, and Conv of two inputs), and
# dynamo=False stores one for both layers (800, the second behind an Identity, which onnxslim and
# onnxsim remove, so that two layers share one tensor). Whoever counts initialisers, or compares
# graphs of trained and untrained files, sees three networks. optimize=False, or dynamo=False with
# do_constant_folding=False, keeps the normalisations. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0
"$folder/env/bin/pip" install --quiet numpy onnx==1.23.2 onnxscript==0.7.2 \
    onnxslim==0.1.98 onnxsim==0.8.1
cd "$folder"
env/bin/python - 2>errors.txt <<'PYTHON' || { cat errors.txt; exit 1; }
import io
import math
import warnings

import onnx
import onnxsim
import onnxslim
import torch
from torch import nn

warnings.simplefilter("ignore")


def network(trained):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    if trained:
        for norm in (layers[1], layers[4]):
            for numbers in (norm.bias, norm.running_mean):
                nn.init.normal_(numbers)
    return nn.Sequential(*layers).eval()


def files(net):
    x, at_once = torch.zeros(1, 3, 16, 16), io.BytesIO()
    torch.onnx.export(net, (x,), at_once, dynamo=False)
    older = onnx.load_from_string(at_once.getvalue())
    return {
        "dynamo=True": torch.onnx.export(net, (x,), dynamo=True, verbose=False).model_proto,
        "dynamo=False": older,
        "onnxslim": onnxslim.slim(onnx.load_from_string(at_once.getvalue())),
        "onnxsim": onnxsim.simplify(older)[0],
        "optimize=False": torch.onnx.export(
            net, (x,), dynamo=True, optimize=False, verbose=False
        ).model_proto,
    }


def told(model):
    """Numbers in float tensors, the inputs of each Conv, nodes Identity, and normalisations."""
    graph = model.graph
    floats = [t.dims for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    kinds = [node.op_type for node in graph.node]
    inputs = [len(node.input) for node in graph.node if node.op_type == "Conv"]
    others = (kinds.count("Identity"), kinds.count("BatchNormalization"))
    return sum(map(math.prod, floats)), inputs, *others


found = {
    trained: {name: told(model) for name, model in files(network(trained)).items()}
    for trained in (True, False)
}
for trained, rows in found.items():
    for name, row in rows.items():
        print("trained  " if trained else "untrained", name, *row)
assert all(found[True][k] == (808, [3, 3], 0, 0) for k in list(found[True])[:4])
assert found[False]["dynamo=True"] == (792, [2, 2], 0, 0)
assert found[False]["dynamo=False"] == (800, [3, 3], 1, 0)
assert found[False]["onnxslim"] == found[False]["onnxsim"] == (800, [3, 3], 0, 0)
assert all(found[trained]["optimize=False"][3] == 2 for trained in found)
PYTHON
