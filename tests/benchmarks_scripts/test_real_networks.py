"""The helpers of benchmarks/real_networks.py, on networks and files counted by hand."""

from __future__ import annotations

import csv
import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nni_aiop.errors import GraphError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads a file of benchmarks/ as its scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


class Biased(nn.Module):
    """Attends to a bias that a product of learned numbers makes: 2 x 3 x 5 multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3, 5))
        self.linear, self.unread = nn.Linear(4, 5), nn.Linear(7, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.left @ self.right


class Written(nn.Module):
    """Multiplies what is written in place into zeros: 8 x 3."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        room = torch.zeros(1, 3, device=x.device)
        room[:, :2] = x
        return self.linear(room)


class Attention(nn.Module):
    """Both products of one head: 2 x 6 x 6 x 4."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


NETWORKS: list[tuple[nn.Module, tuple[int, ...], int, int, int]] = [
    (nn.Linear(4, 5), (2, 4), 40, 0, 25),
    (Biased(), (2, 4), 2 * 4 * 5 + 2 * 3 * 5, 2 * 3 * 5, 25 + 6 + 15),
    (Written(), (1, 2), 24, 0, 24),
    (Attention(), (1, 1, 6, 4), 2 * 6 * 6 * 4, 0, 0),
    # A layer counts all of its steps, the one from the constant state included.
    (nn.LSTM(3, 5, bidirectional=True), (7, 2, 3), 7 * 2 * 2 * 4 * 5 * (3 + 5), 0, 2 * 20 * 10),
    (nn.GRU(3, 5, num_layers=2), (7, 2, 3), 7 * 2 * 3 * 5 * (3 + 5 + 5 + 5), 0, 15 * 10 + 15 * 12),
    (nn.GRUCell(3, 5), (2, 3), 2 * 15 * 8, 2 * 15 * 5, 15 * 10),
]


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(
    ("network", "shape", "macs", "constants", "parameters"),
    NETWORKS,
    ids=[type(n[0]).__name__ for n in NETWORKS],
)
def test_products_that_depend_on_the_input_are_told_from_others(
    load: Any,
    device: str,
    network: nn.Module,
    shape: tuple[int, ...],
    macs: int,
    constants: int,
    parameters: int,
) -> None:
    counts = load("_network_counts").count(network, (torch.zeros(shape),), {}, device)
    assert (counts.macs, counts.constants, counts.parameters) == (macs, constants, parameters)
    assert counts.unread == sum(p.numel() for p in network.parameters()) - parameters
    assert not any(p.is_meta for p in network.parameters())


class Asking(nn.Module):
    """Looks at numbers that it makes itself, or at its data."""

    def __init__(self, *, data: bool) -> None:
        super().__init__()
        self.data = data

    def forward(self, x: Tensor) -> Tensor:
        numbers = x > 0 if self.data else torch.ones(x.shape[0], device=x.device) > 0
        return x if bool(numbers.all()) else 2 * x


class Masked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


@pytest.mark.parametrize("data", [True, False])
def test_values_of_the_data_are_told_from_a_network_s_own(load: Any, data: bool) -> None:
    asks = load("_network_counts").asks_for_values
    assert asks(Asking(data=data), (torch.ones(2, 3),), {}) is data
    assert asks(Masked(), (torch.ones(2, 3),), {})
    assert asks(nn.Linear(3, 2), (torch.ones(2, 4),), {})  # it does not run


def test_a_graph_is_unlike_the_count_in_what_differs(load: Any) -> None:
    module = load("_network_counts")
    counts = module.Counts(macs=100, constants=10, parameters=7, unread=0, device="meta")
    assert module.unlike(90, 7, counts) == module.unlike(100, 7, counts) == ""
    assert module.unlike(95, 7, counts) == "constants"
    assert module.unlike(80, 7, counts) == module.unlike(101, 7, counts) == "macs"
    assert module.unlike(80, 6, counts) == "macs+parameters"


def model(nodes: list[onnx.NodeProto], **tensors: Any) -> ModelProto:
    values = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 4, 4))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "net", [x], [y], values))


def distinct(*shape: int, dtype: Any = np.float32) -> Any:
    return np.arange(1, 1 + int(np.prod(shape))).reshape(shape).astype(dtype)


def test_learned_entries_of_a_file(load: Any) -> None:
    learned_entries = load("_network_files").learned_entries
    norm = [distinct(5) for _ in range(4)]
    plain = model(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["a"]),
            helper.make_node("BatchNormalization", ["a", "s", "o", "m", "v"], ["n"]),
            helper.make_node("Mul", ["n", "half"], ["h"]),
            helper.make_node("Identity", ["b"], ["again"]),
            helper.make_node("Add", ["h", "again"], ["y"]),
        ],
        w=distinct(5, 3, 1, 1),
        b=distinct(5),
        **dict(zip("somv", norm, strict=True)),
        half=np.float32(0.5),
    )
    assert learned_entries(plain) == 15 + 5 + 5 + 5

    quantised = model(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "scales"], ["f"], axis=0),
            helper.make_node("Conv", ["d", "f"], ["y"]),
        ],
        w=distinct(5, 3, 1, 1, dtype=np.int8),
        scales=distinct(5),
        scale=np.float32(0.1),
        zero=np.int8(0),
    )
    assert learned_entries(quantised) == 15

    weight = helper.make_tensor("value", TensorProto.FLOAT, (4, 2), distinct(4, 2).flatten())
    constant = model(
        [
            helper.make_node("Constant", [], ["w"], value=weight),
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Add", ["a", "zeros"], ["y"]),
        ],
        zeros=np.zeros(2, np.float32),
    )
    assert learned_entries(constant) == 8


def test_a_trained_network_has_distinct_numbers_and_is_a_copy(load: Any) -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)).eval()
    trained = load("_network_files").trained(network)
    for tensor in [*trained.parameters(), trained[1].running_mean, trained[1].running_var]:
        assert tensor.unique().numel() == tensor.numel()
    assert bool((network[1].weight == 1).all()) and bool((network[1].running_mean == 0).all())
    assert float(trained[1].running_var.detach().min()) > 0


@pytest.mark.parametrize(
    ("err", "is_one"),
    [
        (GraphError("a rule must hold, but got 3."), True),
        (GraphError("one line\nand another"), False),
        (GraphError("x" * 401), False),
        (ValueError("a rule must hold, but got 3."), False),
    ],
)
def test_a_refusal_is_one_sentence_of_the_package(load: Any, err: Exception, is_one: bool) -> None:
    assert load("_network_rows").one_sentence(err) is is_one


def test_published_digits(load: Any) -> None:
    agree = load("_network_rows").digits_agree
    assert agree(4.0891, 4.089) and agree(4.0885, 4.089)
    assert not agree(4.0881, 4.089)


ROWS: list[dict[str, Any]] = [
    {
        "set": "timm",
        "name": "good",
        "state": "read",
        "unlike": "",
        "macs": 5,
        "parameters": 2,
        "counts": {"macs": 5, "constants": 0, "parameters": 2},
    },
    {
        "set": "timm",
        "name": "bad",
        "state": "read",
        "unlike": "macs",
        "macs": 4,
        "parameters": 2,
        "counts": {"macs": 9, "constants": 2, "parameters": 2},
    },
    {"set": "timm", "name": "stopped", "state": "refused", "said": "GraphError: no, but 3."},
    {"set": "timm", "name": "absent", "state": "not built", "said": "ImportError: no."},
    {
        "set": "onnx",
        "name": "net",
        "kind": "legacy, trained",
        "state": "read",
        "unlike": "",
        "macs": 5,
        "parameters": 2,
        "equal": False,
        "same": True,
        "counts": {"macs": 5, "constants": 0, "parameters": 3, "held": 2},
    },
    {
        "set": "onnx",
        "name": "net",
        "kind": "legacy, untrained",
        "state": "read",
        "unlike": "",
        "macs": 5,
        "parameters": 2,
        "equal": True,
        "same": False,
        "counts": {"macs": 5, "constants": 0, "parameters": 2, "held": 2},
    },
]


def test_shares_and_differences(load: Any) -> None:
    script = load("real_networks")
    figures = script.Figures()
    for title in ("timm", "onnx", "torchvision"):
        script.add_figures(figures, title, [row for row in ROWS if row["set"] == title])
    text = [line.split() for line in str(figures).splitlines()]
    values = {" ".join(words[:-4]): (words[-4], words[-1]) for words in text if ">=" in words}
    assert values == {
        "timm: % read or truly refused": ("100.0000", "yes"),
        "timm: % exact where read": ("50.0000", "NO"),
        "onnx: % read or truly refused": ("100.0000", "yes"),
        "onnx: % exact where read": ("100.0000", "yes"),
        "onnx: % equal to the module": ("0.0000", "NO"),
    }
    assert list(script.sections(ROWS)) == [
        "timm",
        "onnx: legacy, trained",
        "onnx: legacy, untrained",
    ]
    assert script.table_row("timm", ROWS[:4])[:6] == ["timm", 3, 2, 1, 0, "1/2"]

    found = script.differences(ROWS)
    assert [(row["name"], row["what"]) for row in found] == [
        ("bad", "macs"),
        ("stopped", "refused"),
        ("absent", "not built"),
        ("net", "unequal"),
    ]
    assert (found[0]["macs"], found[0]["expected_macs"], found[0]["constants"]) == (4, 7, 2)
    read = list(csv.DictReader(io.StringIO(script.as_csv(found, script.COLUMNS))))
    assert [row["name"] for row in read] == ["bad", "stopped", "absent", "net"]
    assert read[1]["said"] == "GraphError: no, but 3." and read[1]["macs"] == ""


def test_a_part_is_kept_and_a_failing_one_is_a_row(load: Any, tmp_path: Path) -> None:
    script = load("real_networks")
    head = {"set": "timm", "name": "net"}
    with script.Reader() as reader:
        assert reader.read(dict, tmp_path / "a.json", head, [("state", "read")]) == [
            {"state": "read"}
        ]
        assert reader.read(int, tmp_path / "a.json", head, "no number") == [{"state": "read"}]
        (row,) = reader.read(int, tmp_path / "b.json", head, "no number")
        assert row["state"] == "failed" and row["said"].startswith("ValueError: invalid literal")
        # A process that ends itself gives no answer, and the next part gets another.
        with pytest.raises(TimeoutError, match=r"^no answer in 3 s: it crashed or takes too long$"):
            reader.ask(load("os")._exit, 1, seconds=3.0)
        assert reader.ask(abs, -2) == 2
