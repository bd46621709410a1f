"""The work of `nni-aiop shrink`: proposals are edited, fine-tuned, told and kept, over any kill."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nni_aiop.cli._app import BadInput, sentence
from nni_aiop.cli._claims import STATE
from nni_aiop.cli._evaluators import check_result
from nni_aiop.cli._progress import Bar, Spinner, tell_done
from nni_aiop.cli._tell import note
from nni_aiop.engines._references import raised
from nni_aiop.engines._state import read_state, write_state
from nni_aiop.errors import AiopError, FileFormatError
from nni_aiop.measures import numbers
from nni_aiop.search import FlopsReduction
from nni_aiop.search._metrics import CONSTRAINT, as_number
from nni_aiop.spaces import MutationSpace, Sample

if TYPE_CHECKING:
    from nni_aiop.networks import Calibration, Network

__all__ = ["LATENCY", "NETWORKS", "ORIGINAL", "Shrinking", "export", "milliseconds"]

ORIGINAL = "original.safetensors"
"""The network that is shrunk, which a command that goes on takes up again."""

NETWORKS = "networks"
"""Folder of the fine-tuned networks that are best within a budget so far."""

LATENCY = "latency"
"""The measured latency of a network in parts of the original's."""

_KEEP_EVERY = 5.0  # seconds
_ROUNDS = 3  # of latency, the two networks in turn


class _Diverged(AiopError):
    """A fine-tune told no finite number."""


@dataclass
class Shrinking:
    """One search for smaller networks.

    Args:
        original: The network to shrink.
        space: Its edits.
        calibration: What measures edits; None without data.
        search: What proposes.
        fine_tune: The user's, from a network, changed in place, to a number or metrics.
        out: The folder of the results.
        seed: Of PyTorch's generator before each fine-tune.
        latency: The part of the original's latency to stay within; None for any.
    """

    original: Network
    space: MutationSpace
    calibration: Calibration | None
    search: FlopsReduction
    fine_tune: Callable[[Any], Any]
    out: Path
    seed: int
    latency: float | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    baseline: dict[str, float] | None = None

    def __post_init__(self) -> None:
        self._settled = self.search.state_dict()
        self._kept = time.monotonic()
        if self.calibration is not None:
            self.search.score = self._score

    # --- the state ---

    def load(self) -> None:
        """Takes up the state in the folder, if there is one.

        Raises:
            FileFormatError: It is damaged, or of another search.
        """
        path = self.out / STATE
        if not path.exists():
            return
        state = read_state(path)
        self.search.load_state_dict(state.get("search"))  # type: ignore[arg-type]
        try:
            if self.calibration is not None:
                self.calibration.load_state_dict(state["calibration"])
            known = state["baseline"]
            self.baseline = None if known is None else {k: float(v) for k, v in known.items()}
        except (AttributeError, LookupError, TypeError, ValueError) as err:
            raise FileFormatError(f"{path} must be the state of a search, but is not.") from err
        self._settled = self.search.state_dict()

    def keep(self) -> None:
        """Writes the state, after an event of the search."""
        self._settled = self.search.state_dict()
        self._write()

    def _write(self) -> None:
        """Writes the search as it last was between two proposals, and all that was measured."""
        measured = None if self.calibration is None else self.calibration.state_dict()
        state = {"search": self._settled, "calibration": measured, "baseline": self.baseline}
        write_state(self.out / STATE, state)
        self._kept = time.monotonic()

    def _score(self, sample: Sample) -> float:
        assert self.calibration is not None
        loss = self.calibration.loss(sample)
        if time.monotonic() - self._kept > _KEEP_EVERY:
            self._write()
        return loss

    # --- the work ---

    def run(self, budget: int, save: Callable[[], object]) -> None:
        """Fine-tunes until so many results are told, or nothing new is proposed.

        Raises:
            BadInput: The first fine-tune fails, or tells no metric that the search needs.
        """
        pending = deque(self.search.pending())
        tell_done(len(self.search.history), budget, "--fine-tunes")
        with Bar(budget, self.search, save, self.out) as bar:
            try:
                while len(self.search.history) < budget:
                    sample = pending.popleft() if pending else self._asked()
                    if sample is None:
                        break
                    self.keep()
                    self.search.tell(sample, self._told(sample))
                    self.keep()
                    self._tidy()
                    bar.step(len(self.search.history))
            finally:
                self._write()

    def measure_baseline(self) -> None:
        """Fine-tunes the network as it is, once, for the comparison."""
        if self.baseline is None:
            with Spinner("Fine-tuning the network as it is"):
                self.baseline = self._tuned(self.edited(self.space.original))
            self._write()

    def edited(self, sample: Sample) -> Network:
        """The network after the edits of a sample."""
        if self.calibration is not None:
            return self.calibration.edit(sample)
        return self.original.edit(self.space.edits(sample))

    def network(self, sample: Sample) -> Path:
        """The file of the fine-tuned network of a sample that was told."""
        keys = [self.space.key(told) for told, _ in self.search.history]
        return self._file(keys.index(self.space.key(sample)))

    def _file(self, number: int) -> Path:
        return self.out / NETWORKS / f"{number}.safetensors"

    def _asked(self) -> Sample | None:
        with Spinner("Choosing edits"):
            return next(iter(self.search.ask(1)), None)

    def _told(self, sample: Sample) -> dict[str, float] | None:
        """The metrics of a sample, whose network is kept; None where the fine-tune failed."""
        small = self.edited(sample)
        ratio = None if self.latency is None else self._ratio(small)
        try:
            metrics = self._tuned(small)
        except AiopError as err:
            # What never worked is a mistake to mend; the proposal stays and comes first then.
            if isinstance(err, BadInput) or not (self._worked or isinstance(err, _Diverged)):
                raise
            self.reasons[sentence(err)] += 1
            return None
        if ratio is not None:
            assert self.latency is not None
            metrics |= {LATENCY: ratio, f"{CONSTRAINT}{LATENCY}": ratio - self.latency}
        file = self._file(len(self.search.history))
        file.parent.mkdir(parents=True, exist_ok=True)
        small.save(file)
        return metrics

    @property
    def _worked(self) -> bool:
        return any(metrics is not None for _, metrics in self.search.history)

    def _tuned(self, network: Network) -> dict[str, float]:
        """The metrics that the user's function gives of a network, which it changes.

        Raises:
            BadInput: It lacks what the search needs.
            AiopError: It raises, or tells no finite number.
        """
        import torch

        name = getattr(self.fine_tune, "__qualname__", "the training")
        torch.manual_seed(self.seed)
        try:
            found = self.fine_tune(network)
        except (Exception, SystemExit) as err:
            raise AiopError(f"{name} must return, but raised {raised(err)}.") from err
        network.cpu().train(False)
        objective = self.search.objectives[0].metric
        metrics = numbers(found, objective)
        if not metrics:
            raise BadInput(
                f"{name} must return a number or a dict of numbers, but returned {found!r:.80}."
            )
        check_result(self.space, metrics, self.search.needed, name)
        taken = {*self.space.costs, LATENCY} & metrics.keys()
        if taken:
            raise BadInput(
                f"{name} must not tell what the command measures itself, but told "
                f"{', '.join(sorted(taken))}."
            )
        number = as_number(metrics[objective])
        if number is None or not abs(number) < float("inf"):
            raise _Diverged(f"{name} must tell a finite {objective}, but told {number}.")
        return {k: v for k, v in metrics.items() if abs(v) < float("inf")}

    def _tidy(self) -> None:
        """Forgets the networks that are best within no budget."""
        best = {self.network(sample) for sample, _ in self.search.front().values()}
        for file in (self.out / NETWORKS).glob("*.safetensors"):
            if file not in best:
                file.unlink(missing_ok=True)

    def _ratio(self, small: Network) -> float:
        before, after = milliseconds(self.original, small)
        return after / before

    def leave(self) -> None:
        """Removes what a search without a result has written beside its state."""
        (self.out / ORIGINAL).unlink(missing_ok=True)
        with suppress(OSError):
            (self.out / NETWORKS).rmdir()


