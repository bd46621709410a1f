"""The once-for-all MobileNetV3 space: codes, texts, exact costs, features, networks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nni_aiop.benchmarks.ofa_mbv3 import OFAMobileNetV3, load_ofa_mbv3
from nni_aiop.errors import MissingPackageError, SpaceError
from nni_aiop.search_spaces import mobilenetv3
from nni_aiop.search_spaces.mobilenetv3 import (
    LABELS,
    WIDTHS,
    MobileNetV3Net,
    arch_string,
    code_space,
    features,
    from_arch_string,
    macs,
    params,
)
from nni_aiop.search_spaces.mobilenetv3._skeleton import make_divisible, se_channels
from nni_aiop.spaces import SampleCost

SIZES = range(128, 225, 4)


def alike(depth: int, kernel: int, expand: int) -> dict[str, int]:
    """The network of equal units and blocks."""
    values = {"d": depth, "k": kernel, "e": expand}
    return {label: values[label[0]] for label in LABELS}


SMALLEST = alike(2, 3, 3)
LARGEST = alike(4, 7, 6)


@pytest.fixture(scope="module")
def measured(data_dir: Path) -> OFAMobileNetV3:
    return load_ofa_mbv3(data_dir / "ofa_mbv3" / "dynast_w1.0_measured.csv.gz")


@pytest.fixture(scope="module")
def published(data_dir: Path) -> OFAMobileNetV3:
    return load_ofa_mbv3(data_dir / "ofa_mbv3" / "pnag_published_15.csv")


def counted(sample: Any, width: float, height: int, side: int) -> tuple[int, int]:
    """Parameters and multiply-adds of the modules themselves, by PyTorch's own counter."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = MobileNetV3Net(sample, width=width)
        assert tuple(net(torch.empty(1, 3, height, side)).shape) == (1, 1000)
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2


# --- codes and texts ----------------------------------------------------------------------------


def test_the_dimensions_are_the_published_columns() -> None:
    space = code_space()
    assert space.labels == LABELS and len(LABELS) == space.width == 45
    assert LABELS[:6] == ("d1", "d2", "d3", "d4", "d5", "ks1")
    assert LABELS[24:26] == ("ks20", "e1") and LABELS[-1] == "e20"
    values = {d.label: d.values for d in space.dimensions}
    assert (values["d5"], values["ks20"], values["e1"]) == ((2, 3, 4), (3, 5, 7), (3, 4, 6))


def test_positions_beyond_the_depth_are_inactive() -> None:
    space = code_space()
    sample = LARGEST | {"d1": 2, "d2": 3}
    inactive = {"ks3", "ks4", "ks8", "e3", "e4", "e8"}
    assert set(space.canonical(sample)) == set(LABELS) - inactive
    assert space.key(sample) == space.key(sample | dict.fromkeys(inactive, 3))
    assert space.violation(space.canonical(sample)) is None
    assert "ks20" in (space.violation(alike(3, 3, 3) | {"ks20": 9}) or "")
    # (sum over depths of 9^depth)^5 networks, over 10^19.
    assert f"{(9**2 + 9**3 + 9**4) ** 5:.1e}" == "2.2e+19"


def test_several_resolutions_are_one_dimension_more() -> None:
    space = code_space(resolution=SIZES)
    assert space.labels == ("r", *LABELS) and space.dimensions[0].size == 25
    samples = space.sample(20, np.random.default_rng(0))
    assert space.decode(space.encode(samples)) == samples
    assert "r" in space.canonical(samples[0])


def test_texts_are_read_and_written(published: OFAMobileNetV3) -> None:
    for text, sample in zip(published.names["arch"], published.samples, strict=True):
        assert arch_string(sample) == text and from_arch_string(text) == sample
    space = code_space()
    for sample in space.sample(50, np.random.default_rng(0)):
        assert from_arch_string(arch_string(sample)) == space.canonical(sample)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2,2,2,2,2",
        arch_string(SMALLEST).replace("0", "3"),
        arch_string(SMALLEST).replace("3", "0", 1),
        arch_string(SMALLEST).replace("3", "x", 1),
        arch_string(SMALLEST) + " ",
        arch_string(SMALLEST).replace("2,2", "2,5", 1),
        arch_string(LARGEST) + ",6",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(SpaceError, match=r"must read as .d1,\.\.\.,d5:ks1"):
        from_arch_string(text)


