"""The digits space and its training as NNI sees them."""

import numpy as np
import pytest

from nni_aiop.search_spaces import digits

pytest.importorskip("nni")

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines.nni_space import code_space_from_nni

with importing_nni():
    import nni
    from nni.mutable import SampleValidationError
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.space import SimplifiedModelSpace
    from nni.nas.strategy import Random

SPACE = digits.code_space()


def test_labels_values_and_order_are_those_of_the_code_space():
    found = digits.DigitsSpace().simplify()
    assert list(found) == list(SPACE.labels)
    for dimension in SPACE.dimensions:
        assert found[dimension.label].values == list(dimension.values)
    assert code_space_from_nni(digits.DigitsSpace()) is SPACE


def test_a_sample_needs_its_active_labels_and_no_others():
    space = digits.DigitsSpace()
    for sample in SPACE.sample(20, np.random.default_rng(0)):
        canonical = SPACE.canonical(sample)
        assert space.check_contains(canonical) is None
        for label in canonical:
            without = {k: v for k, v in canonical.items() if k != label}
            assert label in str(space.check_contains(without))


def test_freezing_builds_the_network():
    space = digits.DigitsSpace()
    (sample,) = SPACE.sample(1, np.random.default_rng(1))
    network = space.freeze(SPACE.canonical(sample) | {"of the evaluator": 1})
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == SPACE.cost("params", SPACE.encode([sample]))[0]
    with pytest.raises(SampleValidationError):
        space.freeze(sample | {"width_1": 5})


def test_the_evaluator_trains_on_the_sequential_engine():
    space = SimplifiedModelSpace.from_model(
        digits.DigitsSpace(), digits.DigitsEvaluator(epochs=2, seed=5)
    )
    strategy = Random(seed=0)
    strategy(space, SequentialExecutionEngine(max_model_count=2))
    models = list(strategy.list_models())
    assert len(models) == 2
    for model in models:
        expected = digits.train_and_evaluate(model.sample, epochs=2, seed=5)
        assert model.metric == expected["default"]
        assert len(model.metrics.intermediates) == 2
        assert model.metrics.intermediates[-1] == expected["default"]


def test_both_survive_the_way_to_a_trial_process():
    space = SimplifiedModelSpace.from_model(digits.DigitsSpace(), digits.DigitsEvaluator(epochs=2))
    sample = SPACE.sample(1, np.random.default_rng(2))[0]
    model = nni.load(nni.dump(space.freeze(sample)))
    assert model.sample == sample
    assert (model.evaluator.epochs, model.evaluator.seed) == (2, 0)
    assert isinstance(model.executable_model(), digits.DigitsNetwork)
