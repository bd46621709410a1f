"""The edits of a trained network as an NNI model space, and an evaluator that fine-tunes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import nn
from torch.nn import functional

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines._references import load_object
from nni_aiop.errors import AiopError
from nni_aiop.measures import numbers
from nni_aiop.networks import Calibration, Network
from nni_aiop.search_spaces._nni_spaces import ConditionalSpace
from nni_aiop.spaces import MutationSpace

with importing_nni():
    import nni
    from nni.nas.evaluator import Evaluator

__all__ = ["FineTuneEvaluator", "NetworkSpace"]


class NetworkSpace(ConditionalSpace[Network]):
    """The edits of a trained network for NNI; the model of a sample is the edited network.

    Everything is named by references, because NNI makes a space anew for each model; in one process
    the network is loaded once.

    Args:
        make: Reference `module:function` to what gives the trained torch module, the same one
            whenever it is called. The module is imported: name only modules that you trust.
        shape: Of the input, such as (1, 3, 224, 224), the batch first.
        batches: Reference to what gives calibration batches, a list of (inputs, targets); without
            them the largest weights choose the channels.
        loss: Reference to a loss of outputs and targets; cross entropy by default.
        keep: Names of layers to leave as they are.
        round_to: Widths are multiples of so many channels.

    Raises:
        AiopError: A reference leads nowhere.
        GraphError: The network cannot be captured.
        SpaceError: Nothing of it can be edited.

    Example:
        >>> space = NetworkSpace("net:make", (1, 3, 224, 224), batches="net:batches")
        ... # doctest: +SKIP
    """

    def __init__(
        self,
        make: str,
        shape: Sequence[int],
        *,
        batches: str | None = None,
        loss: str | None = None,
        keep: Sequence[str] = (),
        round_to: int | None = None,
    ) -> None:
        super().__init__()
        self._given = (make, tuple(shape), batches, loss, tuple(keep), round_to)
        self.fill(self.code_space().original)

    def code_space(self) -> MutationSpace:
        """The same space, free of NNI, with exact costs."""
        return _loaded(*self._given)[1]

    @property
    def calibration(self) -> Calibration | None:
        """What measures edits before they are fine-tuned; None without batches."""
        return _loaded(*self._given)[2]

    def network(self, sample: Mapping[str, Any]) -> Network:
        """The network after the edits of a valid sample."""
        network, space, calibration = _loaded(*self._given)
        own = space.complete({k: v for k, v in sample.items() if k in space.labels})
        if calibration is not None:
            return calibration.edit(own)
        return network.edit(space.edits(own))


@lru_cache(maxsize=4)
def _loaded(
    make: str,
    shape: tuple[int, ...],
    batches: str | None,
    loss: str | None,
    keep: tuple[str, ...],
    round_to: int | None,
) -> tuple[Network, MutationSpace, Calibration | None]:
    module = load_object(make)()
    if not isinstance(module, nn.Module):
        raise AiopError(f"{make!r} must give a torch module, but gave {type(module).__name__}.")
    network = Network.capture(module, shape)
    if batches is None:
        sites = network.sites(keep=keep, round_to=round_to)
        return network, MutationSpace(network.graph, sites=sites), None
    calibration = Calibration(
        network,
        load_object(batches)(),
        functional.cross_entropy if loss is None else load_object(loss),
        keep=keep,
        round_to=round_to,
    )
    return network, calibration.space, calibration


@nni.trace
class FineTuneEvaluator(Evaluator):  # type: ignore[misc]
    """Fine-tunes each network and reports what that reached.

    Args:
        fine_tune: Reference `module:function`; it is called with the network, which it trains in
            place, and `arguments`, and returns a number or a dict of metrics. The module is
            imported: name only modules that you trust.
        arguments: Scalars and texts for the function.

    Raises:
        AiopError: The reference leads nowhere, or the result has no number.
    """

    def __init__(self, fine_tune: str, **arguments: Any) -> None:
        self.fine_tune = fine_tune
        self.arguments = arguments

    def prepare(self, model: Any) -> None:
        """Get ready: a wrong reference is known before the first trial."""
        load_object(self.fine_tune)

    def evaluate(self, model: Any) -> Any:
        """The metrics of a network, which is fine-tuned in place."""
        metrics = numbers(load_object(self.fine_tune)(model, **self.arguments))
        if not metrics:
            raise AiopError(f"{self.fine_tune} must return a number or a dict of numbers.")
        return metrics

    def _execute(self, model: Any) -> dict[str, float]:
        metrics: dict[str, float] = self.evaluate(model.executable_model())
        nni.report_final_result(metrics)
        return metrics

    def extra_repr(self) -> str:
        return f"fine_tune={self.fine_tune!r}"
