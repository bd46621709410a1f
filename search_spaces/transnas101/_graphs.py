"""Compute graphs of TransNAS-Bench-101 networks, written straight from the code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nni_aiop.graphs import ComputeGraph, Data, GraphWriter
from nni_aiop.search_spaces.transnas101._body import BASE, EDGES, SKELETON, Block, blocks, halves
from nni_aiop.search_spaces.transnas101._tasks import Task, decoder_layers, task_of

__all__ = ["cell_graph", "skeleton_graph"]


def cell_graph(operations: Sequence[str], task: str) -> ComputeGraph:
    """The graph of the micro network with these operations on its `EDGES`."""
    return _graph(lambda writer, x, block: _cell(writer, x, operations, block), SKELETON, task)


def skeleton_graph(types: Sequence[int], task: str) -> ComputeGraph:
    """The graph of the macro network with modules of these types."""
    return _graph(_basic_block, types, task)


def _graph(
    write_block: Callable[[GraphWriter, Data, Block], Data], types: Sequence[int], task_name: str
) -> ComputeGraph:
    task = task_of(task_name)
    writer = GraphWriter()

    def body(x: Data) -> Data:
        x = writer.batch_norm(writer.conv(x, BASE // 2, 3, stride=2))
        x = _relu_conv_norm(writer, x, BASE, kernel=3, stride=2)
        for block in blocks(types):
            x = write_block(writer, x, block)
        return x

    size = task.image_size
    if task.n_pieces == 1:
        x = body(writer.input((1, 3, size, size)))
    else:
        tiles = writer.input((1, task.n_pieces, 3, size, size))
        pieces, first = [], range(0)
        for number in range(task.n_pieces):
            tile = writer.slice(tiles, (1, number, number + 1, 1))
            start = len(writer)
            pieces.append(body(writer.reshape(tile, (1, 3, size, size))))
            later = range(start, len(writer))
            if number == 0:
                first = later
            else:
                writer.tie(first, later)
        x = writer.concat(pieces)
    writer.output(_head(writer, x, task, sum(halves(t) for t in types)))
    return writer.graph()


def _head(writer: GraphWriter, x: Data, task: Task, n_halvings: int) -> Data:
    if task.head == "linear":
        return writer.linear(writer.global_avg_pool(x), task.n_outputs)
    *layers, last = decoder_layers(task, n_halvings)
    for layer in layers:
        if layer.doubles:
            x = writer.conv_transpose(
                x, layer.channels, 3, stride=2, padding=1, output_padding=1, bias=True
            )
        else:
            x = writer.conv(x, layer.channels, 3, bias=True)
        x = writer.activation(writer.batch_norm(x), "leaky_relu")
    x = writer.conv(x, last.channels, 3, bias=True)
    return writer.activation(x, "tanh") if task.head == "generative" else x


def _relu_conv_norm(writer: GraphWriter, x: Data, channels: int, kernel: int, stride: int) -> Data:
    return writer.batch_norm(writer.conv(writer.relu(x), channels, kernel, stride=stride))


def _basic_block(writer: GraphWriter, x: Data, block: Block) -> Data:
    y = _relu_conv_norm(writer, x, block.c_out, kernel=3, stride=block.stride)
    y = _relu_conv_norm(writer, y, block.c_out, kernel=3, stride=1)
    if block.stride > 1 or block.c_in != block.c_out:
        x = writer.batch_norm(writer.conv(x, block.c_out, 1, stride=block.stride))
    return writer.add(x, y)


def _cell(writer: GraphWriter, x: Data, operations: Sequence[str], block: Block) -> Data:
    inner = Block(block.c_out, block.c_out, 1)
    nodes = [x]
    for target in (1, 2, 3):
        terms = [
            _operation(writer, nodes[source], name, inner if source else block)
            for (source, to), name in zip(EDGES, operations, strict=True)
            if to == target
        ]
        nodes.append(writer.add(*terms))
    return nodes[3]


def _operation(writer: GraphWriter, x: Data, name: str, block: Block) -> Data:
    if name == "none":
        return _zeros(writer, x, block)
    if name == "skip_connect":
        same = block.stride == 1 and block.c_in == block.c_out
        return x if same else _factorised_reduction(writer, x, block)
    kernel = 3 if name == "conv_3x3" else 1
    return _relu_conv_norm(writer, x, block.c_out, kernel=kernel, stride=block.stride)


def _zeros(writer: GraphWriter, x: Data, block: Block) -> Data:
    if block.stride > 1:
        side = x.shape[2]
        x = writer.slice(x, (2, 0, side, block.stride), (3, 0, side, block.stride))
    zeros = writer.zeros(x)
    return writer.concat([zeros] * (block.c_out // block.c_in))


def _factorised_reduction(writer: GraphWriter, x: Data, block: Block) -> Data:
    x = writer.relu(x)
    side = x.shape[2] + 1
    shifted = writer.slice(writer.pad(x, (2, 0, 1), (3, 0, 1)), (2, 1, side, 1), (3, 1, side, 1))
    half = block.c_out // 2
    parts = [writer.conv(y, half, 1, stride=block.stride) for y in (x, shifted)]
    return writer.batch_norm(writer.concat(parts))
