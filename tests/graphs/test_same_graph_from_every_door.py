"""Networks of timm give the same graph as PyTorch modules and as ONNX files."""

import io
import warnings
from contextlib import redirect_stdout
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks._timm import create, input_shape
from nni_aiop.graphs import ComputeGraph, from_module, from_onnx

QUICK = {
    "resnet18": 64,
    "mobilenetv3_large_100": 64,
    "vit_tiny_patch16_224": None,
    "convnext_atto": 64,
    "efficientnet_b0": 64,
}
"""Network -> the side of its images, None for its own."""

SLOW = {
    "cait_xxs24_224": None,
    "coat_tiny": None,
    "crossvit_tiny_240": None,
    "cspdarknet53": 64,
    "deit_tiny_patch16_224": None,
    "densenet121": 64,
    "dla34": 64,
    "dm_nfnet_f0": 64,
    "dpn68": 64,
    "edgenext_xx_small": 64,
    "efficientformer_l1": None,
    "fbnetc_100": 64,
    "focalnet_tiny_srf": 64,
    "gcresnet33ts": 64,
    "ghostnet_100": 64,
    "gmlp_s16_224": None,
    "hardcorenas_a": 64,
    "hrnet_w18_small": 64,
    "inception_resnet_v2": 149,
    "inception_v3": 149,
    "inception_v4": 149,
    "legacy_xception": 128,
    "levit_128s": None,
    "maxvit_rmlp_pico_rw_256": None,
    "mixer_s32_224": None,
    "mnasnet_100": 64,
    "mobilenetv4_conv_small": 64,
    "mobileone_s0": 64,
    "mobilevit_s": 128,
    "nfnet_l0": 64,
    "pit_ti_224": None,
    "poolformer_s12": 64,
    "pvt_v2_b0": 64,
    "regnety_002": 64,
    "repvgg_a0": 64,
    "res2net50_26w_4s": 64,
    "resmlp_12_224": None,
    "resnest14d": 64,
    "resnet50": 64,
    "rexnet_100": 64,
    "selecsls42": 64,
    "skresnet18": 64,
    "swin_tiny_patch4_window7_224": None,
    "swinv2_tiny_window8_256": None,
    "tf_efficientnet_lite0": 64,
    "tf_efficientnetv2_b0": 64,
    "tf_mixnet_s": 64,
    "tresnet_m": 64,
    "twins_svt_small": None,
    "vgg11_bn": 224,
    "visformer_tiny": None,
    "xception71": 128,
    "xcit_nano_12_p16_224": None,
}

UNEQUAL: dict[str, str] = {}
"""Networks whose graphs differ, and why."""


def both(name: str, side: int | None) -> tuple[nn.Module, ComputeGraph, ComputeGraph]:
    """The network, its graph as a module, and its graph as an ONNX file of opset 17."""
    network = create(name)
    shape: Any = input_shape(network) if side is None else (1, 3, side, side)
    content = io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(shape),),
            content,
            dynamo=False,
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return network, from_module(network, shape), from_onnx(content.getvalue())


def check(name: str, side: int | None) -> None:
    if name in UNEQUAL:
        pytest.skip(UNEQUAL[name])
    network, one, other = both(name, side)
    assert one.others == other.others == ()
    assert list(map(str, one.nodes)) == list(map(str, other.nodes))
    assert one == other
    assert one.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", QUICK)
def test_a_network_is_one_graph(name: str) -> None:
    check(name, QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_another_network_is_one_graph(name: str) -> None:
    check(name, SLOW[name])
