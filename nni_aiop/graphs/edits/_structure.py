"""Edits of the structure: branches and gates that can go, and convolutions that can be smaller.

- A *residual branch* is what lies between a tensor and a sum that reads it too, where nobody else
  reads it: without it the sum is the tensor. It is what block removal removes (ResNet, MobileNet,
  transformers).
- A *gate* multiplies a tensor with what is computed from it and is the same for many positions
  (squeeze and excitation, Hu et al. 2018, arXiv 1709.01507).
- A *kernel* of a depthwise convolution is cropped around its centre (once-for-all, Cai et al. 2020,
  arXiv 1908.09791).
- The *form* of a dense convolution: its centre as a 1x1 convolution; depthwise-separable, or of a
  low rank, by singular value decomposition (Jaderberg et al. 2014, arXiv 1405.3866). A linear layer
  can be of a low rank, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from nni_aiop.graphs._types import GraphLike, NodeLike

__all__ = ["DENSE", "LAYERS", "Structure", "find_structures", "rank_of"]

DENSE = "dense"

LAYERS = frozenset({"conv", "conv_transpose", "linear"})
"""Operations with a weight that take in what scales or shifts their channels behind them."""

_PRODUCTS = frozenset({"conv", "conv_transpose", "linear", "matmul", "attention"})
_LEAST_FOR_RANK = 32
"""Channels on either side of a layer that can be of a low rank."""
_RANKS = {"rank 1/2": 2, "rank 1/4": 4}


@dataclass(frozen=True)
class Structure:
    """One place where the structure can be edited.

    Attributes:
        kind: "branch", "gate", "kernel" or "form".
        name: Of the layer, for people.
        place: The sum, product or layer.
        options: What it can be, first what it is.
        nodes: Branches and gates: the nodes that go.
        source: Branches and gates: the node whose result stays.
    """

    kind: str
    name: str
    place: int
    options: tuple[object, ...]
    nodes: frozenset[int] = frozenset()
    source: int = -1


def find_structures(graph: GraphLike) -> list[Structure]:
    """Every place where the structure can be edited, in the order of nodes."""
    readers: list[list[int]] = [[] for _ in graph.nodes]
    for place, sources in enumerate(graph.inputs):
        for source in sources:
            readers[source].append(place)
    shared = {*graph.tied, *graph.tied.values()}
    found: list[Structure] = []
    for place, node in enumerate(graph.nodes):
        if node.op in ("add", "mul"):
            found += _removable(graph, place, readers)
        elif place not in shared:
            found += _smaller(graph, place, node)
    return found


def _removable(
    graph: GraphLike, place: int, readers: Sequence[Sequence[int]]
) -> Iterator[Structure]:
    node, sources = graph.nodes[place], graph.inputs[place]
    if len(sources) < 2 or len(set(sources)) < len(sources):
        return
    for term in sources:
        gate = node.op == "mul"
        if gate and not (len(sources) == 2 and _broadcasts(graph, place, term)):
            continue
        nodes = _only_read_by(graph, place, term, readers)
        if not nodes or any(graph.nodes[n].op in ("input", "output") for n in nodes):
            continue
        read = {s for n in nodes for s in graph.inputs[n]} - nodes
        stays = [s for s in sources if s != term and s in read]
        if len(stays) != 1 or read != {stays[0]}:
            continue
        (source,) = stays
        if prod(graph.nodes[source].output_shape) != prod(node.output_shape):
            continue
        whole = all(shape == node.output_shape for shape in node.input_shapes)
        if not gate and not (whole and _has_product(graph, nodes)):
            continue
        kind = "gate" if gate else "branch"
        name = _common([graph.names[n] for n in sorted(nodes)])
        yield Structure(kind, name, place, ("keep", "remove"), frozenset(nodes), source)


def _has_product(graph: GraphLike, nodes: frozenset[int] | set[int]) -> bool:
    return any(graph.nodes[n].op in _PRODUCTS for n in nodes)


def _broadcasts(graph: GraphLike, place: int, term: int) -> bool:
    """Whether a factor is the same for several entries of a product."""
    return prod(graph.nodes[term].output_shape) < prod(graph.nodes[place].output_shape)


def _only_read_by(
    graph: GraphLike, place: int, term: int, readers: Sequence[Sequence[int]]
) -> set[int]:
    """The nodes whose results nobody but the operation at `place` depends on, through a term."""
    if any(reader != place for reader in readers[term]):
        return set()
    nodes = {term}
    waiting = list(graph.inputs[term])
    while waiting:
        n = waiting.pop()
        if n not in nodes and all(reader in nodes for reader in readers[n]):
            nodes.add(n)
            waiting += graph.inputs[n]
    return nodes


def _common(names: Sequence[str]) -> str:
    """What the paths of modules have in common, else the last one."""
    parts = [name.split(".") for name in names if name]
    if not parts:
        return ""
    kept = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        kept.append(column[0])
    return ".".join(kept) or names[-1]


def _smaller(graph: GraphLike, place: int, node: NodeLike) -> Iterator[Structure]:
    weight = node.weight_shape
    name = graph.names[place]
    if weight is None:
        return
    if node.op == "linear" and len(weight) == 2 and min(weight) >= _LEAST_FOR_RANK:
        yield Structure("form", name, place, (DENSE, *_RANKS))
    if node.op != "conv":
        return
    kernel, groups = node["kernel"], int(node["groups"])
    odd = all(k % 2 for k in kernel) and max(kernel) > 1
    depthwise = groups == node.input_shapes[0][1] and groups > 1
    if depthwise and odd and len(set(kernel)) == 1:
        sizes = tuple(k for k in range(3, kernel[0], 2) if _crops(node, k))
        if sizes:
            yield Structure("kernel", name, place, (kernel[0], *reversed(sizes)))
    elif groups == 1:
        options: list[object] = [DENSE]
        wide = min(weight[0], weight[1]) >= 8
        if wide and odd and _crops(node, 1):
            options.append("1x1")
        if wide and max(kernel) > 1:
            options.append("separable")
        if min(weight[0], weight[1]) >= _LEAST_FOR_RANK:
            options += _RANKS
        if len(options) > 1:
            yield Structure("form", name, place, tuple(options))


def _crops(node: NodeLike, size: int) -> bool:
    """Whether a kernel can be cropped around its centre, the padding with it."""
    return all(
        k >= size and min(pair) >= d * (k - size) // 2
        for k, d, pair in zip(node["kernel"], node["dilation"], node["padding"], strict=True)
    )


def rank_of(weight: Sequence[int], option: str) -> int:
    """The rank of a layer's low-rank form: a part of its smaller side, in multiples of 8."""
    part = min(weight[0], weight[1]) // _RANKS[option]
    return max(8, part // 8 * 8)
