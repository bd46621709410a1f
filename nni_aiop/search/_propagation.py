"""Network coding propagation (NCP): edit an architecture code by back-propagating through frozen
predictors.

Source: Ding et al., "Learning Versatile Neural Architectures by Propagating Network Codes", ICLR
2022.

Notation: e is a code, p a standardised prediction (minus the mean of the predictor's training
targets, divided by their standard deviation, and negated where less is better), t its target,
lambda the weight of the cost.

    L = smoothL1(p_acc, t_acc) + lambda * smoothL1(p_cost, t_cost)              (Eq. 3)
    t_acc = p_acc + 1,  t_cost = p_cost - 1,  set anew at each step
    e <- e - lr * dL/de                                                         (continuous
    propagation)

Gradients are taken in the standardised code (each column divided by its standard deviation under
uniform sampling), as the published implementation does; a task's gradients are added up with its
weight (Eq. 7).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nni_aiop.errors import InfeasibleError, SpaceError
from nni_aiop.search._distinct import distinct
from nni_aiop.search._propagation_loss import (
    Array,
    Cost,
    Task,
    propagation_loss,
    relative_cost_increase,
)
from nni_aiop.spaces import (
    CodeSpace,
    CostBook,
    Ordinal,
    Sample,
    SampleCost,
    check_cost,
    check_limits,
    repair,
)

_CHUNK = 16_384


def winner_takes_all(space: CodeSpace, points: Array, gradients: Array, increase: Array) -> Array:
    """(n, d) points after one edit of the winning dimension (Eqs. 5 and 6), never outside the
    domain.

    Args:
        space: The space.
        points: (n, d).
        gradients: (n, d) of the loss in each dimension.
        increase: (n, d) Delta r of Eq. 4; NaN where a dimension cannot be edited.
    """
    steps = np.array([d.step if isinstance(d, Ordinal) else 0 for d in space.dimensions])
    tops = np.array([len(d.values) - 1 if isinstance(d, Ordinal) else 0 for d in space.dimensions])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = gradients / increase
    ratio = np.where(np.isfinite(ratio), ratio, np.nan)
    may_fall = np.where(points - steps >= 0, ratio, np.nan)
    may_rise = np.where(points + steps <= tops, ratio, np.nan)
    out = points.copy()
    for i in range(len(points)):
        if np.nanmax(may_fall[i], initial=-math.inf) > 0:
            winner = int(np.nanargmax(may_fall[i]))
            out[i, winner] -= steps[winner]
        elif np.nanmin(may_rise[i], initial=math.inf) < 0:
            winner = int(np.nanargmin(may_rise[i]))
            out[i, winner] += steps[winner]
    return out


@dataclass(frozen=True)
class Propagation:
    """Everything that propagation visited: T steps from n starts.

    Attributes:
        space: The space.
        tasks: What was improved.
        codes: (T + 1, n, width) codes, the starts first; continuous unless rounded on the way.
        points: (T + 1, n, d) the architectures that they round to.
        predicted: For each task the (T + 1, n) prediction of those architectures, in its own units.
        costs: For each of the space's costs its (T + 1, n) values at those architectures: exact, or
            of a `SampleCost` that is limited or lowered what is learned wherever it was not
            evaluated. Other `SampleCost`s are left out.
        merit: (T + 1, n) weighted sum of standardised predictions minus lambda times the
            standardised cost, the
            quantity that Eq. 3 climbs.
        limits: Hard upper limits on costs.
        book: What is known of the costs; what is returned is within the limits exactly.
    """

    space: CodeSpace
    tasks: tuple[Task, ...]
    codes: Array
    points: Array
    predicted: dict[str, Array]
    costs: dict[str, Array]
    merit: Array
    limits: dict[str, float] = field(default_factory=dict)
    book: CostBook | None = None

    @cached_property
    def feasible(self) -> NDArray[np.bool_]:
        """(T + 1, n) whether an architecture meets the limits, by `costs`."""
        ok = np.ones(self.merit.shape, dtype=np.bool_)
        for name, limit in self.limits.items():
            ok &= self.costs[name] <= limit
        return ok

    @cached_property
    def visited(self) -> tuple[Array, Array]:
        """Distinct points (u, d) within the limits and their merits (u,), the best first."""
        ok = self.feasible.ravel()
        points = self.points.reshape(-1, self.points.shape[-1])[ok]
        merit = self.merit.ravel()[ok]
        first, _ = distinct(points)
        order = first[np.argsort(-merit[first], kind="stable")]
        return points[order], merit[order]

    def best(self, n: int = 1) -> list[Sample]:
        """Up to `n` distinct valid architectures within the limits, the highest merit first.

        Where no visited architecture meets the limits, the best visited one is repaired.

        Raises:
            InfeasibleError: Neither it nor anything cheaper beside it meets the limits.
        """
        points, _ = self.visited
        if len(points) == 0:
            flat = self.points.reshape(-1, self.points.shape[-1])
            points = flat[self.merit.ravel().argmax()][None]
        out: list[Sample] = []
        seen: set[str] = set()
        problem: InfeasibleError | None = None
        for row in points:
            try:
                sample = self.space.decode(self.space.encode_points(row[None]))[0]
                sample = repair(self.space, [sample], self.limits, book=self.book)[0]
            except InfeasibleError as err:
                problem = err
                continue
            key = self.space.key(sample)
            if key not in seen:
                seen.add(key)
                out.append(sample)
            if len(out) == n:
                break
        if problem is not None and not out:
            raise problem
        return out

    def final(self) -> list[Sample]:
        """The architecture where each start ended, brought within the limits if it is not."""
        last = self.space.decode(self.space.encode_points(self.points[-1]))
        return repair(self.space, last, self.limits, book=self.book)


def propagate(
    space: CodeSpace,
    tasks: Sequence[Task] | Task,
    starts: Sequence[Mapping[str, object]] | ArrayLike | None = None,
    *,
    cost: str | None = None,
    lam: float = 0.5,
    strategy: Literal["continuous", "winner-takes-all"] = "continuous",
    steps: int = 70,
    lr: float = 3.0,
    optimiser: Literal["sgd", "adam"] = "sgd",
    rounding: Literal["end", "straight-through"] | int = "end",
    targets: Mapping[str, float] | None = None,
    limits: Mapping[str, float] | None = None,
    book: CostBook | None = None,
) -> Propagation:
    """Edit codes towards better predicted metrics and lower cost (Ding et al. 2022, section 3.1,
    Algorithm 1).

    The defaults are the paper's: continuous propagation from the middle of the space, lambda 0.5,
    learning rate 3,
    70 steps, rounding at the end. One-hot spaces want `rounding="straight-through"` (the loss is
    taken at the
    rounded code, its gradient moves the continuous one) or, as appendix C, a number of steps after
    which the code
    is set to the rounded one. Codes never leave the space. While a start's rounded architecture
    exceeds a limit,
    its step lowers that cost and nothing else.

    Args:
        space: The space.
        tasks: What to improve; several are joint search (Eq. 7).
        starts: Samples or codes (n, width), a found architecture for a transfer (section 4.4); the
            middle of the
            space by default.
        cost: The cost of Eq. 3: an exact one of the space or a metric of the first task's
            predictor; None for none.
        lam: Lambda of Eq. 3.
        strategy: All dimensions at once, or the one with the best ratio of gradient to cost (Eqs. 4
            to 6).
        steps: Number of iterations T.
        lr: Step in the standardised code; unused by winner-takes-all.
        optimiser: Plain gradient steps as published, or Adam.
        rounding: When codes are rounded.
        targets: Fixed targets by name of a task or cost, in its own units; a start that has reached
            all of them
            rests. By default the targets are set anew at each step.
        limits: Hard upper limits on exact costs; what is returned never exceeds them.
        book: What is known of the space's costs already; of a `SampleCost` a differentiable
            stand-in is learned from it.

    Raises:
        ValueError: An option is not one of its choices.
        SpaceError: A start is not of the space, a cost is unknown, or winner-takes-all has no cost
            or no ordered
            dimension to edit.
    """
    tasks = (tasks,) if isinstance(tasks, Task) else tuple(tasks)
    if not tasks:
        raise SpaceError("propagation must have at least one task, but got none.")
    if len({t.name for t in tasks}) != len(tasks):
        raise SpaceError(f"tasks must have different names, but got {[t.name for t in tasks]}.")
    limits = check_limits(space, limits or {})
    if cost in space.costs:
        check_cost(space, cost)
    book = book or CostBook(space)
    spent = None if cost is None else Cost.of(space, cost, tasks, book)
    unknown = set(targets or {}) - {t.name for t in tasks} - ({cost} if cost else set())
    if unknown:
        raise SpaceError(f"targets must name tasks or the cost, but got {sorted(unknown)}.")
    _check_options(strategy, optimiser, rounding, steps)
    # Codes are kept in double precision, in which continuous values keep their keys; predictors and
    # gradients do with single.
    codes = torch.as_tensor(_starting_codes(space, starts), dtype=torch.float64)
    if strategy == "winner-takes-all":
        if spent is None or not any(isinstance(d, Ordinal) for d in space.dimensions):
            raise SpaceError("winner-takes-all must have a cost and ordered dimensions (Eq. 4).")
        codes = torch.as_tensor(space.snap(codes.numpy()))

    guards = {name: Cost.of(space, name, tasks, book) for name in limits}
    std = torch.as_tensor(space.code_std)
    moment = torch.zeros_like(codes), torch.zeros_like(codes)
    visited = [codes.numpy()]
    at_rounded: list[dict[str, Tensor]] = []
    for step in range(1, steps + 1):
        rounded = torch.as_tensor(space.snap(codes.numpy()))
        here = rounded if rounding == "straight-through" else codes
        leaf = here.float().requires_grad_()
        loss, predicted = propagation_loss(tasks, leaf, cost=spent, lam=lam, targets=targets)
        loss = _hold_limits(loss, leaf, rounded, guards, limits)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        if rounding == "straight-through":
            at_rounded.append({k: v.detach() for k, v in predicted.items()})
        gradient = gradient.double() * std  # of the standardised code
        resting = _reached(tasks, spent, predicted, targets)
        if strategy == "winner-takes-all":
            assert spent is not None
            new = _winner_step(space, spent, codes, gradient)
        else:
            direction = gradient if optimiser == "sgd" else _adam(moment, gradient, step)
            new = (codes - lr * std * direction).clamp(0.0, 1.0)
        codes = torch.where(resting[:, None], codes, new)
        if isinstance(rounding, int) and step % rounding == 0:
            codes = torch.as_tensor(space.snap(codes.numpy()))
        visited.append(codes.numpy())
    return _collect(space, tasks, np.stack(visited), at_rounded, spent, lam, limits, book)


def _check_options(strategy: str, optimiser: str, rounding: str | int, steps: int) -> None:
    for name, value, choices in (
        ("strategy", strategy, ("continuous", "winner-takes-all")),
        ("optimiser", optimiser, ("sgd", "adam")),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {choices}, but got {value!r}.")
    if rounding not in ("end", "straight-through") and not (
        isinstance(rounding, int) and rounding > 0
    ):
        raise ValueError(
            f"rounding must be end, straight-through or a number of steps, but got {rounding!r}."
        )
    if steps < 0:
        raise ValueError(f"steps must not be negative, but got {steps}.")


def _starting_codes(
    space: CodeSpace, starts: Sequence[Mapping[str, object]] | ArrayLike | None
) -> Array:
    if starts is None:
        return space.encode([space.complete({})])
    if isinstance(starts, Sequence) and starts and isinstance(starts[0], Mapping):
        canonical = [space.complete(space.canonical(s)) for s in starts]  # type: ignore[arg-type]
        return space.encode(canonical)
    codes = np.asarray(starts, dtype=np.float64)
    space.decode_points(codes)  # refuses a wrong shape and NaN
    return np.clip(codes, 0.0, 1.0)


def _hold_limits(
    loss: Tensor,
    leaf: Tensor,
    rounded: Tensor,
    guards: Mapping[str, Cost],
    limits: Mapping[str, float],
) -> Tensor:
    """The loss, replaced by the standardised cost where the rounded architecture exceeds that
    cost's limit."""
    for name, guard in guards.items():
        value = guard.function(leaf)
        with torch.no_grad():
            over = guard.function(rounded) > limits[name]
        loss = torch.where(over, guard.standardise(value), loss)
    return loss


