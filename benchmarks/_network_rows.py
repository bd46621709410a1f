"""How one network or one file is read, and how that compares with the independent count."""

from __future__ import annotations

import importlib.util
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from _network_counts import Counts, asks_for_values, count, unlike
from _network_files import MADE, export, learned_entries, network, quiet, trained
from _networks import Network, build
from torch import nn

from nni_aiop.errors import GraphError
from nni_aiop.graphs import from_module, from_onnx

__all__ = ["FILES", "digits_agree", "one_sentence", "read_files", "read_module", "sentence"]

FILES = "onnx"
"""The set of files."""

LONGEST = 400
"""Characters of one sentence."""

ON_CPU = 1e8
"""Most parameters of a network that is run on the CPU where it cannot be on the meta device."""

Row = dict[str, Any]


def sentence(err: Exception) -> str:
    """What an exception says, in one line."""
    return " ".join(f"{type(err).__name__}: {err}".split())


def one_sentence(err: Exception) -> bool:
    """Whether it is a refusal of the package, in one line that is not too long."""
    text = str(err).strip()
    return isinstance(err, GraphError) and "\n" not in text and len(text) <= LONGEST


def digits_agree(value: float, published: float) -> bool:
    """Whether a value is a published one of three digits behind the point."""
    return abs(value - published) <= 0.5005e-3


def counted(
    model: nn.Module, args: tuple[Any, ...], kwargs: Row, *devices: str
) -> tuple[Counts | None, str]:
    """The independent count on the first device that can run the network, and why on no other."""
    why = ""
    torch.set_flush_denormal(True)  # weights that nobody filled
    for device in devices:
        if device == "cpu" and not _little(model):
            continue
        try:
            return count(model, args, kwargs, device), why
        except Exception as err:  # noqa: BLE001 (a network that does not run has no count)
            why = why or sentence(err)[:LONGEST]
    return None, why


def _little(model: nn.Module) -> bool:
    return sum(p.numel() for p in model.parameters()) <= ON_CPU


def read_module(chosen: str, name: str) -> Row:
    """How a module of a set is read."""
    try:
        net = build(chosen, name)
    except Exception as err:  # noqa: BLE001 (a network that cannot be built is a row)
        return {"set": chosen, "name": name, "state": "not built", "said": sentence(err)}
    row: Row = {"set": chosen, "name": name}
    begin = time.perf_counter()
    try:
        graph = from_module(net.module, net.args, kwargs=net.kwargs)
    except Exception as err:  # noqa: BLE001 (any exception but a refusal is a finding)
        counts, why = counted(net.module, net.args, net.kwargs, "meta")
        untrue = ""
        if counts is not None:
            untrue = " [untrue: it runs on the meta device]"
        elif (
            "values of its data" in str(err)
            and _little(net.module)
            and not asks_for_values(net.module, net.args, net.kwargs)
        ):
            untrue = " [untrue: it asks for no value that depends on its input]"
        true = one_sentence(err) and not untrue
        said = sentence(err) + untrue
        said += "" if one_sentence(err) else f" [{len(str(err))} characters]"
        if true and "partial=True" in str(err):
            row["part"] = _read_in_part(net)
        return {**row, "state": "refused" if true else "failed", "said": said, "reference": why}
    row |= {
        "state": "read",
        "seconds": time.perf_counter() - begin,
        "nodes": len(graph),
        "macs": graph.macs,
        "parameters": graph.parameters,
        "others": list(graph.others),
    }
    counts, row["reference"] = counted(net.module, net.args, net.kwargs, "meta", "cpu")
    if counts is not None:
        row["counts"] = counts.plain()
        row["unlike"] = unlike(graph.macs, graph.parameters, counts)
        row["published"] = _published(graph, counts, net.published)
    return row


def _read_in_part(net: Network) -> Row | None:
    """The graph of a network up to where it asks for values of its data, and where that is."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            graph = from_module(net.module, net.args, kwargs=net.kwargs, partial=True)
        except GraphError:
            return None
    where = next((str(w.message) for w in caught if "ends early" in str(w.message)), "")
    return {
        "nodes": len(graph),
        "macs": graph.cost.macs,
        "outputs": len(graph.output_shapes),
        "where": where,
    }


def _published(graph: Any, counts: Counts, published: dict[str, float]) -> str | None:
    """In what a graph differs from published figures, constants and unread weights apart."""
    if not published:
        return None
    parts = []
    constants = counts.constants if graph.macs < counts.macs else 0
    gmacs = (graph.macs + constants) / 1e9
    if "gmacs" in published and not digits_agree(gmacs, published["gmacs"]):
        parts.append(f"{gmacs:.3f} G, published {published['gmacs']} G")
    parameters = graph.parameters, graph.parameters + counts.unread
    if published["parameters"] not in parameters:
        parts.append(f"{parameters[1]} parameters, published {published['parameters']}")
    return "; ".join(parts)


def read_files(name: str, how: str, is_trained: bool) -> list[Row]:
    """How an exported file, and what is made of a trained network's, is read."""
    model, example = network(name)
    if is_trained:
        model = trained(model)
    state = "trained" if is_trained else "untrained"
    head: Row = {"set": FILES, "name": name, "kind": f"{how}, {state}"}
    module = from_module(model, example)
    counts = counted(model, (example,), {}, "meta")[0]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = export(model, example, how, Path(folder) / "exported.onnx")
        except Exception as err:  # noqa: BLE001 (what an exporter cannot write is a row)
            return [{**head, "state": "not made", "said": sentence(err)}]
        # The optimising exporter writes equal tensors of an untrained network once, and no zeros.
        same = is_trained or how != "dynamo"
        rows.append(_read_file(head, path, module, counts, same=same, is_trained=is_trained))
        made = MADE if is_trained and "optimize" not in how else {}
        for kind, (package, make, same) in made.items():
            head = {**head, "kind": f"{kind} of {how}"}
            if importlib.util.find_spec(package) is None:
                continue
            out = Path(folder) / f"{len(rows)}.onnx"
            try:
                with quiet():
                    make(path, out, example)
            except Exception as err:  # noqa: BLE001 (what a tool cannot make is a row)
                rows.append({**head, "state": "not made", "said": sentence(err)[:LONGEST]})
                continue
            rows.append(_read_file(head, out, module, counts, same=same, is_trained=True))
            out.unlink()
    return rows


def _read_file(
    head: Row, path: Path, module: Any, counts: Counts | None, *, same: bool, is_trained: bool
) -> Row:
    begin = time.perf_counter()
    try:
        graph = from_onnx(path)
    except Exception as err:  # noqa: BLE001 (any exception but a refusal is a finding)
        state = "refused" if one_sentence(err) else "failed"
        return {**head, "state": state, "said": sentence(err)}
    row: Row = {
        **head,
        "state": "read",
        "seconds": time.perf_counter() - begin,
        "nodes": len(graph),
        "macs": graph.macs,
        "parameters": graph.parameters,
        "others": list(graph.others),
        "equal": graph.content_hash == module.content_hash,
        "same": same,
        "module": {"macs": module.macs, "parameters": module.parameters, "nodes": len(module)},
    }
    if counts is not None:
        held = learned_entries(onnx.load(path))
        expected = counts.plain()
        if not is_trained or graph.parameters == held:
            expected["parameters"] = graph.parameters
        row["counts"] = counts.plain() | {"held": held}
        row["unlike"] = unlike(graph.macs, graph.parameters, Counts(**expected))
    return row
