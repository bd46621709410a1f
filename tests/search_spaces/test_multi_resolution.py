"""The multi-resolution space: its codes and costs against all of NAS-Bench-MR, and its networks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nni_aiop.benchmarks import NASBenchMR, load_nas_bench_mr
from nni_aiop.errors import SpaceError
from nni_aiop.search_spaces.multi_resolution import (
    LABELS,
    MultiResolutionNet,
    code_space,
    features,
    flops,
    params,
    values_of,
)

SMALLEST = [8, 8, 1, 1, 8, 1, 1, 1, 8, 8, *[1] * 4, 8, 8, 8, *[1] * 5, *[8] * 5]
LARGEST = [128, 128, 4, 4, 128, *[4] * 3, 128, 128, *[4] * 4, 128, 128, 128, *[4] * 5, *[128] * 5]
SMALL = [8, 16, 2, 1, 24, 1, 2, 1, 16, 8, 2, 1, 2, 1, 8, 24, 16, 1, 1, 1, 2, 1, 8, 16, 8, 24, 40]


@pytest.fixture(scope="module")
def published(data_dir: Path) -> NASBenchMR:
    return load_nas_bench_mr(data_dir / "nas_bench_mr", "cls-50-1000")


def measured(net: nn.Module, images: torch.Tensor) -> tuple[int, int]:
    """Parameters, and what the benchmark calls FLOPs, counted as the layers run."""
    count = 0

    def hook(module: nn.Module, _: Any, out: torch.Tensor) -> None:
        nonlocal count
        match module:
            case nn.Conv2d() | nn.Conv3d() | nn.Linear():
                count += out.numel() * (module.weight[0].numel() + (module.bias is not None))
            case nn.BatchNorm2d() | nn.BatchNorm3d():
                count += 2 * out.numel()

    hooks = [module.register_forward_hook(hook) for module in net.modules()]
    net.eval()(images)
    for handle in hooks:
        handle.remove()
    return sum(p.numel() for p in net.parameters()), count


# --- codes --------------------------------------------------------------------------------------


def test_the_labels_are_the_papers_in_its_order() -> None:
    assert (
        *("i1", "i2", "b1", "n1", "c1"),
        *("b2", "n2_1", "n2_2", "c2_1", "c2_2"),
        *("b3", "n3_1", "n3_2", "n3_3", "c3_1", "c3_2", "c3_3"),
        *("b4", "n4_1", "n4_2", "n4_3", "n4_4", "c4_1", "c4_2", "c4_3", "c4_4", "o1"),
    ) == LABELS
    space = code_space()
    assert space.labels == LABELS and space.width == 27
    assert space.size == 4**14 * 16**13


def test_codes_run_from_the_smallest_to_the_largest_network() -> None:
    space = code_space()
    samples = [dict(zip(LABELS, numbers, strict=True)) for numbers in (SMALLEST, LARGEST)]
    np.testing.assert_array_equal(space.encode(samples), [[0.0] * 27, [1.0] * 27])
    np.testing.assert_array_equal(values_of(np.eye(27)[:1] * 0), [SMALLEST])


def test_codes_hold_the_published_embeddings(published: NASBenchMR) -> None:
    space = code_space()
    samples = [dict(zip(LABELS, numbers, strict=True)) for numbers in published.embedding.tolist()]
    codes = space.encode(samples)
    assert space.decode(codes) == samples
    np.testing.assert_allclose(values_of(codes), published.embedding, rtol=1e-15)
    tensor = torch.tensor(codes, dtype=torch.float32)
    np.testing.assert_allclose(values_of(tensor).numpy(), published.embedding, rtol=1e-6)


# --- costs --------------------------------------------------------------------------------------


def test_params_and_flops_of_a_network_worked_out_by_hand() -> None:
    def conv(kernel: int, c_in: int, c_out: int) -> int:
        return kernel * c_in * c_out + 2 * c_out

    wide, narrow = conv(9, 8, 8), conv(1, 8, 8)  # 592 and 80; areas 64^2 .. 4^2 at 128 x 128
    stem = conv(9, 3, 8) * 64**2 + wide * 32**2
    # Stage s: fusion from s - 1 branches to s, then one unit (two convolutions) on each.
    stage_1 = wide * 32**2 + 2 * wide * 32**2
    stage_2 = wide * (32**2 + 16**2) + 2 * wide * (32**2 + 16**2)
    stage_3 = wide * (32**2 + 16**2 + 16**2 + 8**2) + narrow * 16**2
    stage_3 += 2 * wide * (32**2 + 16**2 + 8**2)
    stage_4 = wide * (32**2 + 2 * 16**2 + 2 * 8**2 + 4**2) + narrow * (16**2 + 8**2)
    stage_4 += 2 * wide * (32**2 + 16**2 + 8**2 + 4**2)
    out = conv(1, 32, 8) * 4**2 + 8 * 50 + 50
    total = stem + stage_1 + stage_2 + stage_3 + stage_4 + out
    code = np.array([SMALLEST])
    assert flops(code).tolist() == [total] == [10_842_562]
    n_wide = 1 + (1 + 2) + (2 + 4) + (4 + 6) + (6 + 8)
    by_hand = conv(9, 3, 8) + n_wide * wide + 3 * narrow + conv(1, 32, 8) + 450
    assert params(code).tolist() == [by_hand]


def test_costs_equal_the_published_columns_on_every_row(published: NASBenchMR) -> None:
    numbers = published.embedding
    assert len(numbers) == 2507
    np.testing.assert_array_equal(params(numbers), published.params)
    np.testing.assert_array_equal(flops(numbers), published.flops)
    tensor = torch.tensor(numbers)
    np.testing.assert_array_equal(params(tensor).numpy(), published.params)
    np.testing.assert_array_equal(flops(tensor).numpy(), published.flops)
    np.testing.assert_allclose(flops(tensor.float()).numpy(), published.flops, rtol=1e-6)


def test_the_code_spaces_costs_equal_the_published_columns(published: NASBenchMR) -> None:
    space = code_space()
    samples = [dict(zip(LABELS, numbers, strict=True)) for numbers in published.embedding.tolist()]
    codes = space.encode(samples)
    np.testing.assert_allclose(space.cost("params", codes), published.params, rtol=1e-12)
    np.testing.assert_allclose(space.cost("flops", codes), published.flops, rtol=1e-12)


def test_costs_of_the_papers_found_networks() -> None:
    # The codes that NCP's published script names for video and 3D detection, and the first two
    # columns of the paper's Table 3 (segmentation network, 19 classes, 128 x 128).
    video = [8, 8, 1, 1, 88, 1, 1, 1, 8, 8, 1, 1, 1, 1, 64, 128, 128]
    video += [1, 1, 1, 1, 4, 80, 128, 128, 48, 128]
    detection = [120, 48, 1, 1, 24, 1, 3, 4, 80, 128, 1, 1, 3, 1, 96, 8, 128]
    detection += [1, 1, 1, 2, 1, 40, 80, 40, 96, 112]
    codes = np.array([video, detection])
    size = params(codes, head="segmentation", n_classes=19) / 1e6
    work = flops(codes, head="segmentation", n_classes=19) / 1e9
    assert size.round(2).tolist() == [2.56, 2.89]
    assert np.floor(work * 100).tolist() == [74, 121]


@pytest.mark.parametrize("head", ["classification", "segmentation", "video"])
def test_costs_are_differentiable_in_the_code(head: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(3, 27, generator=generator, dtype=torch.float64, requires_grad=True)

    def count(cost: Any) -> Any:
        return lambda c: cost(values_of(c), head=head) / 1e6

    assert torch.autograd.gradcheck(count(params), codes)
    assert torch.autograd.gradcheck(count(flops), codes)
    (gradient,) = torch.autograd.grad(count(flops)(codes).sum(), codes)
    assert (gradient > 0).all()


def test_bad_arguments_are_refused() -> None:
    code = np.array([SMALLEST])
    with pytest.raises(ValueError, match=r"shape \(n, 27\), but got \(1, 26\)"):
        params(code[:, 1:])
    with pytest.raises(ValueError, match=r"head must be one of classification, .*'detection'"):
        flops(code, head="detection")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="head must be"):
        code_space(head="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="input_size"):
        flops(code, input_size=0)
    with pytest.raises(ValueError, match="n_classes"):
        params(code, n_classes=0)


# --- features -----------------------------------------------------------------------------------


def test_features_are_finite_distinct_and_differentiable(published: NASBenchMR) -> None:
    space = code_space()
    samples = [dict(zip(LABELS, numbers, strict=True)) for numbers in published.embedding.tolist()]
    codes = torch.tensor(space.encode(samples))
    found = features(codes)
    assert found.isfinite().all() and len(torch.unique(found, dim=0)) == 2507
    assert space.features is features
    inside = (codes[:3] * 0.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(features, inside)
    np.testing.assert_allclose(features(codes.float()).numpy(), found.numpy(), rtol=1e-4, atol=1e-5)


# --- networks -----------------------------------------------------------------------------------


def test_networks_have_the_published_params_and_flops(published: NASBenchMR) -> None:
    by_hand = [0, 1, 347, 2487, 2505]
    random = np.random.default_rng(0).choice(2507, size=15, replace=False).tolist()
    for place in (*by_hand, *random):
        with torch.device("meta"):
            net = MultiResolutionNet(published.embedding[place].tolist())
            cost = measured(net, torch.empty(1, 3, 128, 128))
        assert cost == (published.params[place], published.flops[place])


@pytest.mark.parametrize(
    "numbers", [SMALLEST, SMALL, LARGEST], ids=["smallest", "small", "largest"]
)
@pytest.mark.parametrize(
    ("head", "shape", "cost", "out"),
    [
        ("classification", (1, 3, 224, 224), {"input_size": 224}, (1, 19)),
        ("classification", (1, 3, 50, 33), {"input_size": (50, 33)}, (1, 19)),
        ("segmentation", (1, 3, 97, 64), {"input_size": (97, 64)}, (1, 19, 97, 64)),
        ("video", (1, 3, 5, 40, 56), {"input_size": (40, 56), "frames": 5}, (1, 19)),
    ],
)
def test_networks_of_every_head_cost_what_the_formula_says(
    numbers: list[int], head: Any, shape: Any, cost: Any, out: Any
) -> None:
    with torch.device("meta"):
        net = MultiResolutionNet(numbers, head=head, n_classes=19)
        images = torch.empty(shape)
        n_params, n_flops = measured(net, images)
        assert tuple(net(images).shape) == out
    code = np.array([numbers])
    assert params(code, head=head, n_classes=19).tolist() == [n_params]
    assert flops(code, head=head, n_classes=19, **cost).tolist() == [n_flops]


@pytest.mark.parametrize(
    ("head", "shape", "out"),
    [
        ("classification", (2, 3, 64, 64), (2, 10)),
        ("classification", (2, 3, 16, 16), (2, 10)),
        ("segmentation", (2, 3, 48, 64), (2, 10, 48, 64)),
        ("video", (2, 3, 3, 32, 32), (2, 10)),
    ],
)
def test_networks_of_every_head_learn(head: Any, shape: Any, out: Any) -> None:
    torch.manual_seed(0)
    sample = dict(zip(LABELS, SMALL, strict=True))
    net = MultiResolutionNet(sample, head=head, n_classes=10)
    images = torch.randn(shape)
    scores = net(images)
    assert tuple(scores.shape) == out and scores.isfinite().all()
    nn.functional.cross_entropy(scores, torch.zeros_like(scores[:, 0]).long()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    net.eval().double()
    with torch.no_grad():
        torch.testing.assert_close(net(images.double())[:1], net(images[:1].double()))


def test_the_four_resolutions() -> None:
    net = MultiResolutionNet(SMALL)
    shapes = [tuple(branch.shape) for branch in net.branches(torch.zeros(1, 3, 64, 96))]
    assert shapes == [(1, 8, 16, 24), (1, 16, 8, 12), (1, 8, 4, 6), (1, 24, 2, 3)]


def test_codes_that_are_no_network_are_refused() -> None:
    with pytest.raises(SpaceError, match="27 numbers, but got 26"):
        MultiResolutionNet(SMALL[1:])
    with pytest.raises(SpaceError, match=r"'i1' must be a positive whole number, but got 8\.5"):
        MultiResolutionNet([8.5, *SMALL[1:]])  # type: ignore[list-item]
    with pytest.raises(SpaceError, match="'b1' must be a positive whole number, but got 0"):
        MultiResolutionNet([8, 8, 0, *SMALL[3:]])
    with pytest.raises(SpaceError, match=r"lacks \['o1'\]"):
        MultiResolutionNet(dict(zip(LABELS[:-1], SMALL, strict=False)))
    with pytest.raises(ValueError, match="head must be"):
        MultiResolutionNet(SMALL, head="x")  # type: ignore[arg-type]