def _adam(moment: tuple[Tensor, Tensor], gradient: Tensor, step: int) -> Tensor:
    """The Adam direction of each start by itself; `moment` is updated in place."""
    first, second = moment
    first.mul_(0.9).add_(gradient, alpha=0.1)
    second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    return (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)


def _reached(
    tasks: Sequence[Task],
    cost: Cost | None,
    predicted: Mapping[str, Tensor],
    targets: Mapping[str, float] | None,
) -> Tensor:
    """(n,) whether every fixed target is reached."""
    n = len(next(iter(predicted.values())))
    if not targets:
        return torch.zeros(n, dtype=torch.bool)
    done = torch.ones(n, dtype=torch.bool)
    for task in tasks:
        if task.name in targets:
            done &= task.sign * (predicted[task.name].detach() - targets[task.name]) >= 0
    if cost is not None and cost.name in targets:
        done &= predicted[cost.name].detach() <= targets[cost.name]
    return done


def _winner_step(space: CodeSpace, cost: Cost, codes: Tensor, gradient: Tensor) -> Tensor:
    points = space.decode_points(codes.numpy())
    by_dimension = np.zeros(points.shape)
    for j, label in enumerate(space.labels):
        columns = gradient[:, space.columns[label]].numpy()
        if columns.shape[1] == 1:
            by_dimension[:, j] = columns[:, 0]
    increase = relative_cost_increase(space, cost, points)
    edited = winner_takes_all(space, points, by_dimension, increase)
    return torch.as_tensor(space.encode_points(edited))


