"""Files of networks: whole or refused, without pickle, and the same network in every format."""

from __future__ import annotations

import json
import pickletools
import random
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_aiop.errors import FileFormatError
from nni_aiop.files import read_described, write_described
from nni_aiop.graphs import from_onnx
from nni_aiop.networks import Network
from tests.networks.zoo import ZOO, batch_of, captured


@cache
def edited(name: str) -> Network:
    """A network of the zoo, edited at every place."""
    network = captured(name)
    sites = [site for site in network.sites() if site.reason is None]
    edits = {
        site.label: max(1, site.value // 2) if site.counts else site.values[-1]
        for i, site in enumerate(sites)
        if site.counts or i % 3 == 0
    }
    return network.edit(edits)


def step(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    torch.manual_seed(0)
    result = network.train()(*inputs)
    sum(x.square().mean() for x in pytree.tree_leaves(result)).backward()
    optimiser.step()
    network.eval()


def same(a: Any, b: Any) -> bool:
    assert pytree.tree_structure(a) == pytree.tree_structure(b)
    pairs = zip(pytree.tree_leaves(a), pytree.tree_leaves(b), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("name", ZOO)
def test_a_file_holds_the_whole_network(name: str, tmp_path: Path) -> None:
    network = edited(name)
    path = network.save(tmp_path / "net.safetensors")
    loaded = Network.load(path)
    inputs = batch_of(network.example, 3)
    assert same(loaded(*inputs), network(*inputs))
    assert loaded.graph == network.graph
    assert loaded.graph.names == network.graph.names
    assert loaded.sites() == network.sites()
    assert set(loaded.state_dict()) == set(network.state_dict())
    assert [k for k, _ in loaded.named_parameters()] == [k for k, _ in network.named_parameters()]
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in network.state_dict().items())
    assert loaded.save(tmp_path / "again").read_bytes() == path.read_bytes()
    ours, theirs = Network.load(path), Network.load(path)
    step(ours, inputs)
    step(theirs, inputs)
    assert same(ours(*inputs), theirs(*inputs))
    assert not same(ours(*inputs), loaded(*inputs))
    sites = [s for s in loaded.sites() if s.counts and s.reason is None and s.value > 1]
    if sites:
        edits = {sites[0].label: 1}
        assert same(loaded.edit(edits)(*inputs), network.edit(edits)(*inputs))


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_of_numbers(kind: torch.dtype, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).to(kind).eval()
    model[0].weight.requires_grad_(False)
    example = torch.rand(1, 6).to(kind)
    network = Network.capture(model, example)
    small = network.edit({"width:0": 8})
    loaded = Network.load(small.save(tmp_path / "net"))
    assert {p.dtype for p in loaded.parameters()} == {kind}
    assert [p.requires_grad for p in loaded.parameters()] == [False, True, True, True]
    assert [p.requires_grad for p in small.parameters()] == [False, True, True, True]
    x = torch.rand(3, 6).to(kind)
    assert same(loaded(x), small(x))
    assert loaded.example[0].dtype == kind


def test_a_file_has_no_pickle(tmp_path: Path) -> None:
    path = edited("mobile").save(tmp_path / "net")
    data = path.read_bytes()
    assert not zipfile.is_zipfile(path)
    with pytest.raises(ValueError):
        list(pickletools.genops(data))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    content = json.loads(header["__metadata__"]["network"])
    assert content["format"] == "nni-aiop network"


# --- damaged and foreign files ------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(FileFormatError) as caught:
        Network.load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 500
    assert str(path) in text
    return text


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edited("grouped").save(tmp_path_factory.mktemp("files") / "net")


def test_truncated_files(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    rng = random.Random(0)
    for n in [0, 1, 7, 8, 9, len(data) - 1, *(rng.randrange(len(data)) for _ in range(20))]:
        path = tmp_path / "half"
        path.write_bytes(data[:n])
        refused(path)


def test_flipped_bytes(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    rng = random.Random(0)
    for _ in range(40):
        place = rng.randrange(len(data))
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        path = tmp_path / "flipped"
        path.write_bytes(bytes(changed))
        refused(path)


def rewritten(file: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The file with another program, and a checksum that is right."""
    content, arrays = read_described(
        file, "network", kind="nni-aiop network", version=1, what="a network"
    )
    change(content)
    write_described(path, "network", content, arrays)
    return path


def first(content: dict[str, Any], op: str) -> dict[str, Any]:
    return next(node for node in content["nodes"] if node["op"] == op)


RUNS = "x=print('this must not run')"


@pytest.mark.parametrize(
    "target",
    [
        "os.getcwd", "builtins.print", "print", "math.sqrt", "torch.relu", "prims.add.default",
        "aten", "aten.relu", "aten.relu.nothing", "aten.nothing.default", "aten.from_file.default",
        "aten.__init__.__globals__", "aten.__class__.__call__", "aten.__getattr__.__call__",
        "aten.relu.__class__", "aten.relu.default.__class__", "aten._dir.append", "", ".",
        "aten.relu_.default", "aten.set_.source_Tensor", "operator.add", "eq.__class__", 7, None,
        ["aten"], "aten.resize_.default", "aten.relu.out",
    ],
)  # fmt: skip
def test_operations_that_are_not_admitted(target: Any, file: Path, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        first(content, "call_function")["target"] = target

    refused(rewritten(file, tmp_path / "net", change))


def in_placeholder(content: dict[str, Any]) -> None:
    first(content, "placeholder")["target"] = RUNS


def in_arguments(content: dict[str, Any]) -> None:
    first(content, "call_function")["kwargs"] = {"x=print('no'), bias": None}


def in_name_of_tensor(content: dict[str, Any]) -> None:
    node = first(content, "get_attr")
    old, node["target"] = node["target"], "x', print('no'), '"
    content["same"][node["target"]] = old


def in_record(content: dict[str, Any]) -> None:
    first(content, "output")["args"] = [{"record": {"a": {"nothing": 1}}}]


def as_method(content: dict[str, Any]) -> None:
    first(content, "call_function").update(op="call_method", target="numpy")


def as_module(content: dict[str, Any]) -> None:
    first(content, "call_function").update(op="call_module", target="0")


def without_output(content: dict[str, Any]) -> None:
    content["nodes"].pop()


def output_early(content: dict[str, Any]) -> None:
    content["nodes"].insert(1, content["nodes"].pop())


def twice(content: dict[str, Any]) -> None:
    content["nodes"].insert(1, content["nodes"][0])


def unknown_node(content: dict[str, Any]) -> None:
    first(content, "call_function")["args"][0] = {"node": "nobody"}


def unknown_tensor(content: dict[str, Any]) -> None:
    first(content, "get_attr")["target"] = "nobody.weight"


def too_many_arguments(content: dict[str, Any]) -> None:
    first(content, "call_function")["args"] += [1] * 20


def arguments_of_another_kind(content: dict[str, Any]) -> None:
    first(content, "call_function")["args"][3] = ["a", "b"]


def another_size(content: dict[str, Any]) -> None:
    first(content, "call_function")["args"][3] = [1, 1, 1, 1, 1]


def other_tensor_type(content: dict[str, Any]) -> None:
    name = next(iter(content["types"]))
    content["types"][name] = "int64"


def no_examples(content: dict[str, Any]) -> None:
    content["examples"] = []


def many_examples(content: dict[str, Any]) -> None:
    content["examples"] *= 3


def number_of_examples(content: dict[str, Any]) -> None:
    content["examples"] = 1


def lists_for_records(content: dict[str, Any]) -> None:
    content["nodes"] = {"a": 1}


def missing_part(content: dict[str, Any]) -> None:
    del content["learned"]


def attribute_of_torch(content: dict[str, Any]) -> None:
    first(content, "call_function")["args"][3] = {"torch": "nn"}


def a_tensors_path_inside_a_tensor(content: dict[str, Any]) -> None:
    name = next(iter(content["types"]))
    content["same"][f"{name}.more"] = name


@pytest.mark.parametrize(
    "change",
    [
        in_placeholder, in_arguments, in_name_of_tensor, in_record, as_method, as_module,
        without_output, output_early, twice, unknown_node, unknown_tensor, too_many_arguments,
        arguments_of_another_kind, another_size, other_tensor_type, no_examples, many_examples,
        number_of_examples, lists_for_records, missing_part, attribute_of_torch,
        a_tensors_path_inside_a_tensor,
    ],
)  # fmt: skip
def test_programs_that_no_network_has(
    change: Any, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing in a file is run, and what does not compute is refused when it is read."""
    refused(rewritten(file, tmp_path / "net", change))
    assert not capsys.readouterr().out


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "other"
    write_described(path, "network", {"format": "another", "version": 1}, {})
    assert "is another one" in refused(path)
    write_described(path, "network", {"format": "nni-aiop network", "version": 9}, {})
    assert "version" in refused(path)
    torch.save({"weight": torch.ones(2)}, path)
    refused(path)
    with pytest.raises(OSError):
        Network.load(tmp_path / "nowhere")


# --- ONNX and .pt2 --------------------------------------------------------------------------------


def run_onnx(path: Path, inputs: tuple[Tensor, ...]) -> list[np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(str(path))
    names = [given.name for given in session.get_inputs()]
    results: list[np.ndarray[Any, Any]] = session.run(
        None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    )
    return results


@pytest.mark.parametrize("name", ZOO)
def test_onnx_files(name: str, tmp_path: Path) -> None:
    """onnxruntime agrees at other batch sizes, and the file has the network's graph."""
    network = edited(name)
    path = network.to_onnx(tmp_path / "net.onnx")
    for n in (1, 3, 4):
        inputs = batch_of(network.example, n)
        expected = pytree.tree_leaves(network(*inputs))
        for got, x in zip(run_onnx(path, inputs), expected, strict=True):
            np.testing.assert_allclose(got, x.detach().numpy(), rtol=1e-4, atol=1e-5)
    shapes = {f"input_{i}": x.shape for i, x in enumerate(network.example)}
    assert from_onnx(path, input_shapes=shapes) == network.graph


@pytest.mark.parametrize("name", ["mobile", "vit", "language", "several"])
def test_pt2_files(name: str, tmp_path: Path) -> None:
    network = edited(name)
    path = network.train().to_pt2(tmp_path / "net.pt2")
    network.eval()
    program = torch.export.load(path)
    inputs = batch_of(network.example, 3)
    got, expected = (pytree.tree_leaves(x) for x in (program.module()(*inputs), network(*inputs)))
    assert same(got, expected)
