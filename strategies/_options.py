"""The arguments of searches that their front ends pass on; what is left out has its default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from nni_aiop.errors import refuse_unknown

if TYPE_CHECKING:
    from nni_aiop.predictors import CodePredictor
    from nni_aiop.search import RandomWarmup
    from nni_aiop.spaces import CodeSpace

__all__ = ["NCPOptions", "PNAGOptions", "check_light"]


class NCPOptions(TypedDict, total=False):
    """Arguments of `NCPSearch` beside the space, the objectives, the seed and `pareto`.

    Args:
        budget: Number of evaluations that warm-up and rounds are planned for; a longer search goes
            on in rounds of the same size.
        warmup: Random architectures before the first fit.
        rounds: Number of fits within the budget.
        cost: A cost to hold down: an exact one of the space, or else a metric that is reported.
        lam: Weight of the standardised cost (lambda of Eq. 3).
        limits: Hard upper limits on the space's exact costs: no architecture above one is ever
            evaluated.
        exploration: How many predicted standard deviations a candidate's merit gains.
        predictor: From a space and a seed to an unfitted predictor.
        repeat_networks: Whether samples of one network, as the space's `key` tells, are all
            evaluated.
        starts: Number of starts of each round.
        steps: Iterations of propagation.
        lr: Learning rate in the standardised code.
    """

    budget: int
    warmup: RandomWarmup
    rounds: int
    cost: str | None
    lam: float
    limits: Mapping[str, float] | None
    exploration: float
    predictor: Callable[[CodeSpace, int], CodePredictor] | None
    repeat_networks: bool
    starts: int
    steps: int
    lr: float


class PNAGOptions(TypedDict, total=False):
    """Arguments of `PNAGSearch` beside the space, the objectives and the seed.

    Args:
        budget: Number of evaluations that warm-up and rounds are planned for; a longer search goes
            on in rounds of the same size.
        warmup: Random architectures before the first fit.
        rounds: Number of fits within the budget.
        cost: The cost that has budgets: an exact one of the space, or else a metric that is
            reported.
        targets: The budget to search for, from costs to upper bounds, or several budgets, from
            costs to as many bounds each.
        limits: Hard upper limits on the space's exact costs: no architecture above one is ever
            evaluated.
        exploration: How many predicted standard deviations a candidate's merit gains.
        predictor: From a space and a seed to an unfitted predictor.
        repeat_networks: Whether samples of one network, as the space's `key` tells, are all
            evaluated.
        levels: Number of budgets of the generator.
        pool: Architectures that the predictor labels in each round.
        drawn: Architectures that are generated in each round.
        evaluator_steps: Updates of the evaluator.
        generator_steps: Updates of the generator.
    """

    budget: int
    warmup: RandomWarmup
    rounds: int
    cost: str | None
    targets: Mapping[str, float | Sequence[float]] | None
    limits: Mapping[str, float] | None
    exploration: float
    predictor: Callable[[CodeSpace, int], CodePredictor] | None
    repeat_networks: bool
    levels: int
    pool: int
    drawn: int
    evaluator_steps: int
    generator_steps: int


def check_light(
    options: Mapping[str, Any], known: type[Any], owner: str, *, also: Sequence[str] = ()
) -> None:
    """Refuses options by name and kind, where the search may not be imported yet.

    Args:
        options: The options.
        known: A TypedDict of them: what is an `int` there is at least 1, a `float` a number.
        owner: Whose options they are.
        also: Further names.

    Raises:
        TypeError: An option is unknown or no number.
        ValueError: A number is outside its range.
    """
    kinds = {
        name: getattr(kind, "__forward_arg__", "") for name, kind in known.__annotations__.items()
    }
    refuse_unknown(owner, options, (*kinds, *also))
    for name, value in options.items():
        kind = kinds.get(name)
        if kind in ("int", "float") and (
            not isinstance(value, (int, float)) or isinstance(value, bool)
        ):
            raise TypeError(f"{name} must be a number, but got {value!r:.80}.")
        if kind == "int" and not value >= 1:
            raise ValueError(f"{name} must be at least 1, but got {value}.")
