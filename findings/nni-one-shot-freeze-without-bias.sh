#!/usr/bin/env bash
# NNI's one-shot supernet cannot give the network of a sample where a convolution has no bias.
#
# nni 3.0, torch 2.13.0, pytorch-lightning 2.6.6: a ModelSpace with MutableConv2d(..., bias=False) and
# a chosen width trains under RandomOneShot, but `freeze`, which should hand over the share of the
# weights, raises: it gives the new layer a bias that is not there ("Unexpected key(s) in state_dict:
# "bias""). So do nni.nas.hub's MobileNetV3Space, ProxylessNAS and ShuffleNetSpace. With a bias it
# works: the frozen layer computes what the supernet does. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet nni==3.0 torch==2.13.0 pytorch-lightning==2.6.6 "setuptools<81"
cd "$folder"
cat >share.py <<'PYTHON'
import warnings

warnings.simplefilter("ignore")
import nni
import torch
from nni.nas.nn.pytorch import ModelSpace, MutableConv2d
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.strategy import RandomOneShot


class Space(ModelSpace):
    def __init__(self, bias):
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.conv = MutableConv2d(3, width, 3, bias=bias)

    def forward(self, x):
        return self.conv(x)


def supernet(bias):
    net = RandomOneShot().mutate_model(Space(bias))
    for module in net.modules():
        if isinstance(module, BaseSuperNetModule):
            module.resample(memo={"width": 4})
    return net


x = torch.ones(1, 3, 5, 5)
with_bias = supernet(True)
assert torch.equal(with_bias.freeze({"width": 4})(x), with_bias(x))
without = supernet(False)
assert without(x).shape == (1, 4, 3, 3)
try:
    without.freeze({"width": 4})
except RuntimeError as err:
    print("as told:", " ".join(str(err).split()))
    assert 'Unexpected key(s) in state_dict: "bias"' in str(err)
else:
    raise AssertionError("it is frozen")
PYTHON
env/bin/python share.py