def _collect(
    space: CodeSpace,
    tasks: tuple[Task, ...],
    codes: Array,
    at_rounded: list[dict[str, Tensor]],
    cost: Cost | None,
    lam: float,
    limits: dict[str, float],
    book: CostBook,
) -> Propagation:
    """Predictions and costs of every architecture on the way."""
    shape = codes.shape[:2]
    points = space.normalise(space.decode_points(codes.reshape(-1, space.width)))
    first, inverse = distinct(points)
    unique = points[first]
    unique_codes = space.encode_points(unique)
    costs = {}
    for name, given in space.costs.items():
        if not isinstance(given, SampleCost):
            costs[name] = space.cost(name, unique_codes)[inverse].reshape(shape)
        elif name in limits or (cost is not None and cost.name == name):
            costs[name] = book.estimate(name, unique)[inverse].reshape(shape)
    names = [t.name for t in tasks] + ([cost.name] if cost and cost.name not in costs else [])
    predicted: dict[str, Array] = {}
    known = len(at_rounded)
    rest = np.unique(inverse.reshape(shape)[known:]) if known else np.arange(len(unique))
    values = {name: np.empty(len(unique)) for name in names}
    for start in range(0, len(rest), _CHUNK):
        chunk = rest[start : start + _CHUNK]
        with torch.no_grad():
            batch = torch.as_tensor(unique_codes[chunk], dtype=torch.float32)
            _, found = propagation_loss(tasks, batch, cost=cost, lam=lam)
        for name in names:
            values[name][chunk] = found[name].numpy()
    for name in names:
        predicted[name] = values[name][inverse].reshape(shape)
        for step, found in enumerate(at_rounded):
            predicted[name][step] = found[name].numpy()
    merit = np.zeros(shape)
    for task in tasks:
        merit += task.weight * task.standardise(torch.as_tensor(predicted[task.name])).numpy()
        if cost is not None:
            spent = costs.get(cost.name, predicted.get(cost.name))
            merit -= task.weight * lam * cost.standardise(torch.as_tensor(spent)).numpy()
    wide = points.reshape(*shape, -1)
    return Propagation(space, tasks, codes, wide, predicted, costs, merit, limits, book)
