"""The predictors of a search: each fit goes on from the last, and none is made twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nni_aiop.predictors import CodePredictor

__all__ = ["Fits"]

Array = NDArray[np.float64]
Start = dict[str, list[float]]

_AFRESH = 200  # rows up to which a fit begins anew: it takes little time, and finds more
_DIGITS = 4  # of a hyperparameter that the next fit starts from: a state should be small


@dataclass(frozen=True)
class _Fit:
    """What is known of the last fit of one role.

    Attributes:
        told: How many results had been told.
        before: What it started from.
        after: What the next one starts from.
        predictor: None where the search was resumed since.
    """

    told: int
    before: Start
    after: Start
    predictor: CodePredictor | None = None


class Fits:
    """By role (what is learned), the last fit.

    A fit depends on nothing but the table, what it starts from and the predictor's options, so that
    a search that is resumed comes to the same one.
    """

    def __init__(self) -> None:
        self._last: dict[str, _Fit] = {}

    def known(self, role: str, told: int) -> CodePredictor | None:
        """The fit of a role, where nothing was told since it was made."""
        last = self._last.get(role)
        return last.predictor if last is not None and last.told == told else None

    def fitted(
        self,
        predictor: CodePredictor,
        role: str,
        told: int,
        codes: Array,
        targets: Mapping[str, Array],
    ) -> CodePredictor:
        """The predictor, fitted on targets (n,) by name; it is not kept.

        Where rows are few, the hyperparameters of the last round would hold it where that was: on
        ImageNet16-120 of NAS-Bench-201 the mean regret after 100 results was four times as large.
        """
        start = {name: s for name, s in self._start(role, told).items() if name in targets}
        if len(codes) <= _AFRESH:
            start = {}
        # A predictor of the user's may know nothing of starts.
        options: dict[str, Any] = {"start": start} if start else {}
        return predictor.fit(codes, targets, **options)

    def begin(self, role: str, told: int, predictor: CodePredictor) -> None:
        """Take a predictor of the same as what the role's next fit starts from."""
        start = _rounded(predictor)
        self._last[role] = _Fit(told, start, start)

    def keep(self, predictor: CodePredictor, role: str, told: int) -> CodePredictor:
        """The predictor, which is the role's from now on."""
        self._last[role] = _Fit(told, self._start(role, told), _rounded(predictor), predictor)
        return predictor

    def learned(
        self,
        role: str,
        told: int,
        make: Callable[[], CodePredictor],
        table: Callable[[], tuple[Array, Mapping[str, Array]]],
    ) -> CodePredictor:
        """The role's predictor of a table of codes and targets, fitted where it is not known."""
        known = self.known(role, told)
        if known is not None:
            return known
        return self.keep(self.fitted(make(), role, told, *table()), role, told)

    def _start(self, role: str, told: int) -> Start:
        last = self._last.get(role)
        if last is None:
            return {}
        return last.before if last.told == told else last.after

    def state(self) -> dict[str, Any]:
        """All but the predictors, as plain JSON."""
        return {role: [fit.told, fit.before, fit.after] for role, fit in self._last.items()}

    @classmethod
    def of(cls, state: Any) -> Fits:
        """What `state` was taken of.

        Raises:
            ValueError: It is none of a search's.
        """
        out = cls()
        for role, (told, before, after) in dict(state).items():
            if not (type(told) is int and told >= 0):
                raise ValueError(f"fits must be told a number of results, but got {told!r:.80}")
            out._last[str(role)] = _Fit(told, _read(before), _read(after))
        return out


def _rounded(predictor: CodePredictor) -> Start:
    if getattr(predictor, "n_rows_", 0) < _AFRESH // 2:  # the next fit begins anew
        return {}
    found = getattr(predictor, "hyperparameters", {})
    return {name: np.round(values, _DIGITS).tolist() for name, values in found.items()}


def _read(start: Any) -> Start:
    found = {str(name): [float(value) for value in values] for name, values in start.items()}
    if not all(np.isfinite(values).all() for values in found.values()):
        raise ValueError("hyperparameters must be finite numbers")
    return found
