"""Compute graphs as JSON and as networkx graphs, and back, every field checked."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nni_aiop.errors import FileFormatError, GraphError
from nni_aiop.files import brief, parse_json, write_atomically
from nni_aiop.graphs._fits import WITHOUT_WEIGHTS, fits
from nni_aiop.graphs._node import Node
from nni_aiop.graphs._types import GraphLike
from nni_aiop.graphs._vocabulary import COMMUTATIVE, OPERATIONS, OTHER

if TYPE_CHECKING:
    import networkx

__all__ = [
    "FORMAT_VERSION",
    "GraphParts",
    "from_json",
    "from_networkx",
    "load",
    "save",
    "to_json",
    "to_networkx",
]


class GraphParts(NamedTuple):
    """What a compute graph is made of; see `ComputeGraph`."""

    nodes: list[Node]
    inputs: list[list[int]]
    names: list[str]
    tied: dict[int, int]


FORMAT_VERSION = 2
"""Version of the JSON that `to_json` writes."""

_FORMAT = "nni-aiop compute graph"
_LARGEST = 2**63
_MOST_BYTES = 1 << 30  # of an unpacked file


# --- records: one node as plain data --------------------------------------------------------------


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _record(graph: GraphLike, place: int) -> dict[str, Any]:
    node = graph.nodes[place]
    return {
        "name": graph.names[place],
        "op": node.op,
        "attributes": {name: _plain(value) for name, value in node.attributes},
        "input_shapes": _plain(node.input_shapes),
        "output_shape": _plain(node.output_shape),
        "weight_shape": _plain(node.weight_shape),
        "parameters": node.parameters,
    }


_FIELDS = ("op", "attributes", "input_shapes", "output_shape", "weight_shape", "parameters")


def _refuse(what: str, rule: str, value: Any) -> FileFormatError:
    shown = repr(value)
    return FileFormatError(f"{what} must be {rule}, but got {shown[:80]}.")


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_number, value))


def _is_shape(value: Any) -> bool:
    return _is_list(value) and math.prod(value) < _LARGEST


def _is_attribute(value: Any, depth: int = 3) -> bool:
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_is_attribute(v, depth - 1) for v in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (bool, str)) or (type(value) is int and abs(value) < _LARGEST)


def _node(record: Any, what: str) -> Node:
    """The node of a record.

    Raises:
        FileFormatError: A field lacks, is of a wrong type, or does not fit the operation.
    """
    if not isinstance(record, Mapping):
        raise _refuse(what, "a record", record)
    missing = [field for field in _FIELDS if field not in record]
    if missing:
        raise FileFormatError(f"{what} must have the field {missing[0]!r}, but lacks it.")
    op, attributes, inputs, output, weight, parameters = (record[field] for field in _FIELDS)
    if not isinstance(op, str) or not (op in OPERATIONS or op.startswith(OTHER)):
        raise _refuse(f"the operation of {what}", f"of the vocabulary or {OTHER}NAME", op)
    if not isinstance(attributes, Mapping):
        raise _refuse(f"the attributes of {what}", "a record", attributes)
    known = OPERATIONS.get(op, ())
    for name, value in attributes.items():
        if name not in known:
            choices = f"one of {', '.join(known)}" if known else "absent"
            raise _refuse(f"an attribute of {what} ({op})", choices, name)
        if not _is_attribute(value):
            raise _refuse(f"{name} of {what}", "a number, a text, a bool or lists of them", value)
    if not isinstance(inputs, (list, tuple)) or not all(map(_is_shape, inputs)):
        raise _refuse(f"the input shapes of {what}", "lists of whole numbers", inputs)
    if not _is_shape(output):
        raise _refuse(f"the output shape of {what}", "a list of whole numbers", output)
    if weight is not None and not _is_shape(weight):
        raise _refuse(f"the weight shape of {what}", "a list of whole numbers or null", weight)
    if not _is_number(parameters):
        raise _refuse(f"the parameters of {what}", "a whole number", parameters)
    node = Node.make(op, inputs, output, weight_shape=weight, parameters=parameters, **attributes)
    if op in WITHOUT_WEIGHTS and (parameters or weight is not None):
        raise FileFormatError(
            f"{what} ({op}) must have no learned numbers, but has {parameters} "
            f"and the weight shape {weight}."
        )
    if not fits(node):
        raise _refuse(f"{what} ({op})", "an operation whose shapes and attributes fit", str(node))
    return node


def _check_edges(nodes: Sequence[Node], inputs: Sequence[Sequence[int]]) -> None:
    """Refuse a node that reads another number of entries than the one before it puts out.

    Raises:
        FileFormatError: There is such a node.
    """
    for place, (node, sources) in enumerate(zip(nodes, inputs, strict=True)):
        if len(sources) != len(node.input_shapes) or not all(0 <= s < place for s in sources):
            continue  # what the graph itself refuses
        given = [math.prod(nodes[source].output_shape) for source in sources]
        read = [math.prod(shape) for shape in node.input_shapes]
        if node.op in COMMUTATIVE:  # their shapes are sorted
            given.sort()
            read.sort()
        if given != read:
            raise FileFormatError(
                f"node {place} ({node.op}) must read as many entries as its inputs have, {given}, "
                f"but reads {read}."[:300]
            )


# --- JSON ----------------------------------------------------------------------------------------


def to_json(graph: GraphLike) -> dict[str, Any]:
    """The graph as plain data: `json.dumps` writes it, `from_json` reads it."""
    return {
        "format": _FORMAT,
        "version": FORMAT_VERSION,
        "nodes": [
            {**_record(graph, place), "inputs": list(sources)}
            for place, sources in enumerate(graph.inputs)
        ],
        "tied": [[later, earlier] for later, earlier in sorted(graph.tied.items())],
    }


def from_json(data: Any) -> GraphParts:
    """The parts of the graph that `to_json` wrote.

    Raises:
        FileFormatError: The data are of another format or version, or a field is missing, of a
            wrong type, or does not fit the operation.
    """
    if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
        shown = data.get("format") if isinstance(data, Mapping) else data
        raise _refuse("the format", repr(_FORMAT), shown)
    if data.get("version") != FORMAT_VERSION:
        raise _refuse("the version of a compute graph", str(FORMAT_VERSION), data.get("version"))
    records, tied = data.get("nodes"), data.get("tied")
    if not isinstance(records, list):
        raise _refuse("the nodes", "a list", records)
    if not isinstance(tied, list) or not all(_is_list(row) and len(row) == 2 for row in tied):
        raise _refuse("the tied weights", "a list of pairs", tied)
    nodes = [_node(record, f"node {place}") for place, record in enumerate(records)]
    names, inputs = [], []
    for place, record in enumerate(records):
        sources, name = record.get("inputs"), record.get("name")
        if not _is_list(sources):
            raise _refuse(f"the inputs of node {place}", "a list of whole numbers", sources)
        if not isinstance(name, str):
            raise _refuse(f"the name of node {place}", "a text", name)
        inputs.append(sources)
        names.append(name)
    _check_edges(nodes, inputs)
    return GraphParts(nodes, inputs, names, dict(tied))


def save(graph: GraphLike, path: Path | str) -> Path:
    """The path, which now holds the graph as JSON; packed where it ends in .gz."""
    text = json.dumps(to_json(graph), allow_nan=False).encode()
    packed = Path(path).suffix == ".gz"
    return write_atomically(path, gzip.compress(text, mtime=0) if packed else text)


def load(path: Path | str) -> GraphParts:
    """The parts of the graph of a file that `save` wrote.

    Raises:
        FileFormatError: The file is truncated or damaged, or `from_json` refuses what it holds.
        OSError: There is no such file.
    """
    content = Path(path).read_bytes()
    try:
        if Path(path).suffix == ".gz":
            unpacker = zlib.decompressobj(wbits=31)
            content = unpacker.decompress(content, _MOST_BYTES)
            if not unpacker.eof:
                raise ValueError("it ends too early or unpacks to more than a gigabyte")
    except (ValueError, zlib.error) as err:
        raise FileFormatError(
            f"{path} must hold a compute graph, but is no JSON: {brief(err)}."
        ) from err
    return from_json(parse_json(content, f"{path} must hold a compute graph: it"))


# --- networkx ------------------------------------------------------------------------------------


def to_networkx(graph: GraphLike) -> networkx.MultiDiGraph:
    """The graph for networkx: nodes are places, with the fields of `Node` and `name`.

    Edges carry `argument`, the place among the reader's inputs; a tensor that is read twice has
    two. A node whose weights are those of an earlier one carries its place as `tied`.
    """
    import networkx as nx

    found: networkx.MultiDiGraph = nx.MultiDiGraph()
    for place in range(len(graph)):
        found.add_node(place, **_record(graph, place))
    for later, earlier in graph.tied.items():
        found.nodes[later]["tied"] = earlier
    for place, sources in enumerate(graph.inputs):
        for argument, source in enumerate(sources):
            found.add_edge(source, place, argument=argument)
    return found


def from_networkx(graph: networkx.DiGraph) -> GraphParts:
    """The parts of the graph of a networkx graph with the attributes that `to_networkx` gives.

    Args:
        graph: A DiGraph or MultiDiGraph with any nodes. `name` and `tied` may be absent, and
            `argument` where a node has one input or its inputs have no order.

    Raises:
        GraphError: The graph is undirected or has a cycle, or a tied node is not in it.
        FileFormatError: An attribute is missing, of a wrong type, or does not fit its operation.
    """
    import networkx as nx

    if not isinstance(graph, nx.DiGraph):
        raise GraphError(
            f"a compute graph must be a directed networkx graph, but got {type(graph).__name__}."
        )
    rank = {key: place for place, key in enumerate(graph)}
    try:
        order = list(nx.lexicographical_topological_sort(graph, key=rank.__getitem__))
    except nx.NetworkXUnfeasible as err:
        raise GraphError(
            "a compute graph must have no cycles, but the networkx graph has one."
        ) from err
    place = {key: new for new, key in enumerate(order)}
    nodes, inputs, names = [], [], []
    tied: dict[int, int] = {}
    for key in order:
        record = graph.nodes[key]
        nodes.append(_node(record, f"node {key!r}"))
        names.append(str(record.get("name", key)))
        edges = [
            (data.get("argument", 0), place[a]) for a, _, data in graph.in_edges(key, data=True)
        ]
        if not all(_is_number(argument) for argument, _ in edges):
            raise FileFormatError(f"the arguments of node {key!r} must be whole numbers.")
        inputs.append([source for _, source in sorted(edges)])
        if "tied" in record:
            twin = record["tied"]
            if twin not in place:
                raise GraphError(f"tied weights must be those of a node, but got {twin!r}.")
            tied[max(place[key], place[twin])] = min(place[key], place[twin])
    _check_edges(nodes, inputs)
    return GraphParts(nodes, inputs, names, tied)
