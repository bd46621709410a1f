"""The dimensions of a space in plain JSON, so that its results can be read without it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.files import parse_json, plain
from nni_aiop.history import cell_texts
from nni_aiop.spaces import CodeSpace, Condition, Continuous, Dimension, Nominal, Ordinal, Subset

__all__ = ["Axis", "axes_of", "space_of"]

_LISTED = 10_000  # values that are written down one by one
_FEW = 20  # different numbers of a column of unknown kind, up to which they are its choices


@dataclass(frozen=True)
class Axis:
    """One dimension as a file describes it.

    Attributes:
        label: Its name.
        kind: `ordinal`, `nominal`, `subset` or `continuous`.
        values: Numbers of an ordinal dimension; what a cell shows of each other choice.
        plain: The same choices in JSON's own types.
        low: Of a continuous one.
        high: Of a continuous one.
        scale: How an ordinal one sits in [0, 1]; `log` or `linear` of a continuous one.
        chosen: How many of a subset's candidates are taken; None for any number.
        when: For each parent the points of it at which this one matters; empty where it always
            does.
    """

    label: str
    kind: str
    values: Sequence[Any] = ()
    plain: Sequence[Any] = ()
    low: float = 0.0
    high: float = 1.0
    scale: str = "rank"
    chosen: int | None = None
    when: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """The axis in plain JSON, which `read` takes."""
        out: dict[str, Any] = {"label": self.label, "kind": self.kind}
        if self.kind == "continuous":
            out |= {"low": self.low, "high": self.high}
        elif isinstance(self.values, range):
            ends = self.values
            out["range"] = [ends.start, ends.stop, ends.step]
        else:
            out["values"] = list(self.plain or self.values)
            if self.plain and list(self.plain) != list(self.values):
                out["texts"] = list(self.values)
        if self.kind in ("continuous", "ordinal"):
            out["scale"] = self.scale
        if self.kind == "subset":
            out["chosen"] = self.chosen
        if self.when:
            out["when"] = {parent: list(points) for parent, points in self.when.items()}
        return out

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Axis:
        """The axis of a `record`.

        Raises:
            LookupError, TypeError, ValueError: It is none.
        """
        kind = record["kind"]
        if kind not in ("ordinal", "nominal", "subset", "continuous"):
            raise ValueError(f"a kind of dimension must be known, but got {kind!r:.80}")
        given = list(record.get("values", ()))
        values: Sequence[Any] = record.get("texts", given)
        if "range" in record:
            values = range(*(int(number) for number in record["range"]))
        axis = cls(
            str(record["label"]),
            kind,
            values,
            given,
            float(record.get("low", 0.0)),
            float(record.get("high", 1.0)),
            str(record.get("scale", "rank")),
            record.get("chosen"),
            {parent: [float(p) for p in at] for parent, at in record.get("when", {}).items()},
        )
        axis.dimension  # noqa: B018 (which says what is wrong)
        return axis

    @classmethod
    def seen(cls, label: str, cells: Sequence[str]) -> Axis:
        """The axis of a column of which nothing is known but its cells, empty where inactive."""
        shown = list(dict.fromkeys(cell for cell in cells if cell))
        try:
            numbers = sorted({float(cell) for cell in shown})
        except ValueError:
            numbers = []
        if not numbers or not all(map(math.isfinite, numbers)):
            return cls(label, "nominal", shown or [""])
        if len(numbers) <= _FEW or all(number.is_integer() for number in numbers):
            values = [int(n) if n.is_integer() else n for n in numbers]
            return cls(label, "ordinal", values)
        return cls(label, "continuous", low=numbers[0], high=numbers[-1], scale="linear")

    @cached_property
    def dimension(self) -> Dimension:
        """A dimension of the same points."""
        if self.kind == "continuous":
            return Continuous(self.label, self.low, self.high, log=self.scale == "log")
        if self.kind == "ordinal":
            return Ordinal(self.label, self.values, scale=self.scale)  # type: ignore[arg-type]
        if self.kind == "nominal":
            return Nominal(self.label, self.values)
        return Subset(self.label, self.values, self.chosen)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {str(value): i for i, value in enumerate(self.values)}

    def points(self, cells: Sequence[str]) -> NDArray[np.float64]:
        """(n,) points of cells of a CSV; NaN where a cell is empty.

        Raises:
            FileFormatError: A cell shows no value of the dimension.
        """
        known = {"": math.nan}
        for cell in cells:
            if cell not in known:
                try:
                    known[cell] = float(self._point(cell))
                except (LookupError, OverflowError, TypeError, ValueError) as err:
                    raise FileFormatError(
                        f"{self.label!r} must be one of {self.dimension.describe():.200}, but got "
                        f"{cell!r:.80}."
                    ) from err
        return np.array([known[cell] for cell in cells], dtype=np.float64)

    def _point(self, cell: str) -> float:
        if self.kind == "continuous":
            return self.dimension.point(float(cell))
        if not isinstance(self.values, range) and cell in self._places:
            return self._places[cell]
        if self.kind == "subset":
            chosen = [self._places[json.dumps(value)] for value in parse_json(cell, "a cell")]
            return float(sum(1 << place for place in chosen))
        if self.kind == "nominal":
            raise KeyError(cell)
        number = float(cell)
        return self.dimension.point(int(number) if number.is_integer() else number)

    def text(self, point: float) -> str:
        """What is shown of a point."""
        value = self.dimension.value(point)
        if self.kind == "subset":
            return f"[{', '.join(map(str, self.value(point)))}]"
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    def value(self, point: float) -> Any:
        """The value of a point in JSON's own types."""
        if self.kind == "continuous" or not self.plain:
            return plain(self.dimension.value(point))
        if self.kind == "subset":
            return [v for i, v in enumerate(self.plain) if int(point) >> i & 1]
        return self.plain[int(point)]


