"""The task zoo's networks as compute graphs, built once and kept by content.

The networks come from packages that are no dependencies. Those that are missing are left out, by
name; to install them all beside the project's own environment (no compiled kernels are needed):

    pip install --no-deps --target out/task_zoo/packages mmcv-lite==2.1.0 mmengine-lite==0.10.7 \
        mmdet==3.3.0 mmsegmentation==1.2.2 mmpose==1.3.2 mmpretrain==1.2.0 addict yapf termcolor \
        platformdirs einops six transformers==5.24.0 huggingface_hub tokenizers regex safetensors \
        ultralytics==8.4.190 tqdm filelock fsspec typer httpx httpcore h11 anyio idna certifi
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from nni_aiop.benchmarks import TaskZoo
from nni_aiop.files import parse_json, write_json
from nni_aiop.graphs import ComputeGraph, from_module

__all__ = ["graphs_of", "imports_of"]

_OWN = "builders"  # a file beside the table
_IMPORTS = {
    "mmdet": "mmdet", "mmsegmentation": "mmseg", "mmpose": "mmpose", "torchvision": "torchvision",
    "transformers": "transformers", "ultralytics": "ultralytics",
}  # fmt: skip


def imports_of(packages: Path | None, data: Path) -> Any:
    """The table's own functions that build networks."""
    sys.path.insert(0, str(data / "task_zoo"))
    if packages is not None:
        sys.path.append(str(packages))  # behind the project's own
    return importlib.import_module(_OWN)


def graphs_of(zoo: TaskZoo, builders: Any, folder: Path, say: Any) -> list[ComputeGraph | None]:
    """The graph of each row, None where its network cannot be built or read.

    What was tried before is not tried again: a file for each graph under its content hash, and
    `built.json`, which says of each expression which graph it gave, or why none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "built.json"
    built: dict[str, str] = parse_json(index.read_text(), str(index)) if index.exists() else {}
    names = [package.partition("==")[0] for package in zoo.package]
    there = {name: importlib.util.find_spec(_IMPORTS[name]) is not None for name in set(names)}
    for name in sorted(name for name, found in there.items() if not found):
        say(f"{name} is not installed: {names.count(name)} rows are left out")
    keys = [_key(*pair) for pair in zip(zoo.package, zoo.builder, strict=True)]
    wanted = {
        key: builder
        for key, builder, name in zip(keys, zoo.builder, names, strict=True)
        if there[name] and key not in built
    }
    for done, (key, builder) in enumerate(wanted.items()):
        built[key] = _built(builders, builder, folder)
        if done % 50 == 49:
            write_json(index, built)
            say(f"{done + 1} of {len(wanted)} networks are read")
    write_json(index, built)
    read: dict[str, ComputeGraph] = {}
    for key in set(keys):
        path = folder / f"{built.get(key, '')}.json.gz"
        if path.exists():
            read[key] = ComputeGraph.load(path)
    why = Counter(
        built[key][:110] for key in keys if key in built and key not in read and built[key]
    )
    for reason, n in why.most_common():
        say(f"{n} rows are left out: {reason}")
    return [read.get(key) for key in keys]


def _key(package: str, builder: str) -> str:
    return hashlib.sha256(f"{package} {builder}".encode()).hexdigest()[:20]


def _built(builders: Any, expression: str, folder: Path) -> str:
    """The content hash of a network's graph, which the folder then holds; or why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = from_module(*builders.evaluate(expression))
        except Exception as err:  # noqa: BLE001 (what cannot be read is part of the result)
            return f"{type(err).__name__}: {str(err).splitlines()[0] if str(err) else ''}"
    path = folder / f"{graph.content_hash}.json.gz"
    if not path.exists():
        graph.save(path)
    return graph.content_hash
