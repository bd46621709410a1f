"""`nni-aiop predictor adapt` and `nni-aiop predict`: a task learned from a CSV, and asked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import Result

from benchmarks._timm import create
from nni_aiop.graphs import ComputeGraph, Node, from_module
from nni_aiop.predictors.graph import GraphPredictor, load_task
from nni_aiop.search_spaces import get_space
from nni_aiop.weights import shipped_tasks
from tests.cli.command_line import invoke


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, twelve measured cells as a CSV of files and one of samples, and another cell."""
    space = get_space("nasbench201")
    assert space.graph is not None
    samples = space.sample(13, np.random.default_rng(0))
    graphs = [space.graph(sample) for sample in samples]
    y = [graph.flops / 1e6 for graph in graphs]
    folder = tmp_path_factory.mktemp("predict")
    options = {"hidden": 8, "layers": 2}
    fit = GraphPredictor(epochs=1, encoder_options=options).fit(graphs, y)
    fit.save(folder / "backbone.safetensors")
    for place, graph in enumerate(graphs):
        graph.save(folder / f"{place}.json")
    files, codes = ["model,mflops"], ["model,note,speed"]
    for place, (sample, value) in enumerate(zip(samples[:12], y, strict=False)):
        files.append(f"{place}.json,{value}")
        text = json.dumps(sample).replace('"', '""')
        codes.append(f'"{text}",0,{-value}')
    (folder / "files.csv").write_text("\n".join(files) + "\n")
    (folder / "codes.csv").write_text("\n".join(codes) + "\n")
    x = Node.make("input", [], (1, 7))
    nodes = [
        x,
        Node.make("softmax", [(1, 7)], (1, 7), axis=-1),
        Node.make("output", [(1, 7)], (1, 7)),
    ]
    ComputeGraph(nodes, [(), (0,), (1,)]).save(folder / "foreign.json")
    return folder


@pytest.mark.parametrize("model", ["gp", "ridge", "adapter"])
def test_a_task_is_learned_and_asked(folder: Path, tmp_path: Path, model: str) -> None:
    backbone = folder / "backbone.safetensors"
    options = ("--backbone", backbone, "--model", model, "--epochs", 1, "--out", tmp_path)
    done = invoke("predictor", "adapt", folder / "files.csv", *options)
    assert done.exit_code == 0, done.output
    assert "mflops learned from 12 networks" in done.output
    assert ("Without effect here: --epochs" in done.output) == (model != "adapter")
    told = invoke("predict", folder / "12.json", "--task", "mflops", "--predictor", tmp_path)
    assert told.exit_code == 0, told.output
    found = re.fullmatch(r"mflops: (\S+) \(80% interval (\S+) to (\S+)\)\n", told.output)
    assert found is not None
    mean, low, high = map(float, found.groups())
    known = load_task(tmp_path, "mflops")
    graph = ComputeGraph.load(folder / "12.json")
    assert mean == pytest.approx(known.predict([graph]).mean[0, 0], rel=1e-5)
    assert low < mean < high


def test_it_abstains_from_what_it_does_not_know(folder: Path, tmp_path: Path) -> None:
    backbone = folder / "backbone.safetensors"
    invoke("predictor", "adapt", folder / "files.csv", "--backbone", backbone, "--out", tmp_path)
    task = ("--task", "mflops", "--predictor", tmp_path)
    told = invoke("predict", folder / "foreign.json", *task)
    assert told.exit_code == 1, "nothing at all is predicted"
    assert invoke("predict", folder / "foreign.json", folder / "0.json", *task).exit_code == 0
    assert "which is unlike the networks that the task was learned from" in told.output
    assert "measure some, and let `nni-aiop predictor adapt` learn from them" in told.output
    assert "interval" not in told.output


def test_a_metric_of_the_backbone_is_asked(folder: Path) -> None:
    told = invoke("predict", folder / "3.json", "--task", "metric", "--predictor", folder)
    assert told.exit_code == 0, told.output
    found = load_task(folder, "metric").predict([ComputeGraph.load(folder / "3.json")])
    assert told.output.startswith(f"metric: {found.mean[0, 0]:.6g} (80% interval")


def test_samples_of_a_space_and_a_named_column(folder: Path, tmp_path: Path) -> None:
    done = invoke(
        *("predictor", "adapt", folder / "codes.csv", "--space", "nasbench201"),
        *("--task", "speed", "--backbone", folder / "backbone.safetensors", "--out", tmp_path),
    )
    assert done.exit_code == 0, done.output
    assert load_task(tmp_path, "speed").predict([ComputeGraph.load(folder / "3.json")]).mean < 0


