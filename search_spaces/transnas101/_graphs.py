"""Compute graphs of TransNAS-Bench-101 networks, written straight from the code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nni_aiop.graphs import ComputeGraph, GraphWriter, Handle
from nni_aiop.search_spaces._four_nodes import relu_conv_norm, write_cell
from nni_aiop.search_spaces.transnas101._body import BASE, SKELETON, Block, blocks, halves
from nni_aiop.search_spaces.transnas101._tasks import Task, decoder_layers, task_of

__all__ = ["cell_graph", "skeleton_graph"]


def cell_graph(operations: Sequence[str], task: str) -> ComputeGraph:
    """The graph of the micro network with these operations on its `EDGES`."""
    return _graph(lambda w, x, block: _cell(w, x, operations, block), SKELETON, task)


def skeleton_graph(types: Sequence[int], task: str) -> ComputeGraph:
    """The graph of the macro network with modules of these types."""
    return _graph(_basic_block, types, task)


def _graph(
    write_block: Callable[[GraphWriter, Handle, Block], Handle],
    types: Sequence[int],
    task_name: str,
) -> ComputeGraph:
    task = task_of(task_name)
    w = GraphWriter()

    def body(x: Handle) -> Handle:
        w.scope = "stem"
        x = w.batch_norm(w.conv(x, BASE // 2, 3, stride=2))
        x = relu_conv_norm(w, x, BASE, kernel=3, stride=2)
        for place, block in enumerate(blocks(types)):
            w.scope = f"blocks.{place}"
            x = write_block(w, x, block)
        return x

    size = task.image_size
    if task.n_pieces == 1:
        x = body(w.input((1, 3, size, size)))
    else:
        tiles = w.input((1, task.n_pieces, 3, size, size))
        first, *others = (
            w.reshape(w.slice(tiles, (1, n, n + 1, 1)), (1, 3, size, size))
            for n in range(task.n_pieces)
        )
        start = len(w)
        x = body(first)
        written = range(start, len(w))
        x = w.concat([x, *(w.repeat(written, first, other, x) for other in others)])
    w.scope = "head"
    w.output(_head(w, x, task, sum(halves(t) for t in types)))
    return w.graph()


def _head(w: GraphWriter, x: Handle, task: Task, n_halvings: int) -> Handle:
    if task.head == "linear":
        return w.linear(w.global_avg_pool(x), task.n_outputs)
    *layers, last = decoder_layers(task, n_halvings)
    for layer in layers:
        if layer.doubles:
            x = w.conv_transpose(
                x, layer.channels, 3, stride=2, padding=1, output_padding=1, bias=True
            )
        else:
            x = w.conv(x, layer.channels, 3, bias=True)
        x = w.activation(w.batch_norm(x), "leaky_relu")
    x = w.conv(x, last.channels, 3, bias=True)
    return w.activation(x, "tanh") if task.head == "generative" else x


def _basic_block(w: GraphWriter, x: Handle, block: Block) -> Handle:
    y = relu_conv_norm(w, x, block.c_out, kernel=3, stride=block.stride)
    y = relu_conv_norm(w, y, block.c_out, kernel=3, stride=1)
    if block.stride > 1 or block.c_in != block.c_out:
        x = w.batch_norm(w.conv(x, block.c_out, 1, stride=block.stride))
    return w.add(x, y)


def _cell(w: GraphWriter, x: Handle, operations: Sequence[str], block: Block) -> Handle:
    inner = Block(block.c_out, block.c_out, 1)

    def operation(node: Handle, source: int, name: str) -> Handle:
        return _operation(w, node, name, inner if source else block)

    return write_cell(w, x, operation, operations)


def _operation(w: GraphWriter, x: Handle, name: str, block: Block) -> Handle:
    if name == "none":
        return _zeros(w, x, block)
    if name == "skip_connect":
        same = block.stride == 1 and block.c_in == block.c_out
        return x if same else _factorised_reduction(w, x, block)
    kernel = 3 if name == "conv_3x3" else 1
    return relu_conv_norm(w, x, block.c_out, kernel=kernel, stride=block.stride)


def _zeros(w: GraphWriter, x: Handle, block: Block) -> Handle:
    if block.stride > 1:
        side = x.shape[2]
        x = w.slice(x, (2, 0, side, block.stride), (3, 0, side, block.stride))
    zeros = w.zeros(x)
    return w.concat([zeros] * (block.c_out // block.c_in))


def _factorised_reduction(w: GraphWriter, x: Handle, block: Block) -> Handle:
    x = w.relu(x)
    side = x.shape[2] + 1
    shifted = w.slice(w.pad(x, (2, 0, 1), (3, 0, 1)), (2, 1, side, 1), (3, 1, side, 1))
    half = block.c_out // 2
    parts = [w.conv(y, half, 1, stride=block.stride) for y in (x, shifted)]
    return w.batch_norm(w.concat(parts))
