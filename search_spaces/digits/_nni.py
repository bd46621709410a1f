"""The digits space and its training for NNI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.engines._nni import importing_nni
from nni_aiop.search_spaces.digits._costs import dimensions
from nni_aiop.search_spaces.digits._network import DigitsNetwork, build
from nni_aiop.search_spaces.digits._space import code_space
from nni_aiop.search_spaces.digits._supernet import supernet
from nni_aiop.search_spaces.digits._training import EPOCHS, train_and_evaluate
from nni_aiop.spaces import CodeSpace
from nni_aiop.supernet import Supernet

with importing_nni():
    import nni
    from nni.mutable import Categorical, SampleValidationError
    from nni.nas.evaluator import Evaluator
    from nni.nas.nn.pytorch import ModelSpace

__all__ = ["DigitsEvaluator", "DigitsSpace"]


def _own(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a sample that is the network's: an evaluator may have labels of its own."""
    labels = code_space().labels
    return {label: value for label, value in sample.items() if label in labels}


class DigitsSpace(ModelSpace):  # type: ignore[misc]
    """The digits space as an NNI model space: the labels of `code_space()`, in the same order.

    A sample needs its active labels only: those of a block that the depth does not reach may be
    missing.
    """

    def __init__(self) -> None:
        super().__init__()
        for dimension in dimensions():
            self.add_mutable(Categorical(list(dimension.values), label=dimension.label))

    def code_space(self) -> CodeSpace:
        """The space with its kinds of dimension, conditions, costs and features."""
        return code_space()

    def supernet(self, **options: Any) -> Supernet:
        """The shared weights of all networks; see `digits.supernet`."""
        return supernet(**options)

    def check_contains(self, sample: Mapping[str, Any]) -> SampleValidationError | None:
        """What is wrong with an active label of `sample`, or None."""
        conditions = code_space().conditions
        for mutable in self.mutables:
            # A parent stands before its children, so its own value has been checked by then.
            rules = conditions.get(mutable.label, ())
            if all(sample[rule.parent] in rule.values for rule in rules):
                error = mutable.check_contains(sample)
                if error is not None:
                    return error
        return None

    @classmethod
    def create_fixed_module(cls, sample: Mapping[str, Any]) -> DigitsNetwork:
        """The network of `sample`: what NNI gets when it makes the space for one model."""
        return build(_own(sample))

    def freeze(self, sample: Mapping[str, Any]) -> DigitsNetwork:
        """The network of `sample`, with weights from PyTorch's global generator.

        Raises:
            SampleValidationError: A label is missing or has another value.
        """
        self.validate(sample)
        return build(_own(sample))


@nni.trace
class DigitsEvaluator(Evaluator):  # type: ignore[misc]
    """Trains each network for real and reports its validation accuracy as `default`.

    The final result carries all metrics of `train_and_evaluate`; the validation accuracy after each
    epoch is an intermediate result.

    Args:
        epochs: Passes over the 500 training images.
        seed: Seed of the weights and of the batches, the same for every network.
    """

    def __init__(self, epochs: int = EPOCHS, seed: int = 0) -> None:
        self.epochs = epochs
        self.seed = seed

    def _execute(self, model: Any) -> dict[str, float]:
        # The sample says all: the network is built inside the training, from the evaluator's seed.
        metrics = train_and_evaluate(
            _own(model.sample),
            epochs=self.epochs,
            seed=self.seed,
            on_epoch=lambda epoch, accuracy: nni.report_intermediate_result(accuracy),
        )
        nni.report_final_result(metrics)
        return metrics

    def extra_repr(self) -> str:
        return f"epochs={self.epochs}, seed={self.seed}"