def test_bad_input_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    backbone = folder / "backbone.safetensors"
    files = folder / "files.csv"
    (tmp_path / "empty.csv").write_text("model,accuracy\n")
    (tmp_path / "words.csv").write_text("model,accuracy\n0.json,high\n")
    adapt = ("predictor", "adapt", "--backbone", backbone, "--out", tmp_path / "tasks")
    assert invoke(*adapt, files).exit_code == 0
    task = ("predict", folder / "0.json", "--predictor", tmp_path / "tasks", "--task")
    for arguments, text in (
        (
            (*adapt, tmp_path / "empty.csv"),
            "must hold a heading and at least one row, but has 1 lines",
        ),
        (
            (*adapt, tmp_path / "words.csv"),
            "line 2, column 'accuracy': must be a number, but got",
        ),
        ((*adapt, files, "--task", "size"), "must be one of mflops"),
        ((*adapt, files, "--model", "forest"), "must be one of adapter, ridge, gp"),
        ((*adapt, files, "--task", "metric"), "must be one of mflops"),
        ((*task, "size"), "must be one of metric, mflops, but got 'size'"),
        ((*task, "../mflops"), "must be letters"),
    ):
        failed = invoke(*arguments)
        assert failed.exit_code == 2, arguments
        assert text in " ".join(failed.output.split())
        assert failed.output.count("\n") == 1


def adapt(folder: Path, tmp_path: Path, text: str | bytes) -> Result:
    """`predictor adapt` of a CSV of this content, beside the networks."""
    path = folder / f"{tmp_path.name}.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    backbone = folder / "backbone.safetensors"
    return invoke("predictor", "adapt", path, "--backbone", backbone, "--out", tmp_path / "tasks")


ROWS = "".join(f"{i}.json,{70 + i}\n" for i in range(5))


