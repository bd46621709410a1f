"""What a network's output depends on stands in its graph, whatever the operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_aiop.errors import GraphError
from nni_aiop.graphs import ComputeGraph, from_module
from nni_aiop.graphs.doors.modules._handlers import HANDLERS
from tests.graphs import aten_examples
from tests.graphs.aten_examples import KNOWN, UNKNOWN, Example, call

NO_OPERATIONS = {"float", "half", "bfloat16", "double", "cuda", "cpu", "view_as_real_copy"}
"""Names in the table that ATen does not have on every machine."""

NOT_ON_CPU = {"cudnn_batch_norm"}
NOT_IN_ALL_VERSIONS = {"_fused_rms_norm", "_grouped_mm"}
DRAWS = 4

Network = Callable[..., Any]


class Do(nn.Module):
    def __init__(self, network: Network, **parts: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.parts = nn.ModuleDict(parts)

    def forward(self, *args: Tensor) -> Any:
        return self.network(*args, **dict(self.parts))


def inputs_of(example: Example) -> list[aten_examples.F]:
    leaves = pytree.tree_leaves((list(example.args), example.kwargs))
    return [x for x in leaves if isinstance(x, aten_examples.F)]


def results(x: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(x) if isinstance(t, Tensor)]


def read_by(graph: ComputeGraph | None) -> set[int]:
    """The places of the inputs from which a way leads to an output."""
    if graph is None:
        return set()
    ahead: dict[int, list[int]] = {}
    for a, b in graph.edges:
        ahead.setdefault(a, []).append(b)
    found = set()
    for start, node in enumerate(graph.nodes):
        if node.op != "input":
            continue
        seen, stack = {start}, [start]
        while stack:
            for b in ahead.get(stack.pop(), []):
                if b not in seen:
                    seen.add(b)
                    stack.append(b)
        if any(graph.nodes[i].op == "output" for i in seen):
            found.add(int(graph.names[start].removeprefix("input_")))
    return found


def changes(network: Network, draw: Callable[[], list[Tensor]]) -> set[int]:
    """The places of the inputs whose values the output shows."""
    found: set[int] = set()
    for _ in range(DRAWS):
        one, other = draw(), draw()
        torch.manual_seed(0)
        before = results(network(*[x.clone() for x in one]))
        for place in range(len(one)):
            mixed = [(other if i == place else one)[i].clone() for i in range(len(one))]
            torch.manual_seed(0)
            after = results(network(*mixed))
            if any(
                a.shape != b.shape or not torch.equal(a.nan_to_num(7), b.nan_to_num(7))
                for a, b in zip(before, after, strict=True)
            ):
                found.add(place)
    return found


def graph_of(network: Network, shapes: Sequence[tuple[int, ...]]) -> ComputeGraph | None:
    # An input without axes is given as a tensor, since () is no shape.
    example = tuple(torch.zeros(s) for s in shapes)
    try:
        return from_module(Do(network), example)
    except GraphError as err:
        if "an output of the network must depend on its input" in str(err):
            return None
        raise


def check(network: Network, example: Example) -> None:
    inputs = inputs_of(example)

    def draw() -> list[Tensor]:
        return [x.draw() for x in inputs]

    torch.manual_seed(1)
    with torch.inference_mode():
        needed = changes(network, draw)
    assert needed <= read_by(graph_of(network, [x.shape for x in inputs]))


def plain(name: str, example: Example) -> Network:
    packet = getattr(torch.ops.aten, name)
    return lambda *tensors: call(packet, example, tensors)


def in_place(name: str, example: Example, kind: str) -> Network:
    """The operation in place on a copy, on a buffer made on the CPU, on a part of one."""
    packet = getattr(torch.ops.aten, f"{name}_")

    def run(first: Any, *rest: Any, **kwargs: Any) -> Any:
        if isinstance(first, list):
            first = [x.clone() for x in first]
            packet(first, *rest, **kwargs)
            return first
        if kind == "copy":
            buffer = target = first.clone()
        elif kind == "cpu":
            buffer = target = torch.zeros(first.shape, dtype=first.dtype)
        else:
            buffer = torch.zeros(2, *first.shape, dtype=first.dtype)
            target = buffer[1]
        packet(target, *rest, **kwargs)
        return buffer

    return lambda *tensors: call(run, example, tensors)


def into_out(name: str, example: Example, kind: str) -> Network:
    packet = getattr(torch.ops.aten, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        result = packet(*args, **kwargs)
        if kind == "whole":
            out = torch.zeros(result.shape, dtype=result.dtype)
            packet(*args, **kwargs, out=out)
            return out
        buffer = torch.zeros(2, *result.shape, dtype=result.dtype)
        packet(*args, **kwargs, out=buffer[0])
        return buffer

    return lambda *tensors: call(run, example, tensors)


def has_out(name: str) -> bool:
    packet = getattr(torch.ops.aten, name)
    for overload in packet.overloads():
        schema = getattr(packet, overload)._schema
        if [r for r in schema.arguments if r.kwarg_only and r.name == "out"]:
            return len(schema.returns) == 1
    return False


ALL = {**KNOWN, **UNKNOWN}
ABSENT = {n for n in NOT_IN_ALL_VERSIONS if not hasattr(torch.ops.aten, n)}
CALLED = sorted(n for n in ALL if n not in NOT_ON_CPU | NO_OPERATIONS | ABSENT)


def test_every_operation_of_the_table_has_an_example() -> None:
    assert set(HANDLERS) - set(KNOWN) - NO_OPERATIONS == set()
    assert len(set(UNKNOWN) - set(HANDLERS)) >= 60


@pytest.mark.parametrize("name", CALLED)
def test_what_an_output_depends_on_is_read(name: str) -> None:
    check(plain(name, ALL[name]), ALL[name])


@pytest.mark.parametrize("kind", ["copy", "cpu", "part"])
@pytest.mark.parametrize("name", [n for n in CALLED if hasattr(torch.ops.aten, f"{n}_")])
def test_what_is_written_in_place_is_read(name: str, kind: str) -> None:
    example = ALL[name]
    if isinstance(example.args[0], aten_examples.F):
        inputs = inputs_of(example)
        network = in_place(name, example, kind)
        try:
            network(*(x.draw() for x in inputs))
        except RuntimeError as err:  # what PyTorch refuses itself, such as the type of a buffer
            pytest.skip(str(err).split("\n")[0])
    check(in_place(name, example, kind), example)


@pytest.mark.parametrize("kind", ["whole", "part"])
@pytest.mark.parametrize("name", [n for n in CALLED if has_out(n)])
def test_what_is_written_by_out_is_read(name: str, kind: str) -> None:
    example = ALL[name]
    network = into_out(name, example, kind)
    try:
        with torch.inference_mode():
            network(*(x.draw() for x in inputs_of(example)))
    except (RuntimeError, TypeError, AttributeError) as err:
        pytest.skip(str(err).split("\n")[0])
    check(network, example)
