"""Which labels go with an edit, and what stays of every axis then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import GraphError, the_nearest
from nni_aiop.graphs.edits import Labels, Marks, Site
from nni_aiop.networks._match import Units

__all__ = ["Removal", "Scores", "add_by_label", "checked_scores", "removed_labels"]

Scores = Mapping[str, Any]
"""By label of a site how much each of its units matters; those that matter most are kept."""


class Removal:
    """What of every tensor goes.

    Args:
        removed: (labels,) whether a label goes.
    """

    def __init__(self, removed: NDArray[np.bool_]) -> None:
        self._removed = removed

    def kept(self, marks: Marks, axis: int) -> NDArray[np.bool_] | None:
        """(n,) which entries of an axis stay, None where all do."""
        keep: NDArray[np.bool_] | None = None
        for layer in marks.varying(axis):
            own = self._kept(layer, axis)
            keep = own if keep is None else keep & own
        return None if keep is None or keep.all() else keep

    def _kept(self, layer: Labels, axis: int) -> NDArray[np.bool_]:
        stays = ~self._removed[layer]
        return np.asarray(np.moveaxis(stays, axis, 0).reshape(layer.shape[axis], -1).any(axis=1))

    def upto(self, marks: Marks, axis: int, stop: int) -> int:
        """How many of the first entries of an axis stay."""
        keep = self.kept(marks, axis)
        return stop if keep is None else int(keep[:stop].sum())

    def length(self, marks: Marks, axis: int) -> int:
        """How many entries of an axis stay."""
        return self.upto(marks, axis, marks.shape[axis])


def removed_labels(
    count: int,
    sites: Sequence[Site],
    kept: Sequence[int],
    units: Sequence[Units],
    scores: Mapping[str, NDArray[np.float64]],
    norms: Callable[[], NDArray[np.float64]],
) -> NDArray[np.bool_]:
    """(labels,) whether a label goes.

    Args:
        count: Of labels.
        sites: What can be edited.
        kept: Units that every group keeps.
        units: Of every group its units.
        scores: By label of a site how much its units matter.
        norms: (labels,) the sum of squares of the weights of each; what matters otherwise.
    """
    removed = np.zeros(count, np.bool_)
    for site in sites:
        if not site.counts or kept[site.index] >= site.value:
            continue
        own = units[site.index].labels
        score = scores.get(site.label)
        if score is None:
            squares = norms()
            score = np.array([squares[unit].sum() for unit in own])
        order = np.argsort(-score, kind="stable")
        for unit in order[kept[site.index] :].tolist():
            removed[own[unit]] = True
    return removed


def add_by_label(
    sums: NDArray[np.float64], layers: Sequence[Labels], numbers: NDArray[np.float64]
) -> None:
    """Adds numbers of a tensor, summed over its other axes, to the (labels,) sums of its labels."""
    for layer in layers:
        axis = next(a for a, n in enumerate(layer.shape) if n > 1)
        others = tuple(a for a in range(numbers.ndim) if a != axis)
        np.add.at(sums, layer.ravel(), numbers.sum(axis=others))


def checked_scores(sites: Sequence[Site], scores: Scores) -> dict[str, NDArray[np.float64]]:
    """Checked scores: finite numbers, one for each unit of a site.

    Raises:
        GraphError: A label is no site's, or the numbers do not fit it.
    """
    sizes = {site.label: site.value for site in sites if site.counts}
    found = {}
    for label, values in scores.items():
        if label not in sizes:
            hint = the_nearest(label, sizes)
            raise GraphError(
                f"scores must be of widths and heads of the network, but got {label!r}{hint}."
            )
        try:
            score = np.asarray(values, np.float64)
        except (TypeError, ValueError) as err:
            raise GraphError(
                f"scores must be numbers, but got {values!r:.80} for {label!r}."
            ) from err
        if score.shape != (sizes[label],):
            raise GraphError(
                f"{label!r} must have a score for each of its {sizes[label]} units, but got "
                f"scores of shape {score.shape}."
            )
        if not np.isfinite(score).all():
            raise GraphError(f"scores must be finite, but some of {label!r} are not.")
        found[label] = score
    return found
