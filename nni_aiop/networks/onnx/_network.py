"""OnnxNetwork: an ONNX file with its weights that can be edited as its compute graph can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto, numpy_helper

from nni_aiop.errors import GraphError
from nni_aiop.graphs import ComputeGraph
from nni_aiop.graphs._types import Shape
from nni_aiop.graphs.doors.onnx import Recorded, inlined, read_model, record_onnx
from nni_aiop.graphs.edits import Site, as_edit, find_sites, plan_of
from nni_aiop.networks._match import Units, match
from nni_aiop.networks._removal import Scores, add_by_label, checked_scores, removed_labels
from nni_aiop.networks.onnx import _files
from nni_aiop.networks.onnx._cut import OnnxCut
from nni_aiop.networks.onnx._labels import OnnxPass, called

__all__ = ["OnnxNetwork", "inputs_of"]

_STATISTICS = (3, 4)
"""Inputs of BatchNormalization that are no weights."""

_PARTED = frozenset({"Split", "SplitToSequence", "If", "Loop", "Scan"})
"""Operators whose results are of several kinds."""


class OnnxNetwork:
    """A network in an ONNX file whose widths can be edited, weights and all.

    Channels and heads of attention can go; branches, gates, kernels and forms of layers stay as
    they are. What comes out is ONNX again, and cannot be trained here: whoever has the training
    takes `Network`.

    Args:
        model: The model; it is not changed. Functions of its own are replaced by their bodies.
        input_shapes: Name of an input -> its shape, for inputs with symbolic dimensions. By default
            a batch of one, where the batch is all that is symbolic.

    Attributes:
        model: The model.
        input_shapes: Of every input, as its graph has them.

    Raises:
        FileFormatError, GraphError: As of `from_onnx`; a GraphError, too, where a weight is
            quantised or an input has other symbolic dimensions and no shape is given.

    Example:
        >>> import onnx
        >>> text = '''<ir_version: 8, opset_import: ["" : 17]>
        ... net (float[b, 8] x) => (float[b, 2] y)
        ... { h = MatMul(x, w1)
        ...   y = MatMul(h, w2) }'''
        >>> model = onnx.parser.parse_model(text)
        >>> weights = {"w1": np.ones((8, 64), "f4"), "w2": np.ones((64, 2), "f4")}
        >>> model.graph.initializer.extend(
        ...     onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
        >>> small = OnnxNetwork(model).edit({"width:h": 16})
        >>> [list(x.dims) for x in small.model.graph.initializer]
        [[8, 16], [16, 2]]
    """

    def __init__(
        self, model: ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        _check_float(model)
        self.model = inlined(model)
        self.input_shapes: dict[str, Shape] = _shapes(self.model, input_shapes or {})
        self._external = False

    @classmethod
    def load(
        cls, path: Path | str, input_shapes: Mapping[str, Sequence[int]] | None = None
    ) -> OnnxNetwork:
        """The network of an ONNX file and of the files beside it that hold its weights.

        Args:
            path: The file, opset 9 and up.
            input_shapes: See the class.

        Raises:
            FileFormatError: It is not an ONNX model, or weights are missing beside it.
            GraphError: See the class.
            OSError: There is no such file.
        """
        model, external = _files.load(path)
        network = cls(model, input_shapes)
        network._external = external
        return network

    def save(self, path: Path | str) -> Path:
        """The path, which now holds the network.

        Weights lie in a file of the same name with ".data" behind it where they did so when the
        network was loaded, or where the file would be larger than the 2 GB that ONNX allows.
        """
        return _files.save(self.model, path, external=self._external)

    # --- what can be edited ----------------------------------------------------------------------

    @cached_property
    def _recorded(self) -> Recorded:
        return record_onnx(self.model, self.input_shapes)

    @property
    def graph(self) -> ComputeGraph:
        """The compute graph, as `from_onnx` gives it."""
        return self._recorded.graph

    @cached_property
    def _labels(self) -> OnnxPass:
        return OnnxPass(self.model, self._recorded.tensors)

    @cached_property
    def _units(self) -> list[Units]:
        parted = {
            next(name for name in node.output if name)
            for node in self.model.graph.node
            if node.op_type in _PARTED and any(node.output)
        }
        operations = ["" if name in parted else name for name in self._recorded.operations]
        return match(self.graph, plan_of(self.graph).coupling, operations, self._labels)

    def sites(self, *, keep: Sequence[str] = (), round_to: int | None = None) -> tuple[Site, ...]:
        """What can be edited in the network; see `ComputeGraph.sites`.

        A site of the graph that the file does not let go carries the reason, with the name of the
        node that is in the way.
        """
        found = []
        for site in find_sites(self.graph, keep=keep, round_to=round_to):
            reason = site.reason
            if reason is None:
                reason = self._units[site.index].reason if site.counts else _ONLY_WIDTHS
            found.append(replace(site, reason=reason))
        return tuple(sorted(found, key=lambda site: site.reason is not None))

    @cached_property
    def _sites(self) -> tuple[Site, ...]:
        return self.sites()

    # --- edits -----------------------------------------------------------------------------------

    def edit(self, edits: Mapping[str, Any], *, scores: Scores | None = None) -> OnnxNetwork:
        """A smaller copy of the network; its compute graph is `graph.edit(edits)`.

        Args:
            edits: By label of a width or of heads (`sites`) how many units it keeps.
            scores: By label how much each unit matters, (units,); those that matter most are kept.
                By default the squared sum of all weights that go with a unit, as of `Network.edit`.

        Raises:
            GraphError: There is no such site, it cannot be edited, or not in that way.
        """
        plan = plan_of(self.graph)
        sites = self._sites
        kept, _ = as_edit(sites, plan, edits)
        given = checked_scores(sites, scores or {})
        count = self._labels.coupler.count
        removed = removed_labels(count, sites, kept, self._units, given, lambda: self._norms)
        model = ModelProto()
        model.CopyFrom(self.model)
        if removed.any():
            OnnxCut(self._labels, removed, model).apply()
        small = OnnxNetwork(model, self.input_shapes)
        small._external = self._external
        return small

    @cached_property
    def _norms(self) -> NDArray[np.float64]:
        """(labels,) the sum of squares of all weights that go with a label."""
        labels = self._labels
        found = np.zeros(labels.coupler.count)
        tensors = {tensor.name: tensor for tensor in self.model.graph.initializer}
        for held in labels.held.values():
            known = self._recorded.tensors[held.name]
            norms = all(
                labels.nodes[at].op_type == "BatchNormalization" and place in _STATISTICS
                for at, place in held.places
            )
            if not known.learned or norms:
                continue
            if held.source in tensors:
                numbers: NDArray[Any] | None = numpy_helper.to_array(tensors[held.source])
            else:
                numbers = known.read()
            if numbers is None:
                continue
            add_by_label(found, held.marks.layers, np.square(numbers.astype(np.float64)))
        return found


_ONLY_WIDTHS = "an ONNX file is edited in its widths and heads only"

_QUANTISED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger",
     "MatMulNBits", "QGemm", "QAttention", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM",
     "MatMulIntegerToFloat"}
)  # fmt: skip


def _check_float(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in _QUANTISED or node.op_type.startswith("QLinear"):
            raise GraphError(
                f"an ONNX file to edit must hold weights that are not quantised, but node "
                f"{called(node)!r} is a {node.op_type}: edit the float file, and quantise what "
                f"comes out."
            )


def inputs_of(path: Path | str) -> list[str]:
    """The names of the inputs of an ONNX file, in its order.

    Raises:
        FileFormatError: It is not an ONNX model.
        OSError: There is no such file.
    """
    return [info.name for info in _inputs(read_model(Path(path)))]


def _inputs(model: ModelProto) -> list[ValueInfoProto]:
    held = {tensor.name for tensor in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in held]


def _shapes(model: ModelProto, given: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """The shape of every input: as given, as stated, or with a batch of one."""
    shapes = {name: tuple(int(n) for n in shape) for name, shape in given.items()}
    for info in _inputs(model):
        tensor = info.type.tensor_type
        if info.name in shapes or not tensor.HasField("shape"):
            continue
        dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
        if not dims or all(n > 0 for n in dims):
            continue
        if any(n <= 0 for n in dims[1:]):
            said = [d.dim_param or (str(d.dim_value) if d.dim_value > 0 else "?")
                    for d in tensor.shape.dim]  # fmt: skip
            raise GraphError(
                f"every dimension of an input but the batch must be known, but {info.name!r} has "
                f"({', '.join(said)}): its shape must be given (input_shapes)."
            )
        shapes[info.name] = (1, *dims[1:])
    return shapes