def test_samples_of_no_network_are_refused() -> None:
    for refuse in (arch_string, MobileNetV3Net):
        with pytest.raises(SpaceError, match="lacks 'e2'"):
            refuse({label: value for label, value in SMALLEST.items() if label != "e2"})
        with pytest.raises(SpaceError, match=r"'ks1' must be one of \(3, 5, 7\), but got 9"):
            refuse(SMALLEST | {"ks1": 9})


def test_arguments_that_are_none_are_refused() -> None:
    codes = torch.zeros(2, 45)
    for width in (0.5, 1.3):
        for call in (code_space, lambda width: MobileNetV3Net(SMALLEST, width=width)):
            with pytest.raises(ValueError, match=r"width must be one of \(1\.0, 1\.2\)"):
                call(width=width)
    for resolution in (0, (), (224, 128), (160, 160)):
        with pytest.raises(ValueError, match="resolution must be"):
            code_space(resolution=resolution)
    with pytest.raises(ValueError, match=r"shape \(n, 46\), but got \(2, 45\)"):
        macs(codes, resolution=SIZES)
    with pytest.raises(ValueError, match=r"shape \(n, 45\), but got \(45,\)"):
        features(codes[0])


# --- costs --------------------------------------------------------------------------------------


def test_channels_are_rounded_as_published() -> None:
    # 18 is nearest to 16, which is less than nine tenths of it.
    widened = [make_divisible(c) for c in (1, 11, 12, 18, 19.2, 28.8, 134.4)]
    assert widened == [8, 16, 16, 24, 24, 32, 136]
    assert [se_channels(c) for c in (120, 160, 240, 336, 1152)] == [32, 40, 64, 88, 288]


def test_costs_of_the_smallest_network_worked_out_by_hand() -> None:
    def block(c_in: int, c_out: int, h: int, area: int, after: int) -> tuple[int, int]:
        mid = 3 * c_in
        weights = c_in * mid + 9 * mid + mid * c_out + 2 * mid * h
        work = c_in * mid * area + (9 * mid + mid * c_out) * after + 2 * mid * h
        return weights + (mid + h if h else 0) + 4 * mid + 2 * c_out, work

    a1, a2, a3, a4, a5 = (side**2 for side in (112, 56, 28, 14, 7))
    blocks = [
        block(16, 24, 0, a1, a2),
        block(24, 24, 0, a2, a2),
        block(24, 40, 24, a2, a3),
        block(40, 40, 32, a3, a3),
        block(40, 80, 0, a3, a4),
        block(80, 80, 0, a4, a4),
        block(80, 112, 64, a4, a4),
        block(112, 112, 88, a4, a4),
        block(112, 160, 88, a4, a5),
        block(160, 160, 120, a5, a5),
    ]
    stem = 27 * 16 + 9 * 16 + 16 * 16
    n_params = stem + 6 * 16 + 160 * 960 + 2 * 960 + 960 * 1280 + 1281 * 1000
    n_macs = stem * a1 + 160 * 960 * a5 + 960 * 1280 + 1280 * 1000
    codes = torch.tensor(code_space().encode([SMALLEST]))
    assert params(codes).tolist() == [n_params + sum(p for p, _ in blocks)]
    assert macs(codes).tolist() == [n_macs + sum(m for _, m in blocks)]


def test_costs_equal_every_measured_row(measured: OFAMobileNetV3) -> None:
    space = code_space()
    codes = space.encode(measured.samples)
    assert len(measured) == 2373 and set(measured.resolution) == {224}
    for cost, column in (("params", "params_m"), ("macs", "macs_m")):  # millions, six decimals
        expected = np.rint(measured.metrics[column] * 1e6)
        np.testing.assert_array_equal(space.cost(cost, codes), expected)


def test_costs_equal_the_fifteen_published_networks(published: OFAMobileNetV3) -> None:
    space, bare = code_space(width=1.2), code_space(width=1.2, n_classes=0)
    codes = space.encode(published.samples)
    counts = space.cost("macs", codes) / 1e6
    columns = published.metrics
    np.testing.assert_array_equal(counts.round(2), columns["macs_m_calc_w1.2"])
    np.testing.assert_array_equal(
        (space.cost("params", codes) / 1e6).round(3), columns["params_m_calc_w1.2"]
    )
    without = bare.cost("macs", codes) / 1e6
    np.testing.assert_allclose(counts - without, 1.536)
    # The printed MAdds, in whole millions, are all but one just that; the one is 605.497 and
    # printed 606. Additions of the biases of squeeze-and-excitation (some 10,000) explain it.
    off = without.round() != columns["madds_m"]
    assert off.sum() == 1 and abs(without - columns["madds_m"]).max() < 0.503
    biases = []
    for sample in published.samples:
        with torch.device("meta"):
            net = MobileNetV3Net(sample, width=1.2)
        biased = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
        biases.append(sum(m.out_channels for m in biased) / 1e6)
    np.testing.assert_array_equal((without + biases).round(), columns["madds_m"])


