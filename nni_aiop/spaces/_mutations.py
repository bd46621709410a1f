"""MutationSpace: the edits of one network as a search space."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from nni_aiop.errors import SpaceError
from nni_aiop.graphs.edits import Site, find_sites, plan_of
from nni_aiop.spaces._code_space import CodeSpace, Condition
from nni_aiop.spaces._coding import Sample
from nni_aiop.spaces._dimensions import Dimension, Value
from nni_aiop.spaces._listed import Nominal, Ordinal

if TYPE_CHECKING:
    from torch import Tensor

    from nni_aiop.graphs import ComputeGraph

__all__ = ["CRITERION", "MutationSpace"]

CRITERION = "criterion"
"""Label of the dimension that says which channels of a site stay."""

_COSTS = {
    "flops": "macs",
    "macs": "macs",
    "params": "params",
    "peak_memory": "peak_memory",
}


class MutationSpace(CodeSpace):
    """Everything that a compute graph can be shrunk to: one dimension a site.

    Widths and heads are ordinal, how many units are kept; kernels are ordinal, too; branches, gates
    and forms of layers are nominal. What is inside a branch or gate matters only where that is
    kept. The costs are exact, vectorised and differentiable in codes: `flops` and `macs` (both are
    multiply-adds, as in every space), `params` (a number) and `peak_memory` (bytes of activations
    in single precision), for the input that the graph was made for.

    Args:
        network: The compute graph of the network to shrink.
        keep: Names of layers to leave as they are, with wildcards: "head", "layer1.*".
        round_to: Widths are multiples of so many channels; by default of 8 where a layer has at
            least 32, else of 4.
        kinds: Of sites that are searched: "width", "heads", "branch", "gate", "kernel", "form";
            all by default.
        sites: What can be edited, where a network lets go less than its graph (`Network.sites`);
            `keep` and `round_to` are then those of the sites.
        criteria: Ways to choose the channels that stay, as a further dimension "criterion" for
            who edits the real network; none by default.
        name: Name of the space, for messages and files.

    Attributes:
        base: The compute graph of the network as it is.
        sites: All sites, those that cannot be edited included.

    Raises:
        SpaceError: Nothing can be edited, or a kind is not one.
        GraphError: A name to keep is no layer's.

    Example:
        >>> from torch import nn
        >>> from nni_aiop.graphs import from_module
        >>> net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 3))
        >>> space = MutationSpace(from_module(net, (1, 3, 9, 9)), kinds=["width"])
        >>> space.labels
        ('width:0',)
        >>> space.graph({"width:0": 32}).macs * 2 == space.base.macs
        True
    """

    def __init__(
        self,
        network: ComputeGraph,
        *,
        keep: Sequence[str] = (),
        round_to: int | None = None,
        kinds: Sequence[str] | None = None,
        sites: Sequence[Site] | None = None,
        criteria: Sequence[str] = (),
        name: str = "mutations",
    ) -> None:
        known = ("width", "heads", "branch", "gate", "kernel", "form")
        if kinds is not None and (isinstance(kinds, str) or not isinstance(kinds, Collection)):
            raise SpaceError(f"kinds must be a list of kinds of sites, but got {kinds!r}.")
        wanted = known if kinds is None else tuple(kinds)
        for kind in wanted:
            if kind not in known:
                raise SpaceError(
                    f"a kind of site must be one of {', '.join(known)}, but got {kind!r}."
                )
        self.base = network
        self.sites = (
            find_sites(network, keep=keep, round_to=round_to) if sites is None else tuple(sites)
        )
        self.criteria = tuple(criteria)
        self._plan = plan_of(network)
        self._edited = [s for s in self.sites if s.reason is None and s.kind in wanted]
        if not self._edited:
            reasons = "; ".join(dict.fromkeys(s.reason for s in self.sites if s.reason))
            raise SpaceError(
                f"a network to shrink must have a site that can be edited, but got none"
                f"{': ' + reasons if reasons else ''}."[:600]
            )
        labels = {site.label for site in self._edited}
        conditions = {
            site.label: [Condition(p, ("keep",)) for p in site.parents if p in labels]
            for site in self._edited
        }
        # Parents stand before what is inside them: the larger branch first.
        self._edited.sort(key=lambda s: (bool(s.counts), self._depth(s, labels)))
        super().__init__(
            [
                *(_dimension(site) for site in self._edited),
                *([Nominal(CRITERION, self.criteria)] if self.criteria else []),
            ],
            name=name,
            conditions={label: given for label, given in conditions.items() if given},
            costs={cost: partial(self._cost, own) for cost, own in _COSTS.items()},
            graph=self.graph_of,
        )

    @staticmethod
    def _depth(site: Site, labels: set[str]) -> int:
        return sum(parent in labels for parent in site.parents)

    @property
    def original(self) -> Sample:
        """The sample of the network as it is."""
        plain: Sample = {site.label: site.value for site in self._edited}
        return plain | ({CRITERION: self.criteria[0]} if self.criteria else {})

    def edits(self, sample: Mapping[str, Value]) -> dict[str, Value]:
        """The edits of a sample by site: those that change something and are not inside what goes,
        for `ComputeGraph.edit` and `Network.edit`."""
        gone = {label for label, value in sample.items() if value == "remove"}
        return {
            site.label: sample[site.label]
            for site in self._edited
            if site.label in sample
            and sample[site.label] != site.value
            and not gone & set(site.parents)
        }

    def graph_of(self, sample: Mapping[str, Value]) -> ComputeGraph:
        """The edited compute graph of a sample, which may lack inactive labels.

        Raises:
            GraphError: A value is not one of its site's.
        """
        return self.base.edit(self.edits(sample))

    def _cost(self, name: str, codes: Tensor) -> Tensor:
        """(n,) a cost of codes (n, width)."""
        import torch

        groups = self._plan.coupling.groups
        whole = torch.tensor([float(group.size) for group in groups], dtype=codes.dtype)
        columns = list(whole.expand(len(codes), -1).unbind(1))
        options: dict[int, Tensor] = {}
        for site in self._edited:
            own = codes[:, self.columns[site.label]]
            if site.counts:
                columns[site.index] = _interpolated(own[:, 0], site.values)
            elif site.kind == "kernel":
                options[site.index] = _shares(own[:, 0], len(site.values)).flip(1)
            else:
                options[site.index] = own
        kept = torch.stack(columns, 1) if columns else codes.new_zeros(len(codes), 0)
        return self._plan.costs(kept, options, (name,))[name]


def _dimension(site: Site) -> Dimension:
    if site.counts:
        return Ordinal(site.label, site.values)
    if site.kind == "kernel":
        return Ordinal(site.label, tuple(sorted(site.values)))
    return Nominal(site.label, site.values)


def _interpolated(codes: Tensor, values: Sequence[int]) -> Tensor:
    """(n,) numbers between values that lie at equal steps of codes in [0, 1]."""
    import torch

    table = torch.tensor([float(v) for v in values], dtype=codes.dtype)
    at = codes.clamp(0.0, 1.0) * (len(values) - 1)
    low = at.detach().floor().long().clamp(0, len(values) - 2)
    part = at - low
    return table[low] * (1 - part) + table[low + 1] * part


def _shares(codes: Tensor, n: int) -> Tensor:
    """(n, options) how much of each of several options at equal steps of codes in [0, 1]."""
    import torch

    at = codes.clamp(0.0, 1.0) * (n - 1)
    return (1 - (at[:, None] - torch.arange(n, dtype=codes.dtype)).abs()).clamp(min=0.0)
