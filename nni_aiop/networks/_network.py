"""Network: a real network with its weights that can be edited as its compute graph can.

A network is captured once by torch.export: a program of ATen operations that trains, keeps its
parameters' names, takes any batch size, and can be edited by what its compute graph says.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from nni_aiop.errors import GraphError
from nni_aiop.files import brief
from nni_aiop.graphs import ComputeGraph
from nni_aiop.graphs.edits import Site, Structure, as_edit, find_sites, plan_of
from nni_aiop.networks import _files, _program
from nni_aiop.networks._draft import Draft, parameter_of, set_parameter
from nni_aiop.networks._forms import reform
from nni_aiop.networks._labels import Pass, packet_name
from nni_aiop.networks._match import Units, match
from nni_aiop.networks._removal import Scores, add_by_label, checked_scores, removed_labels
from nni_aiop.networks._surgery import (
    Cut,
    ancestors,
    arguments_of,
    bypass,
    follows_mode,
    mode_of,
    set_arguments,
)

__all__ = ["Network"]

Example = Any
"""A tensor, a shape such as (1, 3, 224, 224), or several in a tuple."""


class Network(nn.Module):
    """A real network as a program that can be edited, trained, saved and exported.

    Its `state_dict` has the keys of the model that it was captured from, as far as its layers are
    still there. Dropout and batch normalisation follow `train()` and `eval()`; what a model does
    otherwise in training alone (stochastic depth, dropout inside attention, heads for training) is
    not captured.

    Attributes:
        graph: Its compute graph, for the batch size of the example; named after modules.
        example: Inputs that it takes.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3))
        >>> network = Network.capture(model, (1, 3, 9, 9))
        >>> small = network.edit({"width:0": 16})
        >>> small(torch.rand(5, 3, 9, 9)).shape, small.graph.macs / network.graph.macs
        (torch.Size([5, 8, 5, 5]), 0.5)
    """

    def __init__(self, module: fx.GraphModule, example: Sequence[Tensor]) -> None:
        super().__init__()
        # The same tables: what one of the two sees, so does the other.
        self._parameters = module._parameters
        self._buffers = module._buffers
        self._modules = module._modules
        self._non_persistent_buffers_set = module._non_persistent_buffers_set
        object.__setattr__(self, "program", module)
        self.example = tuple(example)
        self.training = False

    program: fx.GraphModule

    @classmethod
    def capture(cls, model: nn.Module, example: Example) -> Network:
        """A copy of a model as a network.

        Args:
            model: Any module that torch.export takes.
            example: Its inputs: a tensor or a shape, or several in a tuple. The first axis of each
                is the batch.

        Raises:
            GraphError: The model cannot be exported, takes one batch size only, changes its own
                tensors in evaluation, or writes into a tensor that it reads in another layout.
        """
        if not isinstance(model, nn.Module):
            raise GraphError(
                f"a network to edit must be a PyTorch module, but got {brief(repr(model), 80)}."
            )
        inputs = _inputs(example)
        twin = _copied(model)
        _program.with_momentum(twin)
        return cls(_program.exported(twin, inputs), inputs)

    def forward(self, *inputs: Tensor) -> Any:
        """What the model returns."""
        if self.training:
            for counter in self._counters():
                counter.add_(1)
        return self.program(*inputs)

    def _counters(self) -> Iterator[Tensor]:
        """Of every batch normalisation that learns its statistics the counter of batches."""
        for node in self.program.graph.nodes:
            if node.op != "call_function" or packet_name(node) != "batch_norm":
                continue
            mean = arguments_of(node)["running_mean"]
            if isinstance(mean, fx.Node) and mean.op == "get_attr" and follows_mode(node):
                prefix, dot, _ = str(mean.target).rpartition(".")
                path = f"{prefix}{dot}num_batches_tracked"
                owner = self.get_submodule(prefix)
                if owner._buffers.get("num_batches_tracked") is not None:
                    yield parameter_of(self, path)

    def train(self, mode: bool = True) -> Network:
        """Lets dropout and batch normalisation do what they do in training, or not."""
        changed = False
        for node in self.program.graph.nodes:
            flag = mode_of(node) if follows_mode(node) else None
            if flag is not None and bool(arguments_of(node)[flag]) != mode:
                set_arguments(node, **{flag: mode})
                changed = True
        if changed:
            self.program.recompile()
        self.training = mode
        return self

    def _evaluating(self) -> Network:
        """The network, or a copy where it is in training, in evaluation mode."""
        return copy.deepcopy(self).train(False) if self.training else self

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        made = Network(Draft(self.program).built(memo), self.example)
        made.training = self.training
        return made

    def extra_repr(self) -> str:
        return f"{len(self.graph)} operations, {self.graph.parameters} parameters"

    # --- what can be edited ----------------------------------------------------------------------

    @cached_property
    def _recorded(self) -> tuple[ComputeGraph, tuple[str, ...], dict[str, Any]]:
        return _program.record(self._evaluating().program, self.example)

    @property
    def graph(self) -> ComputeGraph:
        """The compute graph."""
        return self._recorded[0]

    @cached_property
    def _labels(self) -> Pass:
        return Pass(self.program.graph, self._recorded[2])

    @cached_property
    def _units(self) -> list[Units]:
        plan = plan_of(self.graph)
        return match(self.graph, plan.coupling, self._recorded[1], self._labels)

    def sites(self, *, keep: Sequence[str] = (), round_to: int | None = None) -> tuple[Site, ...]:
        """What can be edited in the network; see `ComputeGraph.sites`.

        A site of the graph that the network's program does not let go carries the reason.
        """
        found = []
        for site in find_sites(self.graph, keep=keep, round_to=round_to):
            reason = site.reason or self._refusals[site.label]
            found.append(replace(site, reason=reason) if reason else site)
        return tuple(sorted(found, key=lambda site: site.reason is not None))

    @cached_property
    def _sites(self) -> tuple[Site, ...]:
        """All sites, as edits take them: of any width."""
        return self.sites()

    @cached_property
    def _refusals(self) -> dict[str, str | None]:
        """By label of a site why it cannot be edited in the program, None where it can."""
        return {site.label: self._refusal(site) for site in find_sites(self.graph)}

    def _refusal(self, site: Site) -> str | None:
        if site.counts:
            return self._units[site.index].reason
        structure = plan_of(self.graph).structures[site.index]
        if self._node(structure.place) is None:
            return "its operation was not found in the program"
        if site.kind == "gate" and self._readers_of_gate(structure) is None:
            return "what reads its product is no layer into whose weight its mean could go"
        if site.kind in ("kernel", "form") and self._weight(structure) is None:
            return "its weight is computed, or shared"
        return None

    def _node(self, place: int) -> fx.Node | None:
        return self._nodes.get(self._recorded[1][place])

    @cached_property
    def _nodes(self) -> dict[str, fx.Node]:
        return {node.name: node for node in self.program.graph.nodes}

    def _weight(self, structure: Structure) -> fx.Node | None:
        node = self._node(structure.place)
        if node is None or packet_name(node) not in ("conv1d", "conv2d", "conv3d", "linear"):
            return None
        weight = node.args[1]
        own = isinstance(weight, fx.Node) and weight.op == "get_attr" and len(weight.users) == 1
        return weight if own and isinstance(weight, fx.Node) else None

    def _readers_of_gate(self, structure: Structure) -> list[fx.Node] | None:
        """The layers that read a gated tensor, None where another operation does."""
        node = self._node(structure.place)
        found: list[fx.Node] = []
        waiting = list(node.users) if node is not None else []
        while waiting:
            user = waiting.pop()
            name = packet_name(user) if user.op == "call_function" else ""
            if name in ("dropout", "contiguous", "alias", "clone"):
                waiting += user.users
            elif name in ("conv1d", "conv2d", "conv3d", "linear") and (
                isinstance(user.args[1], fx.Node)
                and user.args[1].op == "get_attr"
                and len(user.args[1].users) == 1
                and (name == "linear" or arguments_of(user)["groups"] in (1, _channels(self, user)))
            ):
                found.append(user)
            else:
                return None
        return found or None

    # --- edits -----------------------------------------------------------------------------------

    def edit(self, edits: Mapping[str, Any], *, scores: Scores | None = None) -> Network:
        """A smaller copy of the network; its compute graph is `graph.edit(edits)`.

        Args:
            edits: By label of a site (`sites`) what it is to be: how many units it keeps, or one of
                its options. What lies inside a branch that goes is not looked at.
                The mean of a gate that goes is that over the example.
            scores: By label of a width or of heads how much each unit matters, (units,); those
                that matter most are kept. By default the squared sum of all weights that go with a
                unit (Li et al. 2017, arXiv 1608.08710; Fang et al. 2023, arXiv 2301.12900, for
                groups).

        Raises:
            GraphError: There is no such site, it cannot be edited, or not in that way.
        """
        draft = self.draft(edits, scores=scores)
        return Network(draft.built(), self.example).train(self.training)

    def draft(self, edits: Mapping[str, Any], *, scores: Scores | None = None) -> Draft:
        """What `edit` builds a network from; what stays as it is are the network's own tensors."""
        plan = plan_of(self.graph)
        sites = self._sites
        kept, options = as_edit(sites, plan, edits)
        draft = Draft(self.program)
        nodes = {node.name: node for node in draft.graph.nodes}
        operations = self._recorded[1]
        forms: list[tuple[Structure, object]] = []
        for at, option in options.items():
            structure = plan.structures[at]
            if structure.kind in ("branch", "gate"):
                if structure.kind == "gate":
                    self._fold_gate(draft, nodes, structure)
                self._remove(draft, nodes, structure)
            else:
                forms.append((structure, option))
        removed = self._removed(sites, kept, scores or {})
        Cut(self._labels, removed).apply(draft)
        for structure, option in forms:
            name = operations[structure.place]
            reform(draft, nodes[name], self.graph.nodes[structure.place].weight_shape, option)
        _program.without_unread(draft.graph)
        draft.drop_unused()
        return draft

    def _removed(
        self, sites: Sequence[Site], kept: Sequence[int], scores: Scores
    ) -> NDArray[np.bool_]:
        """(labels,) whether a label of the program goes."""
        plain = {
            label: values.detach().cpu().numpy() if isinstance(values, Tensor) else values
            for label, values in scores.items()
        }
        given = checked_scores(sites, plain)
        count = self._labels.coupler.count
        return removed_labels(count, sites, kept, self._units, given, lambda: self._norms)

    def units_of(self, site: Site) -> tuple[NDArray[np.int64], ...]:
        """Of each unit of a width or of heads the labels that go with it (`label_sums`)."""
        return self._units[site.index].labels

    @cached_property
    def _norms(self) -> NDArray[np.float64]:
        """(labels,) the sum of squares of all weights that go with a label."""
        return self.label_sums(lambda path, weight: weight.detach().double().square())

    def label_sums(self, of: Any) -> NDArray[np.float64]:
        """(labels,) the sum over all weights that go with a label of a function of each."""
        found = np.zeros(self._labels.coupler.count)
        for node in self.program.graph.nodes:
            if node.op != "get_attr":
                continue
            value = parameter_of(self.program, str(node.target))
            if not isinstance(value, nn.Parameter):
                continue
            numbers = of(str(node.target), value).cpu().numpy()
            add_by_label(found, self._labels.marks[node.name].layers, numbers)
        return found

    def _remove(self, draft: Draft, nodes: Mapping[str, fx.Node], structure: Structure) -> None:
        operations = self._recorded[1]
        inside = [operations[n] for n in sorted(structure.nodes)]
        product = nodes[operations[structure.place]]
        bypass(draft.graph, product, self._term(structure), inside)

    def _term(self, structure: Structure) -> str:
        """The name of the operation whose result a sum or product is left without."""
        (term,) = structure.nodes & set(self.graph.inputs[structure.place])
        return self._recorded[1][term]

    def _fold_gate(self, draft: Draft, nodes: Mapping[str, fx.Node], structure: Structure) -> None:
        """Puts the mean of a gate over the example into the weights of the layers behind it."""
        readers = self._readers_of_gate(structure)
        product = self._node(structure.place)
        assert readers is not None
        assert product is not None
        term = self._term(structure)
        gate = next(
            a
            for a in product.args[:2]
            if isinstance(a, fx.Node) and term in {n.name for n in ancestors(a)}
        )
        value = self._values(gate)
        for reader in readers:
            axis = 1 if packet_name(reader) != "linear" else value.dim() - 1
            mean = value.mean([a for a in range(value.dim()) if a != axis])
            weight = reader.args[1]
            assert isinstance(weight, fx.Node)
            old = parameter_of(draft, str(weight.target))
            depthwise = packet_name(reader) != "linear" and arguments_of(reader)["groups"] > 1
            sizes = [1] * old.dim()
            sizes[0 if depthwise else 1] = -1
            if depthwise and mean.numel() > 1:
                mean = mean.repeat_interleave(old.shape[0] // mean.numel())
            times = mean.to(old.dtype).reshape(sizes) if mean.numel() > 1 else mean.to(old.dtype)
            scaled = nn.Parameter(old.detach() * times, old.requires_grad)
            set_parameter(draft, str(weight.target), scaled)

    def _values(self, node: fx.Node) -> Tensor:
        """What an operation returns on the example, in evaluation mode."""
        found: dict[str, Tensor] = {}

        class Watched(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                result = super().run_node(n)
                if n.name == node.name:
                    found["value"] = result
                return result

        training = self.training
        self.train(False)
        with torch.no_grad():
            Watched(self.program).run(*self.example)
        self.train(training)
        return found["value"]

    # --- files -----------------------------------------------------------------------------------

    def save(self, path: Path | str) -> Path:
        """The path, which now holds the network: tensors, and its program as JSON; no pickle."""
        return _files.save(self._evaluating().program, self.example, path)

    @staticmethod
    def load(path: Path | str) -> Network:
        """The network of a file that `save` wrote.

        Raises:
            FileFormatError: The file is damaged, of another version, or holds an operation that is
                not one of PyTorch's.
            OSError: There is no such file.
        """
        return Network(*_files.load(path))

    def to_onnx(self, path: Path | str) -> Path:
        """The path, which now holds the network as an ONNX file for any batch size.

        Raises:
            GraphError: PyTorch's exporter does not take one of its operations.
        """
        return _files.to_onnx(self._evaluating().program, self.example, path)

    def to_pt2(self, path: Path | str) -> Path:
        """The path, which now holds the network as `torch.export.load` reads it."""
        return _files.to_pt2(self._evaluating().program, self.example, path)


def _copied(model: nn.Module) -> nn.Module:
    """A copy of a model in evaluation mode."""
    name = type(model).__name__
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise GraphError(
            f"a network to edit must have its weights, but {name} has layers that were never run: "
            "run it once first."
        )
    try:
        return copy.deepcopy(model).eval()
    except (RuntimeError, TypeError, ValueError, AttributeError) as err:
        raise GraphError(
            f"a network to edit must be one that can be copied, but {name} raised "
            f"{type(err).__name__}: {brief(err).rstrip('.')}."
        ) from err


def _inputs(example: Example) -> tuple[Tensor, ...]:
    if isinstance(example, Tensor):
        if not example.dim() or not len(example):
            raise GraphError(
                f"an example must have a batch as its first axis, but got shape "
                f"{tuple(example.shape)}."
            )
        return (example,)
    if isinstance(example, (tuple, list)) and example:
        if all(type(n) is int and n > 0 for n in example):
            return (torch.rand(tuple(example)),)
        if all(isinstance(x, (Tensor, tuple, list)) for x in example):
            return tuple(x for one in example for x in _inputs(one))
    raise GraphError(
        f"an example must be a tensor or a shape, or several, but got {example!r:.80}."
    )


def _channels(network: Network, node: fx.Node) -> int:
    return int(network._labels.of(node.args[0]).shape[1])