@pytest.mark.parametrize("width", WIDTHS)
def test_costs_equal_every_row_of_the_latency_table(width: float, data_dir: Path) -> None:
    """5,000 networks of 25 input sizes, most of which do not halve evenly."""
    table = load_ofa_mbv3(data_dir / "ofa_mbv3" / "help_ofa_latency_5000.csv.gz")
    space = code_space(width=width, resolution=SIZES)
    codes = space.encode(
        [{"r": r, **s} for r, s in zip(table.resolution.tolist(), table.samples, strict=True)]
    )
    macs_m = space.cost("macs", codes) / 1e6
    np.testing.assert_array_equal(macs_m.round(4), table.metrics[f"macs_m_w{width}"])
    if width == 1.2:
        params_m = space.cost("params", codes) / 1e6
        np.testing.assert_array_equal(params_m, table.metrics["params_m_w1.2"])


@pytest.mark.parametrize("width", WIDTHS)
def test_costs_equal_every_row_of_the_surrogate_table(width: float, data_dir: Path) -> None:
    table = load_ofa_mbv3(data_dir / "ofa_mbv3" / "surrogate_16k.csv.gz")
    space = code_space(width=width)
    codes = space.encode(table.samples)
    for cost, half in (("macs", 5e-4), ("params", 5e-5)):
        difference = space.cost(cost, codes) / 1e6 - table.metrics[f"{cost}_m_w{width}"]
        assert np.abs(difference).max() <= half * (1 + 1e-6)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("side", [224, 150])
def test_networks_cost_what_the_formula_says(width: float, side: int) -> None:
    space = code_space(width=width, resolution=side)
    samples = [SMALLEST, LARGEST, *space.sample(3, np.random.default_rng(side))]
    codes = space.encode(samples)
    expected = zip(space.cost("params", codes), space.cost("macs", codes), strict=True)
    for sample, cost in zip(samples, expected, strict=True):
        assert counted(sample, width, side, side) == cost


def test_costs_do_not_see_inactive_positions_and_follow_every_choice() -> None:
    space = code_space(resolution=SIZES)
    samples = space.sample(100, np.random.default_rng(1))
    codes = space.encode(samples)
    clean = space.snap(codes)
    for cost in space.costs:
        np.testing.assert_array_equal(space.cost(cost, codes), space.cost(cost, clean))
    # A choice one step up costs more.
    order = space.columns
    for sample in samples[:10]:
        here = space.encode([sample])
        for other in space.neighbours(sample):
            there = space.encode([other])
            label = next(label for label in space.labels if sample[label] != other[label])
            up = there[0, order[label]] > here[0, order[label]]
            more = space.cost("macs", there) > space.cost("macs", here)
            assert bool(up[0]) is bool(more[0])


def test_costs_have_gradients() -> None:
    space = code_space(width=1.2)
    # Not at a depth's own code, where a gate has a corner.
    inside = torch.tensor(space.encode(space.sample(2, np.random.default_rng(2)))) * 0.8 + 0.07
    inside.requires_grad_()
    for cost in (c for c in space.costs.values() if not isinstance(c, SampleCost)):
        assert torch.autograd.gradcheck(lambda c, f=cost: f(c) / 1e6, inside)
        (slope,) = torch.autograd.grad(cost(inside).sum(), inside)
        assert (slope >= 0).all() and (slope[:, :5] > 0).all()
    sized = code_space(resolution=SIZES)
    codes = torch.tensor(sized.encode([LARGEST | {"r": 204}]), requires_grad=True)
    (slope,) = torch.autograd.grad(sized.costs["macs"](codes).sum(), codes)
    ends = [sized.cost("macs", sized.encode([LARGEST | {"r": r}]))[0] for r in (192, 224)]
    # The slope of r squared, at 204, is near the chord from 192 to 224.
    assert slope[0, 0].item() == pytest.approx((ends[1] - ends[0]) * 3, rel=0.1)
    single = sized.costs["macs"](codes.detach().float())
    np.testing.assert_allclose(single, sized.cost("macs", codes.detach()), rtol=1e-5)


# --- features -----------------------------------------------------------------------------------


