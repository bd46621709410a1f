"""The digits space: exact costs, features, networks, and training that a seed repeats."""

import hashlib
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.flop_counter import FlopCounterMode

from nni_aiop.errors import SpaceError
from nni_aiop.search_spaces import digits
from nni_aiop.search_spaces.digits._training import split_indices

SPACE = digits.code_space()
GOOD = {
    "activation": "relu",
    "pooling": "max",
    "width_1": 16,
    "depth_1": 1,
    "op_1_1": "residual",
    "kernel_1_1": 3,
    "width_2": 20,
    "depth_2": 1,
    "op_2_1": "residual",
    "kernel_2_1": 3,
}


def samples(n, seed=0):
    return SPACE.sample(n, np.random.default_rng(seed))


def extremes():
    smallest = {**SPACE.complete({}), "width_1": 4, "width_2": 4, "depth_1": 0, "depth_2": 0}
    largest = {**smallest, "width_1": 20, "width_2": 20, "depth_1": 2, "depth_2": 2}
    for block in ("1_1", "1_2", "2_1", "2_2"):
        largest |= {f"op_{block}": "residual", f"kernel_{block}": 5}
    return [smallest, {**largest, "pooling": "stride"}]


def test_the_space_has_as_many_networks_as_its_text_says():
    sizes = dict(zip(SPACE.labels, (d.size for d in SPACE.dimensions), strict=True))
    total = 0
    for depth_1 in range(3):
        for depth_2 in range(3):
            sample = SPACE.complete({"depth_1": depth_1, "depth_2": depth_2})
            total += math.prod(
                sizes[label] for label in SPACE.canonical(sample) if not label.startswith("depth")
            )
    assert total == 5_546_025


def test_costs_equal_the_counts_of_the_built_network():
    candidates = samples(200) + extremes()
    codes = SPACE.encode(candidates)
    macs, parameters = SPACE.cost("flops", codes), SPACE.cost("params", codes)
    for i, sample in enumerate(candidates):
        network = digits.build(sample).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 1, 8, 8))
        # PyTorch counts a multiply-add as two operations.
        assert 2 * macs[i] == counter.get_total_flops(), sample
        assert parameters[i] == sum(p.numel() for p in network.parameters()), sample


def test_costs_worked_out_by_hand():
    # stem 9*16*64; block 2*9*16*16*64; 1x1 16*20*16; block 2*9*20*20*16; head 20*10
    macs = 9_216 + 294_912 + 5_120 + 115_200 + 200
    # stem 9*16+32; block 2*(9*256+32); 1x1 320+40; block 2*(9*400+40); head 200+10
    parameters = 176 + 4_672 + 360 + 7_280 + 210
    codes = SPACE.encode([GOOD])
    assert SPACE.cost("flops", codes).tolist() == [macs]
    assert SPACE.cost("params", codes).tolist() == [parameters]


@pytest.mark.parametrize("function", [digits.flops, digits.params, digits.features])
def test_costs_and_features_are_differentiable_inside_the_cube(function):
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(3, SPACE.width, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(function, codes.requires_grad_())


@pytest.mark.parametrize("cost", ["flops", "params"])
def test_cost_of_a_mixed_one_hot_is_the_mean_of_the_costs(cost):
    conv, separable = SPACE.encode([GOOD | {"op_1_1": op} for op in ("conv", "separable")])
    found = SPACE.cost(cost, np.stack([conv, separable, 0.25 * conv + 0.75 * separable]))
    assert found[2] == pytest.approx(0.25 * found[0] + 0.75 * found[1])


def test_costs_and_features_do_not_read_what_the_depth_does_not_reach():
    shallow = GOOD | {"depth_1": 0, "depth_2": 1}
    other = shallow | {"op_1_1": "inverted", "kernel_1_2": 5, "op_2_2": "residual"}
    codes = torch.from_numpy(SPACE.encode([shallow, other]))
    assert SPACE.key(shallow) == SPACE.key(other)
    for function in (digits.flops, digits.params, digits.features):
        first, second = function(codes)
        assert torch.equal(first, second)


def test_features_lie_between_zero_and_one():
    codes = torch.from_numpy(SPACE.encode(samples(500) + extremes()))
    found = digits.features(codes)
    assert found.shape == (502, 23)
    assert found.min() >= 0
    assert found.max() <= 1


def test_receptive_field_is_what_the_gradient_sees():
    sample = GOOD | {"op_1_1": "conv", "kernel_1_1": 3, "op_2_1": "separable", "kernel_2_1": 1}
    network = digits.build(sample | {"pooling": "avg"}, seed=0).double().eval()
    image = torch.ones(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    middle = network.stage_2(network.transition(network.stage_1(network.stem(image))))[0, :, 1, 1]
    middle.sum().backward()
    rows = int((image.grad[0, 0].abs().sum(dim=1) > 0).sum())
    features = digits.features(torch.from_numpy(SPACE.encode([sample])))
    assert 52 * float(features[0, -3]) == pytest.approx(rows) == 6


def test_networks_read_a_batch_of_images_and_need_active_labels_only():
    for sample in samples(20, seed=1):
        network = digits.build(SPACE.canonical(sample))
        assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"width_1": 5}, "width_1"), ({"depth_1": 2}, "op_1_2"), ({"stem": 3}, "stem")],
)
def test_a_sample_that_breaks_a_rule_is_refused(change, message):
    with pytest.raises(SpaceError, match=message):
        digits.build(GOOD | change)
    with pytest.raises(SpaceError, match=message):
        digits.train_and_evaluate(GOOD | change)