def milliseconds(*networks: Network) -> list[float]:
    """The latency of networks of one image input on this machine, measured in turns.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        FileFormatError: A network has several inputs, or does not take images.
    """
    from nni_aiop.latency import measure_latency

    with tempfile.TemporaryDirectory() as folder:
        files = [network.to_onnx(Path(folder) / f"{i}.onnx") for i, network in enumerate(networks)]
        shape = tuple(networks[0].example[0].shape)
        turns = [
            [measure_latency(file, shape, warmup=3, runs=15).median for file in files]
            for _ in range(_ROUNDS)
        ]
    return [min(turn[i] for turn in turns) for i in range(len(networks))]


def export(network: Network, stem: Path) -> list[Path]:
    """The files of a network: its own, PyTorch's exported program, ONNX.

    A form that PyTorch cannot write is told of and left out.
    """
    written = [network.save(_named(stem, "safetensors"))]
    try:
        with tempfile.TemporaryDirectory() as folder:
            draft = network.to_pt2(Path(folder) / "network.pt2")
            beside = stem.with_name(f".{stem.name}.{os.getpid()}.pt2")
            shutil.copyfile(draft, beside)
            os.replace(beside, _named(stem, "pt2"))
        written.append(_named(stem, "pt2"))
    except (RuntimeError, ValueError, TypeError) as err:
        note(f"{_named(stem, 'pt2')} could not be written: {raised(err):.200}.", err=True)
    try:
        written.append(network.to_onnx(_named(stem, "onnx")))
    except (RuntimeError, ValueError, TypeError) as err:
        note(f"{_named(stem, 'onnx')} could not be written: {raised(err):.200}.", err=True)
    return written


def _named(stem: Path, kind: str) -> Path:
    return stem.with_name(f"{stem.name}.{kind}")
