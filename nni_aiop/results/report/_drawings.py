"""Pictures of the best networks, where their space draws graphs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nni_aiop.errors import GraphError, SpaceError
from nni_aiop.files import brief
from nni_aiop.spaces import Continuous

if TYPE_CHECKING:
    from nni_aiop.results.report._folder import Evaluations
    from nni_aiop.spaces import CodeSpace, Sample

__all__ = ["Drawing", "drawings_of"]

_MOST = 5
_SECONDS = 20.0  # after which no further one is begun: making large graphs takes a while


@dataclass(frozen=True)
class Drawing:
    """One network.

    Attributes:
        number: Of the evaluation.
        svg: The picture.
    """

    number: int
    svg: str


def drawings_of(found: Evaluations, space: CodeSpace | None) -> tuple[list[Drawing], str]:
    """Pictures of the best networks, and a sentence on what is not drawn; empty where all are.

    Args:
        found: What was evaluated.
        space: The space that was searched; None where it is not at hand.

    Raises:
        SpaceError: It is another space.
    """
    if space is None:
        return [], (
            "Networks can be drawn with the space that was searched, which is not at hand: "
            "nni-aiop report FOLDER --space module:attribute."
        )
    if space.fingerprint != found.summary.get("fingerprint"):
        raise SpaceError(
            f"the space must be {found.summary.get('space')!s:.80}, which was searched, but "
            f"{space.name} is another one."
        )
    if space.graph is None:
        return [], f"{space.name} draws no graphs of its networks."
    drawings: list[Drawing] = []
    begun = time.monotonic()
    for number in found.leaders[:_MOST]:
        if time.monotonic() - begun > _SECONDS:
            return drawings, (
                f"The best {len(drawings)} are drawn: further ones would take too long."
            )
        try:
            drawings.append(Drawing(number, _drawn(space, _sample(found, number, space))))
        except GraphError as err:
            return drawings, f"Evaluation {number} cannot be drawn: {brief(err)}"
    return drawings, ""


def _drawn(space: CodeSpace, sample: Sample) -> str:
    """The picture of a sample's network.

    Raises:
        GraphError: It cannot be drawn.
    """
    assert space.graph is not None
    try:
        return space.graph(sample).to_svg()
    except Exception as err:  # a space's own code may raise anything
        raise GraphError(str(err) or type(err).__name__) from err


def _sample(found: Evaluations, number: int, space: CodeSpace) -> Sample:
    """The active labels of one evaluation."""
    sample = {}
    for axis, dimension, point in zip(
        found.axes, space.dimensions, found.points[number].tolist(), strict=True
    ):
        if math.isnan(point):
            continue
        if axis.kind == "continuous" and not isinstance(dimension, Continuous):
            value = axis.dimension.value(point)  # too many choices to be listed in a file
            point = dimension.point(int(value) if float(value).is_integer() else value)
        sample[dimension.label] = dimension.value(point)
    return space.canonical(sample)