def test_the_split_is_stratified_disjoint_and_the_same_everywhere():
    _, labels = load_digits(return_X_y=True)
    parts = split_indices(labels)
    assert [len(part) for part in parts] == [500, 600, 697]
    assert len(np.unique(np.concatenate(parts))) == len(labels)
    assert np.bincount(labels[parts[0]]).tolist() == [50] * 10
    assert np.bincount(labels[parts[1]]).tolist() == [60] * 10
    written = ",".join(str(i) for part in parts for i in part)
    assert hashlib.sha256(written.encode()).hexdigest()[:16] == "ea26d35fccd21ca4"


def test_the_split_holds_the_images_of_its_indices():
    pixels, labels = load_digits(return_X_y=True)
    indices = split_indices(labels)
    for part, where in zip(digits.load_split(), indices, strict=True):
        assert part.images.shape == (len(where), 1, 8, 8)
        assert part.labels.tolist() == labels[where].tolist()
        assert np.allclose(part.images[:, 0].numpy() * 6.0 + 4.9, pixels[where].reshape(-1, 8, 8))


def test_training_repeats_by_its_seed_and_leaves_pytorch_as_it_was():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first = digits.train_and_evaluate(GOOD, epochs=1, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.rand(7)
    assert digits.train_and_evaluate(SPACE.complete(GOOD), epochs=1, seed=3) == first
    assert digits.train_and_evaluate(GOOD, epochs=1, seed=4) != first


def test_training_in_threads_gives_the_same():
    seeds = range(4)
    alone = [digits.train_and_evaluate(GOOD, epochs=1, seed=s) for s in seeds]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda s: digits.train_and_evaluate(GOOD, epochs=1, seed=s), seeds)
        assert list(together) == alone


def test_training_measures_and_learns():
    seen = []
    found = digits.train_and_evaluate(GOOD, on_epoch=lambda *epoch: seen.append(epoch))
    assert set(found) == {"default", "val_accuracy", "test_accuracy", "flops", "params"}
    assert all(type(value) is float for value in found.values())
    assert [epoch for epoch, _ in seen] == list(range(1, digits.EPOCHS + 1))
    assert seen[-1][1] == found["default"] == found["val_accuracy"] > 90
    assert found["test_accuracy"] > 90
    assert found == digits.train_and_evaluate(GOOD), "reporting changes nothing"


def test_what_the_callback_raises_ends_the_training():
    class Pruned(Exception):
        pass

    def prune(epoch, accuracy):
        raise Pruned

    with pytest.raises(Pruned):
        digits.train_and_evaluate(GOOD, on_epoch=prune)


def test_no_epochs_are_refused():
    with pytest.raises(ValueError, match="epochs must be at least 1, but got 0"):
        digits.train_and_evaluate(GOOD, epochs=0)


def run_python(text):
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)


def test_the_space_alone_imports_neither_pytorch_nor_nni():
    text = (
        "import sys; from nni_aiop.search_spaces import digits; digits.code_space(); "
        "print(*(m for m in ('torch', 'nni', 'sklearn') if m in sys.modules))"
    )
    assert run_python(text).stdout.strip() == ""


def test_without_nni_all_but_its_classes_work():
    text = """
import sys
sys.modules["nni"] = None
from nni_aiop.errors import MissingPackageError
from nni_aiop.search_spaces import digits
for name in ("DigitsSpace", "DigitsEvaluator"):
    try:
        getattr(digits, name)
    except MissingPackageError as err:
        assert "pip install 'nni-aiop[nni]'" in str(err)
    else:
        raise AssertionError(name)
sample = digits.code_space().complete({})
print(digits.train_and_evaluate(sample, epochs=1)["default"] > 0)
"""
    assert run_python(text).stdout.strip() == "True"


def test_an_unknown_name_is_no_attribute():
    assert not hasattr(digits, "DigitSpace")