@pytest.mark.parametrize(
    ("text", "learned", "told"),
    [
        (b"\xef\xbb\xbfmodel,acc\n" + ROWS.encode(), 5, ""),
        ("model,acc\r\n" + ROWS.replace("\n", "\r\n") + "\r\n", 5, ""),
        ("model,acc\n" + ROWS + "5.json,\n6.json,nan\n", 5, "Left out: 2 of 7 rows"),
        ("model,acc\n" + ROWS + ROWS, 5, "Warning: 5 of 10 rows repeat a network"),
        (
            "model,acc\n" + "".join(f"{i}.json,70\n" for i in range(5)),
            5,
            "Warning: all 5 values of acc are 70",
        ),
    ],
    ids=["mark", "windows", "empty", "repeated", "constant"],
)
def test_csvs_as_people_write_them(
    folder: Path, tmp_path: Path, text: str | bytes, learned: int, told: str
) -> None:
    done = adapt(folder, tmp_path, text)
    assert done.exit_code == 0, done.output
    assert f"acc learned from {learned} networks" in done.output
    assert told in done.output and done.output.count("Warning") == told.count("Warning")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,acc\n" + ROWS + "5.json,70,5\n", "line 7: a row must have 2 cells, but got 3 (a "),
        ("model,acc\n" + ROWS + '5.json,"70,5"\n', "got '70,5' (a decimal comma must be a point)"),
        ("model,acc\n\n" + ROWS + "5.json\n", "line 8: a row must have 2 cells, but got 1."),
        ("model;acc\n" + ROWS, "must have commas between its cells, but has semicolons"),
        ("model,acc\n" + ROWS + "5.json,inf\n", "line 7, column 'acc': must be a finite number"),
        ("model,acc\n" + ROWS + "none.json,1\n", "line 7: "),
        ("acc,size\n1,2\n", "must have the column model and one of values"),
        ("model,acc\n0.json,1\n", "at least 3 different networks must have a value of acc, but 1"),
        ("model,acc\n0.json,1\n1.json,2\n", "must have a value of acc, but 2 of"),
        ("model,acc\n" + "0.json,1\n" * 6, "must have a value of acc, but 1 of"),
    ],
)
def test_csvs_that_cannot_be_learned_from(
    folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    failed = adapt(folder, tmp_path, text)
    assert failed.exit_code == 2 and failed.output.count("\n") == 1
    assert message in failed.output


def table_of(tmp_path: Path, values: list[float], copies: int = 1) -> Path:
    """Rows of nasbench201, each of them several times."""
    space = get_space("nasbench201")
    samples = space.sample(len(values), np.random.default_rng(1))
    heading = ",".join(space.labels)
    rows = [",".join(map(str, s.values())) + f",{v}" for s, v in zip(samples, values, strict=True)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join([f"{heading},acc", *rows * copies]) + "\n")
    return path


def test_copies_of_a_network_are_on_one_side_of_the_split(tmp_path: Path) -> None:
    from nni_aiop.cli._predictor import _split

    networks = [f"n{i % 7}" for i in range(21)]
    for seed in range(20):
        held, rest = _split(networks, 0.3, np.random.default_rng(seed))
        assert len(held) == 6 and len({*held, *rest}) == 21
        assert not {networks[i] for i in held} & {networks[i] for i in rest}
    # Without copies the split is that of a permutation.
    held, rest = _split([str(i) for i in range(10)], 0.2, np.random.default_rng(0))
    assert [*held, *rest] == np.random.default_rng(0).permutation(10).tolist() and len(held) == 2


def test_train_says_what_is_odd_in_a_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [*rng.random(11).round(3).tolist(), float("nan")]
    options = ("--space", "nasbench201", "--out", tmp_path / "out")
    done = invoke("predictor", "train", table_of(tmp_path, values, copies=2), *options)
    assert done.exit_code == 0, done.output
    assert "Left out: 2 of 24 rows, which lack a metric" in done.output
    assert "Warning: 11 of 22 rows repeat a network" in done.output
    assert "Fitting 18 architectures, 4 held out" in done.output
    again = (*options, "--overwrite")
    constant = invoke("predictor", "train", table_of(tmp_path, [0.5] * 12), *again)
    assert "Warning: all 12 values of acc are 0.5" in constant.output


IMAGENET = ("--task", "imagenet-top1")


def test_networks_are_ranked_out_of_the_box(folder: Path) -> None:
    networks = [folder / "mobilenetv3_small_050.json", folder / "resnet50.json"]
    for path in networks:
        with torch.device("meta"):
            from_module(create(path.stem), (1, 3, 224, 224)).save(path)
    told = invoke("predict", *networks, folder / "foreign.json", *IMAGENET)
    assert told.exit_code == 0, told.output
    heading, _, *rows, last = told.output.splitlines()
    assert heading.split()[:2] == ["model", "imagenet-top1"]
    assert [row.split()[0] for row in rows] == [str(path) for path in reversed(networks)]
    for row in rows:
        mean, low, high = map(float, row.split()[1:])
        assert low < mean < high
    assert "foreign.json, which is unlike the networks" in last


def test_several_tasks_are_columns_of_a_table(folder: Path, tmp_path: Path) -> None:
    with torch.device("meta"):
        from_module(create("resnet18"), (1, 3, 224, 224)).save(tmp_path / "resnet18.json")
    networks = [tmp_path / "resnet18.json", folder / "foreign.json"]
    told = invoke("predict", *networks, "--task", "all")
    assert told.exit_code == 0, told.output
    heading, _, first, second, *notes = told.output.splitlines()
    assert heading.split() == ["model", *shipped_tasks()]
    place = shipped_tasks().index("imagenet-top1")
    cells = re.split(r"\s{2,}", first)[1:]
    assert re.fullmatch(r"[\d.]+ \([\d.]+ to [\d.]+\)", cells[place])
    assert second.split()[1:] == ["-"] * len(shipped_tasks())
    assert notes[0] == "In brackets: 80% intervals."
    assert notes[1].startswith("-: nothing is predicted of a network that is unlike")
    alone = invoke("predict", networks[1], "--task", "all")
    assert alone.exit_code == 1, "nothing at all is predicted"
    twice = invoke("predict", networks[0], *IMAGENET, *IMAGENET)
    assert twice.output.startswith("imagenet-top1: "), "a task that is named twice is one"


def test_all_tasks_of_a_folder(folder: Path, tmp_path: Path) -> None:
    backbone = folder / "backbone.safetensors"
    invoke("predictor", "adapt", folder / "files.csv", "--backbone", backbone, "--out", tmp_path)
    told = invoke("predict", folder / "0.json", "--task", "all", "--predictor", tmp_path)
    assert told.exit_code == 0, told.output
    assert told.output.split()[:3] == ["model", "metric", "mflops"]


def test_the_tasks_that_come_with_the_package_are_told(folder: Path) -> None:
    told = invoke("predict", "--help")
    assert "imagenet-top1" in told.output
    failed = invoke("predict", folder / "0.json", "--task", "size")
    assert failed.exit_code == 2
    assert "imagenet-top1" in failed.output
    assert failed.output.count("\n") == 1


def test_a_task_is_learned_beside_the_shipped_backbone(folder: Path, tmp_path: Path) -> None:
    done = invoke("predictor", "adapt", folder / "files.csv", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    told = invoke("predict", folder / "12.json", "--task", "mflops", "--predictor", tmp_path)
    assert "mflops: " in told.output


def test_one_file_that_cannot_be_read_does_not_end_the_table(folder: Path, tmp_path: Path) -> None:
    from onnx import helper, save

    backbone = folder / "backbone.safetensors"
    invoke("predictor", "adapt", folder / "files.csv", "--backbone", backbone, "--out", tmp_path)
    x, y = (helper.make_tensor_value_info(name, 1, ["n", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [x], [y])
    free, missing = tmp_path / "free.onnx", tmp_path / "none.json"
    save(helper.make_model(graph), free)
    models = (folder / "0.json", free, folder / "1.json", missing)
    told = invoke("predict", *models, "--task", "mflops", "--predictor", tmp_path)
    assert told.exit_code == 2
    table = told.stdout.splitlines()
    assert table[0].split()[:2] == ["model", "mflops"]
    assert sorted(line.split()[0] for line in table[2:4]) == [str(models[0]), str(models[2])]
    first, second = told.stderr.splitlines()
    assert first.startswith(f"nni-aiop: {free}: ") and "name a shape for 'x' by --input" in first
    assert second.startswith(f"nni-aiop: {missing}: ")
    alone = invoke("predict", free, "--task", "mflops", "--predictor", tmp_path)
    assert alone.exit_code == 2 and alone.stdout == ""