def test_features_of_a_network_worked_out_by_hand() -> None:
    sample = SMALLEST | {"d1": 3, "ks3": 7, "e2": 6}
    codes = torch.tensor(code_space().encode([sample]))
    found = features(codes)[0]
    assert found.shape == (67,)
    torch.testing.assert_close(found[:4] * 7, found.new_tensor([3, 3, 7, 0]))
    torch.testing.assert_close(found[20:24] * 6, found.new_tensor([3, 6, 3, 0]))
    torch.testing.assert_close(found[[40, 45, 50]], found.new_tensor([13 / 21, 12 / 18, 0.75]))
    totals = torch.cat([params(codes), macs(codes)])
    torch.testing.assert_close((found[-2:] + 17).exp(), totals)
    outside = 27 * 16 + 9 * 16 + 16**2 + 6 * 16 + 162 * 960 + 960 * 1280 + 1281_000
    torch.testing.assert_close((found[55:60] + 12).exp().sum() + outside, totals[0])


def test_features_are_those_of_the_network_finite_and_differentiable() -> None:
    space = code_space(width=1.2, resolution=SIZES)
    assert space.features is not None
    codes = space.encode(space.sample(200, np.random.default_rng(3)))
    found = space.features(torch.tensor(codes))
    assert found.isfinite().all() and found.abs().max() < 6
    assert torch.equal(found, space.features(torch.tensor(space.snap(codes))))
    assert len(torch.unique(found, dim=0)) == 200
    fixed = torch.tensor(codes[:2, 1:] * 0.8 + 0.07, requires_grad=True)
    assert torch.autograd.gradcheck(features, fixed)
    np.testing.assert_allclose(
        space.features(torch.tensor(codes).float()), found, rtol=1e-4, atol=1e-4
    )


# --- networks -----------------------------------------------------------------------------------


def test_layers_are_those_of_once_for_all() -> None:
    net = MobileNetV3Net(LARGEST)
    kinds = [type(module) for module in net.modules()]
    assert kinds.count(nn.Hardsigmoid) == 3 * 4  # squeeze-and-excitation in three units
    assert kinds.count(nn.ReLU) == 1 + 2 * 8 + 3 * 4
    assert kinds.count(nn.Hardswish) == 1 + 2 * 12 + 2
    assert kinds.count(nn.Conv2d) == 1 + 2 + 3 * 20 + 2 * 12 + 2
    biased = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert len(biased) == 2 * 12
    depthwise = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    strides = [m.stride[0] for m in depthwise]
    assert strides == [1, *(s for unit in (2, 2, 2, 1, 2) for s in (unit, 1, 1, 1))]


def test_shortcuts_are_where_shapes_allow() -> None:
    net = MobileNetV3Net(SMALLEST).eval()
    first, second = net.units[3]
    assert not first.shortcut and second.shortcut and net.stem[1].shortcut
    x = torch.randn(1, 112, 5, 7)
    with torch.no_grad():
        torch.testing.assert_close(second(x), x + second.body(x))


@pytest.mark.parametrize("width", WIDTHS)
def test_networks_learn_and_take_any_size(width: float) -> None:
    torch.manual_seed(0)
    net = MobileNetV3Net(SMALLEST | {"d4": 4, "r": 160}, width=width, n_classes=10)
    scores = net(torch.randn(2, 3, 40, 65))
    nn.functional.cross_entropy(scores, torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    net.eval().double()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(images)[1:], net(images[1:]))


# --- NNI ----------------------------------------------------------------------------------------


def installed() -> bool:
    try:
        return mobilenetv3.MobileNetV3Space is not None
    except MissingPackageError:
        return False


@pytest.mark.skipif(not installed(), reason="NNI is not installed")
def test_the_space_of_nni_is_the_same() -> None:
    model_space = mobilenetv3.MobileNetV3Space(width=1.2, n_classes=10, resolution=64)
    assert model_space.trace_kwargs == {"width": 1.2, "n_classes": 10, "resolution": 64}
    assert model_space(torch.zeros(1, 3, 64, 64)).shape == (1, 10)
    simplified, codes = model_space.simplify(), model_space.code_space()
    assert tuple(simplified) == codes.labels
    for dimension in codes.dimensions:
        assert list(simplified[dimension.label].values) == list(dimension.values)
    assert codes.fingerprint == code_space().fingerprint
    for sample in codes.sample(3, np.random.default_rng(0)):
        active = codes.canonical(sample)
        for given in (sample, active):
            with torch.device("meta"):
                frozen = model_space.freeze(given)
            assert type(frozen) is MobileNetV3Net
            n_params = sum(p.numel() for p in frozen.parameters())
            assert n_params == codes.cost("params", codes.encode([given]))[0]
        del active["e17"]
        with pytest.raises(Exception, match="e17"):
            model_space.freeze(active)
