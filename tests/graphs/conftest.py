"""What the tests of compute graphs share."""

import io
import logging
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nni_aiop.graphs import ComputeGraph, from_module, from_onnx

Door = Callable[[nn.Module, Tensor], ComputeGraph]


def by_onnx(module: nn.Module, *examples: Tensor) -> ComputeGraph:
    """The graph of the file that PyTorch's TorchScript exporter writes."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            examples,
            file,
            dynamo=False,
            opset_version=17,
            # As the module is: batch normalisation not folded into convolutions.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return from_onnx(file.getvalue())


def by_export(module: nn.Module, example: Tensor) -> ComputeGraph:
    """The graph of the program that torch.export traces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (example,))
        return from_module(program.module(), example)


@pytest.fixture(params=[by_export, by_onnx], ids=["export", "onnx"])
def other_door(request: pytest.FixtureRequest) -> Door:
    """A second opinion: the graph of a module in evaluation mode, not read from the module."""
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    door: Door = request.param
    return door


@pytest.fixture
def file_door() -> Callable[..., ComputeGraph]:
    """The graph of a module's ONNX file, its inputs one by one."""
    return by_onnx
