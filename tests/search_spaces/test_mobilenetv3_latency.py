"""Latency of once-for-all networks from look-up tables: equal to the published sums."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from nni_aiop.benchmarks.ofa_mbv3 import load_ofa_mbv3
from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.search_spaces.mobilenetv3 import LABELS, code_space, load_latency_table

PHONE, DESKTOP = "lut_note10_w1.2.csv.gz", "lut_i7-8700K.csv.gz"


@pytest.fixture(scope="module")
def folder(data_dir: Path) -> Path:
    return data_dir / "ofa_mbv3"


@pytest.mark.parametrize(
    ("table", "width", "metric"),
    [
        (PHONE, 1.2, "lat_note10_lut_ms"),
        (DESKTOP, 1.2, "lat_i7_lut_w1.2_ms"),
        (DESKTOP, 1.0, "lat_i7_lut_w1.0_ms"),
    ],
)
def test_it_equals_every_row_of_the_surrogate_table(
    folder: Path, table: str, width: float, metric: str
) -> None:
    rows = load_ofa_mbv3(folder / "surrogate_16k.csv.gz")
    space = code_space(width=width, latency={"ms": load_latency_table(folder / table, width=width)})
    found = space.cost("ms", space.encode(rows.samples))
    assert np.abs(found - rows.metrics[metric]).max() < 6e-6  # published with five decimals


@pytest.mark.parametrize(
    ("table", "metric"), [(PHONE, "lat_note10_lut_ms"), (DESKTOP, "lat_i7_lut_ms")]
)
def test_it_equals_the_sums_of_the_published_networks(
    folder: Path, table: str, metric: str
) -> None:
    rows = load_ofa_mbv3(folder / "pnag_published_15.csv")
    codes = torch.as_tensor(code_space(width=1.2).encode(rows.samples))
    found = load_latency_table(folder / table)(codes).numpy()
    assert found == pytest.approx(rows.metrics[metric], abs=1e-9)


def test_several_resolutions_are_each_as_one_alone(folder: Path) -> None:
    sizes = range(160, 225, 4)
    space = code_space(
        width=1.2,
        resolution=sizes,
        latency={"ms": load_latency_table(folder / PHONE, resolution=sizes)},
    )
    samples = space.sample(6, np.random.default_rng(0))
    together = space.cost("ms", space.encode(samples))
    for sample, cost in zip(samples, together, strict=True):
        side = int(sample["r"])
        table = load_latency_table(folder / PHONE, resolution=side)
        alone = code_space(width=1.2, resolution=side, latency={"ms": table})
        code = alone.encode([{label: sample[label] for label in LABELS}])
        assert alone.cost("ms", code)[0] == pytest.approx(cost)


def toy(path: Path) -> Path:
    """A table of the first publisher's kind in which a block takes kernel + its expansion ms."""
    shapes = [(112, 24, 56, 32), (56, 32, 28, 48), (28, 48, 14, 96), (14, 96, 14, 136)]
    shapes = [
        *shapes,
        (14, 136, 7, 192),
        *((s, c, s, c) for _, _, s, c in shapes),
        (7, 192, 7, 192),
    ]
    rows = ["224,Conv-input:224x224x3-output:112x112x24,1"]
    rows += ["224,expanded_conv-input:112x112x24-output:112x112x24-expand:24-kernel:3-x,1"]
    rows += ["224,Conv_1-input:7x7x192-output:7x7x1152,1"]
    rows += ["224,AvgPool2D-input:7x7x1152-output:1x1x1152,1"]
    rows += [
        "224,Conv_2-input:1x1x1152-output:1x1x1536,1",
        "224,Logits-input:1x1x1536-output:1000,1",
    ]
    for (side, c, after, out), k, e in product(shapes, (3, 5, 7), (3, 4, 6)):
        shape = f"input:{side}x{side}x{c}-output:{after}x{after}x{out}"
        rows.append(f"224,expanded_conv-{shape}-expand:{c * e}-kernel:{k}-x,{k + e}")
    path.write_text("\n".join(["resolution,key,mean_ms", *rows]))
    return path


def test_a_table_by_hand_and_its_gradient(tmp_path: Path) -> None:
    table = load_latency_table(toy(tmp_path / "table.csv"))
    space = code_space(width=1.2)
    sample = {label: {"d": 2, "k": 3, "e": 3}[label[0]] for label in LABELS}
    larger = sample | {"d1": 3, "ks1": 7, "e3": 6}
    codes = torch.as_tensor(space.encode([sample, larger])).requires_grad_()
    found = table(codes)
    # Six parts outside the units, then ten blocks of 6 ms; a block of 3 + 6 more, 4 ms more.
    assert found.tolist() == pytest.approx([66.0, 79.0])
    (slope,) = torch.autograd.grad(found.sum(), codes)
    assert torch.isfinite(slope).all() and (slope != 0).any()


def test_a_table_without_a_block_is_refused(tmp_path: Path) -> None:
    path = toy(tmp_path / "table.csv")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(FileFormatError, match="every block of resolution 224, but lacks"):
        load_latency_table(path)
    rows = [row for row in toy(path).read_text().splitlines() if "Logits" not in row]
    path.write_text("\n".join(rows))
    with pytest.raises(FileFormatError, match="every block of resolution 224, but lacks Logits"):
        load_latency_table(path)
    with pytest.raises(FileFormatError, match="every block of resolution 192"):
        load_latency_table(toy(path), resolution=192)
    with pytest.raises(FileFormatError, match="column 'key'"):
        (tmp_path / "other.csv").write_text("a,mean_ms\n1,2")
        load_latency_table(tmp_path / "other.csv")


def test_a_table_of_another_resolution_or_width_than_the_space_is_refused(tmp_path: Path) -> None:
    table = load_latency_table(toy(tmp_path / "table.csv"))
    with pytest.raises(SpaceError, match="resolution"):
        code_space(width=1.2, resolution=192, latency={"ms": table})
    with pytest.raises(SpaceError, match="width 1"):
        code_space(width=1.0, latency={"ms": table})
    with pytest.raises(SpaceError, match="name of its own"):
        code_space(width=1.2, latency={"macs": table})
    listed = load_latency_table(toy(tmp_path / "table.csv"), resolution=[224])
    assert "ms" in code_space(width=1.2, resolution=(224,), latency={"ms": listed}).costs


def test_a_block_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = toy(tmp_path / "table.csv")
    wrong = "224,expanded_conv-input:7x7x0-output:7x7x192-expand:0-kernel:3-x,1"
    path.write_text(f"{path.read_text()}\n{wrong}")
    with pytest.raises(FileFormatError, match="whole expansions"):
        load_latency_table(path)
