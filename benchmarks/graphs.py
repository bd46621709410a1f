"""How fast networks become compute graphs, beside torch.fx, torch.export and torch.onnx.

python benchmarks/graphs.py

Every reader gets the same untrained network in the same process, in turn: ours (`from_module`),
torch.fx.symbolic_trace with ShapeProp on the meta device, torch.export.export, and
torch.onnx.export (to memory, TorchScript exporter, whose result is then read by `from_onnx`). The
spaces' samples go through the module (its construction on the meta device included) and straight
from the code.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from _common import Figures, format_table, parse_arguments, parser, progress
from _timm import create, input_shape
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from nni_aiop.figures import new_figure, save_figure
from nni_aiop.graphs import ComputeGraph, from_module, from_onnx
from nni_aiop.search_spaces import get_space
from nni_aiop.search_spaces.mobilenetv3 import MobileNetV3Net
from nni_aiop.search_spaces.multi_resolution import MultiResolutionNet
from nni_aiop.search_spaces.nasbench101 import NASBench101Net
from nni_aiop.search_spaces.nasbench201 import NASBench201Net
from nni_aiop.search_spaces.transnas101.macro import TransNASMacroNet
from nni_aiop.search_spaces.transnas101.micro import TransNASMicroNet

NETWORKS = (
    "resnet50",
    "efficientnet_b0",
    "mobilenetv3_large_100",
    "regnety_016",
    "convnext_tiny",
    "vit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "inception_v3",
    "densenet121",
    "ghostnet_100",
    "mixer_s32_224",
    "xcit_nano_12_p16_224",
)
TIMES_QUICKER = {"resnet50": 10.0, "efficientnet_b0": 10.0}
"""Asked: how many times the speed of torch.export."""

CELL_SPACES = ("nasbench201", "nasbench101", "transnas101_micro", "transnas101_macro")
GRAPHS_PER_SECOND = 500.0
"""Asked of cell spaces, straight from the code."""

SPACES: dict[str, tuple[Callable[[Any], nn.Module], tuple[int, ...]]] = {
    "nasbench201": (NASBench201Net, (1, 3, 32, 32)),
    "nasbench101": (NASBench101Net, (1, 3, 32, 32)),
    "transnas101_micro": (TransNASMicroNet, (1, 3, 256, 256)),
    "transnas101_macro": (TransNASMacroNet, (1, 3, 256, 256)),
    "multi_resolution": (MultiResolutionNet, (1, 3, 128, 128)),
    "mobilenetv3": (MobileNetV3Net, (1, 3, 224, 224)),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' warnings and messages."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def ours(model: nn.Module, shape: tuple[int, ...]) -> ComputeGraph:
    return from_module(model, shape)


def by_fx(model: nn.Module, shape: tuple[int, ...]) -> object:
    on_meta = model.to("meta")
    traced = fx.symbolic_trace(on_meta)
    ShapeProp(traced).propagate(torch.empty(shape, device="meta"))
    return traced


def by_export(model: nn.Module, shape: tuple[int, ...]) -> object:
    return torch.export.export(model, (torch.zeros(shape),))


def by_onnx(model: nn.Module, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(shape),),
        buffer,
        dynamo=False,
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    return buffer.getvalue()


READERS: dict[str, Callable[[nn.Module, tuple[int, ...]], Any]] = {
    "from_module": ours,
    "torch.export": by_export,
    "torch.onnx": by_onnx,
    "torch.fx + ShapeProp": by_fx,  # last: it moves the network to the meta device
}


def measure(name: str, repeats: int) -> tuple[dict[str, float], int, bool | None]:
    """Median seconds of each reader (NaN where it fails), nodes, whether ONNX gives the same."""
    torch.manual_seed(0)
    model = create(name)
    for parameter in model.parameters():
        # Equal tensors would be written once, as if they were shared.
        nn.init.uniform_(parameter.data, 0.1, 0.9)
    shape = input_shape(model)
    graph = ours(model, shape)
    taken: dict[str, float] = {}
    same: bool | None = None
    for reader, read in READERS.items():
        seconds = []
        try:
            for _ in range(repeats):
                begin = time.perf_counter()
                with quiet():
                    result = read(model, shape)
                seconds.append(time.perf_counter() - begin)
        except Exception as err:  # noqa: BLE001 (what a reader cannot read is part of the result)
            print(f"  {reader} cannot read {name}: {type(err).__name__}")
            taken[reader] = float("nan")
            continue
        taken[reader] = median(seconds)
        if reader == "torch.onnx":
            begin = time.perf_counter()
            same = from_onnx(result) == graph
            taken["from_onnx"] = time.perf_counter() - begin
    return taken, len(graph), same


def graphs_per_second(name: str, n: int) -> tuple[float, float, float, int, bool]:
    """By module, by code; milliseconds of hashing one; average nodes; whether all are equal."""
    network, shape = SPACES[name]
    space = get_space(name)
    assert space.graph is not None
    samples = space.sample(n, np.random.default_rng(0))
    by_code: list[ComputeGraph] = []
    begin = time.perf_counter()
    by_code = [space.graph(sample) for sample in samples]
    code = time.perf_counter() - begin
    few = samples[: max(5, n // 50)]
    begin = time.perf_counter()
    by_module = []
    for sample in few:
        with torch.device("meta"):
            model = network(sample)
        by_module.append(from_module(model, shape))
    module = time.perf_counter() - begin
    begin = time.perf_counter()
    hashes = [graph.content_hash for graph in by_code]
    hashing = (time.perf_counter() - begin) / n * 1e3
    same = hashes[: len(few)] == [graph.content_hash for graph in by_module]
    nodes = sum(map(len, by_code)) // n
    return len(few) / module, n / code, hashing, nodes, same


def picture(rows: dict[str, dict[str, float]], path: Path) -> None:
    """Seconds of each reader by network, logarithmic."""
    figure = new_figure(9, 0.5 * len(rows) + 1.6)
    axes = figure.subplots()
    readers = [*READERS, "from_onnx"]
    height = 0.8 / len(readers)
    for place, reader in enumerate(readers):
        at = [i + (place - (len(readers) - 1) / 2) * height for i in range(len(rows))]
        axes.barh(
            at, [row.get(reader, float("nan")) for row in rows.values()], height, label=reader
        )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("seconds for one network")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def main() -> None:
    options = parse_arguments(parser(__doc__.splitlines()[0], name="graphs", seeds=5))
    say = progress()
    figures = Figures(quick=options.quick)
    networks = tuple(TIMES_QUICKER) if options.quick else NETWORKS
    measured: dict[str, dict[str, float]] = {}
    rows: list[list[object]] = []
    for name in networks:
        taken, nodes, same = measure(name, 3 if options.quick else options.seeds)
        measured[name] = taken
        ratio = taken["torch.export"] / taken["from_module"]
        rows.append(
            [
                name,
                nodes,
                *(taken[r] for r in (*READERS, "from_onnx")),
                ratio,
                "yes" if same else "NO",
            ]
        )
        figures.add(
            f"times torch.export's speed on {name}", ratio, at_least=TIMES_QUICKER.get(name)
        )
        figures.add(f"ONNX gives the same graph of {name}", float(bool(same)), at_least=1.0)
        say(f"{name}: {nodes} nodes, {taken['from_module'] * 1e3:.0f} ms")
    heads = ["network", "nodes", *(f"{r} (s)" for r in READERS), "from_onnx (s)", "ratio", "same"]
    print(format_table(heads, rows))
    print()

    rows = []
    for name in SPACES:
        module, code, hashing, nodes, same = graphs_per_second(name, 200 if options.quick else 1000)
        rows.append([name, nodes, module, code, hashing, "yes" if same else "NO"])
        figures.add(
            f"graphs a second of {name} from the code",
            code,
            at_least=GRAPHS_PER_SECOND if name in CELL_SPACES else None,
        )
        figures.add(f"graphs a second of {name} from the module", module)
        figures.add(f"both are equal in {name}", float(same), at_least=1.0)
        say(f"{name}: {code:.0f} graphs a second")
    heads = ["space", "nodes", "module (graphs/s)", "code (graphs/s)", "hash (ms)", "same"]
    print(format_table(heads, rows))
    print()
    picture(measured, options.out / "readers.png")
    print(figures)
    figures.save(options.out / "results.json")
    print(f"\nResults: {options.out}/results.json, readers.png")


if __name__ == "__main__":
    main()
