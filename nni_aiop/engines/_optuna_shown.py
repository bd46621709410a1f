"""What is left on a study for other programs to show: optuna-dashboard, Optuna's own figures.

Optuna 5 keeps a constraint under a name of its own, `constraints:NAME`. optuna-dashboard 0.21 shows
those of the older form only, a list without names, by which it tells which trials are feasible. A
sampler of this package therefore leaves the list, too, and marks it, so that a search is told each
constraint once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

__all__ = ["constraints_of", "keep", "kept", "name_metrics", "show_constraints"]

_LIST = "constraints"  # system attribute of a trial, as Optuna's
_MARK = "nni_aiop:shown"  # system attribute of a trial: how many of the list are there to be shown
_NAMES = "study:metric_names"  # system attribute of a study, as Optuna's


def constraints_of(trial: FrozenTrial) -> dict[str, float]:
    """The constraints of a trial by name, without those that are only there to be shown."""
    shown = trial.system_attrs.get(_MARK, 0)
    return {k: v for k, v in trial.constraints.items() if not (k.isdecimal() and int(k) < shown)}


def show_constraints(storage: BaseStorage, trial: FrozenTrial, broken: Mapping[str, float]) -> None:
    """Leave a list of constraints, broken above 0, unless the trial has one.

    Optuna names those of a list by their places: where a constraint is named by a number, none is
    left.
    """
    numbered = any(name.isdecimal() for name in broken)
    if broken and not numbered and _LIST not in trial.system_attrs:
        # The mark goes first: who reads in between sees neither.
        storage.set_trial_system_attr(trial._trial_id, _MARK, len(broken))
        storage.set_trial_system_attr(trial._trial_id, _LIST, list(broken.values()))


def name_metrics(study: Study, names: Sequence[str]) -> None:
    """Give the objectives of a study their names, unless it has names."""
    if study._storage.get_study_system_attrs(study._study_id).get(_NAMES) is None:
        study._storage.set_study_system_attr(study._study_id, _NAMES, list(names))


def keep(study: Study, values: Mapping[str, Any]) -> None:
    """Keep values with a study where nobody is shown them."""
    for name, value in values.items():
        study._storage.set_study_system_attr(study._study_id, name, value)


def kept(study: Study, name: str) -> Any:
    """What `keep` kept, or an older version as a user attribute; None where neither did."""
    found = study._storage.get_study_system_attrs(study._study_id).get(name)
    return study.user_attrs.get(name) if found is None else found