def axes_of(space: CodeSpace) -> list[Axis]:
    """The dimensions of a space as files describe them."""
    return [_axis(space, dimension) for dimension in space.dimensions]


def _axis(space: CodeSpace, d: Dimension) -> Axis:
    when: dict[str, list[float]] = {}
    for condition in space.conditions.get(d.label, ()):
        parent = space.dimensions[space.labels.index(condition.parent)]
        when[condition.parent] = parent.points_of(condition.values)
    if isinstance(d, Continuous):
        scale = "log" if d.log else "linear"
        return Axis(d.label, "continuous", low=float(d.low), high=float(d.high), scale=scale,
                    when=when)  # fmt: skip
    if isinstance(d, Ordinal):
        values: Sequence[Any] = d.values
        if not isinstance(values, range):
            numbers = [plain(v) for v in values[:_LISTED]]
            if len(values) > _LISTED or not all(isinstance(v, (int, float)) for v in numbers):
                return Axis(d.label, "continuous", low=float(values[0]), high=float(values[-1]),
                            scale="linear", when=when)  # fmt: skip
            values = numbers
        return Axis(d.label, "ordinal", values, scale=d.scale, when=when)
    assert isinstance(d, (Nominal, Subset))
    texts = cell_texts(d)
    if isinstance(d, Subset):
        return Axis(d.label, "subset", texts, plain(d.values), chosen=d.n_chosen, when=when)
    return Axis(d.label, "nominal", texts, plain(d.values), when=when)


def space_of(axes: Sequence[Axis], name: str) -> CodeSpace:
    """A space of the same points, without costs and constraints.

    Raises:
        SpaceError: There are no axes, or they do not belong together.
    """
    dimensions = [axis.dimension for axis in axes]
    by_label = {d.label: d for d in dimensions}
    conditions = {}
    for axis in axes:
        for parent in axis.when:
            if parent not in by_label:
                raise SpaceError(f"a parent must be a dimension, but got {parent!r}.")
        conditions[axis.label] = [
            Condition(parent, tuple(by_label[parent].values_of(np.array(points))))
            for parent, points in axis.when.items()
        ]
    return CodeSpace(
        dimensions, name=name, conditions={label: c for label, c in conditions.items() if c}
    )
