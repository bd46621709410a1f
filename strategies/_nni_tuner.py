"""The searches as tuners of NNI's hyper-parameter experiments, which `nnictl create` runs.

NNI's manager gives a tuner ten seconds from its start to its first word, so nothing heavy (torch,
`nni.nas`) is imported before NNI tells the search space.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nni_aiop.engines._nni import importing_nni, numbers
from nni_aiop.engines._results import settled
from nni_aiop.engines._state import read_state, write_state
from nni_aiop.engines.nni_json import code_space_from_json, nest, unnest
from nni_aiop.errors import SpaceError, did_you_mean
from nni_aiop.spaces import CodeSpace, Sample
from nni_aiop.strategies._options import NCPOptions, check_light

if TYPE_CHECKING:
    from nni_aiop.search import NCPSearch, Search

with importing_nni():
    from nni import NoMoreTrialError
    from nni.tuner import Tuner

__all__ = ["NCPTuner", "SearchTuner"]

_logger = logging.getLogger(__name__)

_STATE = "nni_aiop.json"  # in NNI's checkpoint folder


class SearchTuner(Tuner):  # type: ignore[misc]
    """A tuner that hands out what a search asks for and tells it the results.

    The search space is NNI's JSON; see `code_space_from_json`. `nnictl resume` goes on from the
    state that is written into NNI's checkpoint folder after every event.

    Args:
        search: What makes the search from a CodeSpace.

    Attributes:
        search_: The search, once NNI has told the search space.
    """

    def __init__(self, search: Callable[[CodeSpace], Search]) -> None:
        super().__init__()
        self.search = search
        self.search_: Any = None
        self.space_: CodeSpace | None = None
        self._json: Mapping[str, Any] = {}
        self._resumes = False
        # Results and ends of trials come from two threads.
        self._lock = threading.RLock()
        self._samples: dict[int, Sample] = {}
        self._unsettled: dict[int, Sample] = {}
        self._ended = 0

    def update_search_space(self, search_space: Mapping[str, Any]) -> None:
        """Make the search; a changed space of a running experiment keeps the results that fit it.

        Raises:
            SpaceError: The search space is illegal.
            FileFormatError: A resumed experiment's state is of another search or space.
        """
        with self._lock:
            results = [] if self.search_ is None else self.search_.history
            self._json = search_space
            self.space_ = code_space_from_json(search_space)
            self.search_ = self.search(self.space_)
            if self._resumes and self._state is not None and self._state.exists():
                self.search_.load_state_dict(read_state(self._state))
                self._resumes = False
            for sample, metrics in results:
                self._tell(sample, metrics)

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """Parameters for the next trial.

        Raises:
            nni.NoMoreTrialError: The space is exhausted.
        """
        with self._lock:
            asked = self.search_.ask(1)
            if not asked:
                raise NoMoreTrialError("every architecture of the space has been tried")
            self._samples[parameter_id] = self._unsettled[parameter_id] = asked[0]
            self._save()
            return nest(asked[0], self._json)

    def receive_trial_result(
        self, parameter_id: int, parameters: Mapping[str, Any], value: Any, **kwargs: Any
    ) -> None:
        """Tell the search a final result: a number, or a dict with `default`."""
        with self._lock:
            self._settle(parameter_id, numbers(value) or None)

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """Count a trial that ended.

        NNI hands parameters to trials first-in-first-out, so it may name another trial's parameters
        here: which ones failed is known when no trial is under way.
        """
        with self._lock:
            self._ended += parameter_id in self._samples
            if self._ended == len(self._samples):
                for key in list(self._unsettled):
                    self._settle(key, None)

    def import_data(self, data: Sequence[Mapping[str, Any]]) -> None:
        """Tell the search results of an earlier experiment, or of this one when it is resumed."""
        with self._lock:
            for record in data:
                self._tell(unnest(record["parameter"]), numbers(record["value"]) or None)
            self._save()

    def load_checkpoint(self) -> None:
        """NNI resumes the experiment; its search space, which the state needs, comes later."""
        self._resumes = True

    def save_checkpoint(self) -> None:
        """Nothing to do: the state is written after every event."""

    def _settle(self, key: int, metrics: dict[str, float] | None) -> None:
        self._unsettled.pop(key, None)
        self._tell(self._samples[key], metrics)
        self._save()

    def _tell(self, sample: Sample, metrics: dict[str, float] | None) -> None:
        try:
            self.search_.tell(sample, settled(metrics))
        except SpaceError as err:
            _logger.warning("a result of another search space is left out: %s", err)

    @property
    def _state(self) -> Path | None:
        folder = self.get_checkpoint_path()
        return None if folder is None else Path(folder, _STATE)

    def _save(self) -> None:
        if self._state is not None:
            write_state(self._state, self.search_.state_dict())


class NCPTuner(SearchTuner):
    """NNI's tuner of network coding propagation (Ding et al. 2022), in rounds.

    Its arguments are the `classArgs` of an experiment file.

    Args:
        optimize_mode: Whether more of `default` is better, or less.
        warmup: Share of the budget that is random, where it is not to be that of `NCPSearch`.
        objectives: From metrics of the final result to "maximize" or "minimize", instead of
            `optimize_mode`.
        options: Further arguments of `NCPSearch`, `budget` and `seed` above all; see `NCPOptions`.

    Raises:
        TypeError, ValueError: An argument is unknown or illegal; one that depends on the search
            space is told when NNI tells that.
    """

    def __init__(
        self,
        optimize_mode: Literal["maximize", "minimize"] = "maximize",
        *,
        warmup: float | None = None,
        objectives: Mapping[str, Literal["maximize", "minimize"]] | None = None,
        **options: Any,
    ) -> None:
        check_light(options, NCPOptions, "NCPTuner", also=("seed", "pareto"))
        wanted = objectives or {"default": optimize_mode}
        if not isinstance(wanted, Mapping):
            raise TypeError(
                f"objectives must be directions by the names of metrics, but got {wanted!r:.80}."
            )
        for name, direction in wanted.items():
            if direction not in ("maximize", "minimize"):
                raise ValueError(
                    f"a direction must be maximize or minimize, but {name} has "
                    f"{direction!r}{did_you_mean(direction, ('maximize', 'minimize'))}."
                )
        if warmup is not None and not (isinstance(warmup, float) and 0 < warmup < 1):
            raise ValueError(f"warmup must be a share in (0, 1), but got {warmup!r}.")
        super().__init__(partial(_ncp, objectives=dict(wanted), warmup=warmup, **options))


def _ncp(
    space: CodeSpace,
    *,
    objectives: Mapping[str, Literal["maximize", "minimize"]],
    warmup: float | None,
    **options: Any,
) -> NCPSearch:
    from nni_aiop.search import NCPSearch, Objective, RandomWarmup

    named = tuple(Objective(name, direction) for name, direction in objectives.items())
    if warmup is not None:
        options["warmup"] = RandomWarmup(warmup)
    return NCPSearch(space, objectives=named, **options)
