"""`nni-aiop graph`: what a network is made of, and what it costs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from nni_aiop.cli._app import BadInput, sentence, table
from nni_aiop.cli._outputs import Overwrite, check_folder
from nni_aiop.cli._tell import answer, note, shows_bars, went_wrong
from nni_aiop.engines._references import load_object, raised
from nni_aiop.errors import AiopError, GraphError, MissingPackageError

if TYPE_CHECKING:
    from nni_aiop.graphs import ComputeGraph

InputShapes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--input", help="An input, as 1x3x224x224 or NAME=1x3x224x224; repeatable, in order."
    ),
]
InputValues: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--value",
        help="The value of an input of an ONNX file that says what the network does, as "
        "NAME=16000 or NAME=1,3,64,64; repeatable.",
    ),
]


def graph(
    model: Annotated[
        str,
        typer.Argument(
            help="An ONNX file (.onnx), a graph of this command (.json), or module:callable, which "
            "returns a PyTorch module or a compute graph."
        ),
    ],
    inputs: InputShapes = None,
    values: InputValues = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("out/graph"),
    overwrite: Overwrite = False,
) -> None:
    """Print a network's stages with their exact costs; write graph.json and graph.png.

    MACs are multiply-adds; FLOPs are two for each of them and those of all other functions.

    \b
    Examples
      nni-aiop graph my_module:make_network --input 1x3x224x224
      nni-aiop graph detector.onnx --input 1x3x640x640 --out out/detector
      nni-aiop graph voice.onnx --input input=1x512 --value sr=16000
    """
    inputs_of = {"MODEL": Path(model)}
    check_folder(out, _RESULTS, inputs=inputs_of)
    found = read_graph(model, inputs or (), values or ())
    if not (overwrite or _holds(out, found)):
        check_folder(out, _RESULTS, inputs=inputs_of, overwrite=False)
    written = [out / name for name in _RESULTS]
    answer(report(found), model=model, **_record(found), results=written)
    for said in notes(model, found):
        note(said)
    note(
        "\nMACs are multiply-adds, which spaces call flops or macs; FLOPs count two for each of "
        "them, and all other functions."
    )
    found.save(written[0])
    found.draw(written[1], title=Path(model).name)
    note(f"\nResults: {', '.join(map(str, written))}")


_RESULTS = ("graph.json", "graph.png")


def _holds(out: Path, graph: ComputeGraph) -> bool:
    """Whether the folder holds the same graph already, so that nothing is lost."""
    try:
        return bool(json.loads((out / _RESULTS[0]).read_bytes()) == graph.to_json())
    except (OSError, ValueError, RecursionError):
        return False


def report(graph: ComputeGraph) -> str:
    """The stages of a graph with their costs as a table, the totals, and unknown operations."""
    from nni_aiop.graphs import short

    rows: list[list[object]] = []
    for stage in graph.stages():
        shape = "x".join(map(str, stage.output_shape))
        costs = (short(n) for n in (stage.macs, stage.flops, stage.parameters))
        rows.append([stage.name, len(stage.nodes), shape, *costs])
    cost = graph.cost
    totals = (short(n) for n in (cost.macs, cost.flops, cost.parameters))
    rows.append(["total", len(graph), "", *totals])
    left_out = uncounted(graph)
    lines = [
        table(["stage", "nodes", "output", "MACs", "FLOPs", "parameters"], rows),
        "",
        f"exactly: {cost.macs} MACs{left_out}, {cost.flops} FLOPs, {cost.parameters} parameters",
        f"activations: {short(graph.activation_memory())}B in all, "
        f"{short(graph.peak_memory())}B at once (float32)",
    ]
    if graph.others:
        lines.append(f"of unknown cost, counted as nothing: {', '.join(graph.others)}")
    return "\n".join(lines)


def _record(graph: ComputeGraph) -> dict[str, object]:
    """The same for programs; memory in bytes."""
    cost = graph.cost
    return {
        "nodes": len(graph),
        "macs": cost.macs,
        "flops": cost.flops,
        "parameters": cost.parameters,
        "activation_memory": graph.activation_memory(),
        "peak_memory": graph.peak_memory(),
        "uncounted": dict(graph.uncounted),
        "unknown": list(graph.others),
        "stages": [
            {
                "name": stage.name,
                "nodes": len(stage.nodes),
                "output": list(stage.output_shape),
                "macs": stage.macs,
                "flops": stage.flops,
                "parameters": stage.parameters,
            }
            for stage in graph.stages()
        ],
    }


def uncounted(graph: ComputeGraph) -> str:
    """What a figure leaves out, in brackets; empty where it is nothing."""
    names = ", ".join(f"{name} x{count}" for name, count in graph.uncounted.items())
    return f" ({names} counted as nothing)" if names else ""


def notes(model: str, graph: ComputeGraph) -> list[str]:
    """What a user may not know of the inputs of an ONNX file."""
    if Path(model).suffix != ".onnx":
        return []
    from onnx import ModelProto

    proto = ModelProto.FromString(Path(model).read_bytes())
    held = {tensor.name for tensor in proto.graph.initializer}
    own = [x.name for x in proto.graph.input if x.name in held]
    told = []
    if own and len(own) < len(held):
        told.append(
            f"note: {model} has values of its own for {', '.join(own)}, which count as constants"
        )
    if names := _constants_in_disguise(graph):
        told.append(
            f"note: {', '.join(names)} of {model} may be constants that were exported as inputs: "
            f"data are shifted or scaled by them alone"
        )
    return told


_SHIFTS = ("sub", "div", "sqrt", "max", "clamp")


def _constants_in_disguise(graph: ComputeGraph) -> list[str]:
    """Names of inputs that do nothing but shift and scale larger ones, as mean and deviation do."""
    sizes = {
        place: prod(node.output_shape)
        for place, node in enumerate(graph.nodes)
        if node.op == "input"
    }
    readers: dict[int, list[int]] = {}
    for source, place in graph.edges:
        readers.setdefault(source, []).append(place)

    def shifts(place: int) -> bool:
        node = graph.nodes[place]
        if node.op != "elementwise" or node.get("function") not in _SHIFTS:
            return False
        alone = len(graph.inputs[place]) == 1
        return not alone or all(map(shifts, readers.get(place, [])))

    return [
        graph.names[place]
        for place, size in sizes.items()
        if size < max(sizes.values()) and place in readers and all(map(shifts, readers[place]))
    ]


def _parse_value(text: str) -> tuple[str, Any]:
    """Name and value of an input: a number, or several with commas between them."""
    name, _, value = text.partition("=")
    try:
        numbers = [float(part) if _is_real(part) else int(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if not name or not numbers:
        raise BadInput(f"a value must read as NAME=16000 or NAME=1,3,64,64, but got {text!r}.")
    return name, numbers[0] if len(numbers) == 1 else numbers


def _is_real(text: str) -> bool:
    return any(letter in text.lower() for letter in ".en")


def _parse_input(text: str) -> tuple[str, tuple[int, ...]]:
    """Name (empty where none is given) and shape of an input."""
    name, _, shape = text.rpartition("=")
    sizes = shape.lower().split("x")
    if not all(size.isdecimal() and 0 < int(size) < 2**31 for size in sizes):
        raise BadInput(f"an input must read as 1x3x224x224 or NAME=1x3x224x224, but got {text!r}.")
    return name, tuple(map(int, sizes))


def in_folders(models: Sequence[str]) -> list[str]:
    """The models, each folder replaced by the files in it that can be one, sorted.

    Folders in it are looked through too; files and folders whose name begins with a dot are not.

    Raises:
        BadInput: There is no such file in a folder.
    """
    named: list[str] = []
    for model in models:
        folder = Path(model)
        if not folder.is_dir():
            named.append(model)
            continue
        files = [
            path
            for path in folder.rglob("*")
            if path.name.endswith((".onnx", ".json", ".json.gz"))
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
        if not files:
            raise BadInput(f"a folder must hold files .onnx or .json, but {model} holds none.")
        named += map(str, sorted(files))
    return list(dict.fromkeys(named))


def read_graphs(
    models: Sequence[str], texts: Sequence[str], values: Sequence[str]
) -> tuple[list[tuple[str, ComputeGraph]], list[tuple[str, Exception]]]:
    """Each model with its graph, and those that cannot be read with the reason.

    Args:
        models: As of `in_folders`; the only one must be readable.
        texts: As of `read_graph`.
        values: As of `read_graph`.
    """
    read: list[tuple[str, ComputeGraph]] = []
    failed: list[tuple[str, Exception]] = []
    from tqdm import tqdm

    bar = tqdm(models, "Reading", leave=False, disable=None if shows_bars() else True)
    for model in bar:
        try:
            read.append((model, read_graph(model, texts, values)))
        except (AiopError, OSError) as err:
            if len(models) == 1:
                raise
            failed.append((model, err))
    return read, failed


def failures(failed: Sequence[tuple[str, Exception]]) -> list[dict[str, str]]:
    """Models that could not be read, and why, for programs."""
    return [{"model": model, "error": sentence(refusal)} for model, refusal in failed]


def name_failed(failed: Sequence[tuple[str, Exception]]) -> None:
    """Names models that could not be read on standard error; the exit code is then 2."""
    told = [f"{model}: {sentence(refusal)}" for model, refusal in failed]
    for text in told:
        typer.echo(f"nni-aiop: {text}", err=True)
    if told:
        went_wrong(" ".join(told))
        raise typer.Exit(2)


def read_graph(model: str, texts: Sequence[str] = (), values: Sequence[str] = ()) -> ComputeGraph:
    """The graph of a file (.onnx, .json) or of what module:callable returns.

    Args:
        model: As the command takes it.
        texts: Inputs as `--input` takes them.
        values: Values of inputs as `--value` takes them.

    Raises:
        BadInput: It is none of these, or an input does not fit.
    """
    from nni_aiop.graphs import ComputeGraph, from_module

    inputs = [_parse_input(text) for text in texts]
    name, _, attribute = model.partition(":")
    suffixes = Path(model).suffixes
    if suffixes[-1:] == [".onnx"]:
        try:
            return _read_onnx(model, inputs, dict(map(_parse_value, values)))
        except GraphError as err:
            # In the words of the command.
            text = str(err).replace("in input_shapes", "by --input")
            text = text.replace("input_shapes", "--input").replace("values=", "--value")
            raise BadInput(text.replace("values must name", "--value must name")) from err
    if values:
        raise BadInput("only inputs of an ONNX file have values, but --value was given.")
    if ".json" in suffixes:
        if inputs:
            raise BadInput("a written graph has its input shapes, but --input was given.")
        return ComputeGraph.load(model)
    if not name or not attribute:
        raise BadInput(
            f"a model must be a file .onnx or .json, or module:callable, but got {model!r}."
        )
    network = _network(name, attribute)
    if isinstance(network, ComputeGraph):
        return network
    if not inputs:
        raise BadInput("a PyTorch module must be given its inputs: --input 1x3x224x224.")
    named = {key: shape for key, shape in inputs if key}
    return from_module(network, tuple(shape for key, shape in inputs if not key), kwargs=named)


def _read_onnx(
    model: str, inputs: Sequence[tuple[str, tuple[int, ...]]], values: Mapping[str, Any]
) -> ComputeGraph:
    """The graph of a file; inputs without a name are those of the model in its order."""
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    from nni_aiop.graphs import from_onnx

    shapes = {name: shape for name, shape in inputs if name}
    plain = [shape for name, shape in inputs if not name]
    if plain:
        try:
            graph = ModelProto.FromString(Path(model).read_bytes()).graph
        except DecodeError:
            return from_onnx(model)  # which says what is wrong with it
        held = {tensor.name for tensor in graph.initializer}
        taken = {*held, *shapes, *values}
        names = [x.name for x in graph.input if x.name not in taken]
        if len(plain) > len(names):
            raise BadInput(
                f"a shape must be that of an input, but {model} has {len(names)} inputs and "
                f"{len(plain)} shapes were given."
            )
        shapes |= dict(zip(names, plain, strict=False))
    return from_onnx(model, input_shapes=shapes, values=values)


def _network(name: str, attribute: str) -> Any:
    """The module or compute graph that `module:attribute` is, or returns when it is called."""
    from torch import nn

    from nni_aiop.cli._inputs import import_from
    from nni_aiop.graphs import ComputeGraph

    import_from(os.getcwd())
    try:
        found: Any = load_object(f"{name}:{attribute}")
    except MissingPackageError:
        raise
    except AiopError as err:
        why = err.__cause__ or err
        told = why if isinstance(why, (AiopError, ImportError, AttributeError)) else raised(why)
        raise BadInput(f"{name}:{attribute} must be importable, but is not: {told}.") from err
    if callable(found) and not isinstance(found, nn.Module):
        try:
            found = found()
        except (Exception, SystemExit) as err:
            raise BadInput(
                f"{name}:{attribute} must return a network when called, but raised {raised(err)}."
            ) from err
    if not isinstance(found, (nn.Module, ComputeGraph)):
        raise BadInput(
            f"{name}:{attribute} must be or return a PyTorch module or a compute graph, "
            f"but is of type {type(found).__name__}."
        )
    return found
