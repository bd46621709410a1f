"""Latency of a network on this machine, by onnxruntime (the optional extra `latency`)."""

from __future__ import annotations

import io
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nni_aiop.errors import FileFormatError, require
from nni_aiop.spaces import Sample, SampleCost

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Latency", "latency_cost", "measure_latency"]


@dataclass(frozen=True)
class Latency:
    """How long a network took, run after run.

    Attributes:
        runs: Milliseconds of each run.
    """

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the runs in milliseconds."""
        return float(np.median(self.runs))

    def __float__(self) -> float:
        return self.median

    @property
    def spread(self) -> float:
        """Distance of the quartiles of the runs in milliseconds."""
        low, high = np.percentile(self.runs, [25, 75])
        return float(high - low)


def measure_latency(
    network: nn.Module | str | os.PathLike[str],
    shape: Sequence[int] = (1, 3, 224, 224),
    *,
    warmup: int = 10,
    runs: int = 50,
    threads: int = 1,
) -> Latency:
    """Latency of one forward pass on the CPU of this machine, single precision.

    Args:
        network: A module (measured in evaluation mode; every part is left in its own), or an ONNX
            file with one input.
        shape: Of the input, the batch first.
        warmup: Runs before the first that counts.
        runs: Runs that count.
        threads: Threads of an operator.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        FileFormatError: The ONNX file cannot be read, or the network does not have one input, or
            does not take an image of that shape.
        OSError: There is no such file.
        ValueError: A number is below its least: 0 of warm-up, 1 of runs and threads.

    Example:
        >>> from torch import nn
        >>> found = measure_latency(nn.Conv2d(3, 8, 3), (1, 3, 32, 32), runs=5)  # doctest: +SKIP
        >>> found.median, found.spread  # doctest: +SKIP
        (0.021, 0.001)
    """
    shape = tuple(shape)
    if warmup < 0 or runs < 1 or threads < 1:
        raise ValueError(
            "warmup must be at least 0, runs and threads at least 1, "
            f"but got {warmup}, {runs}, {threads}."
        )
    runtime = require("onnxruntime", "latency")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    content: Any
    if isinstance(network, (str, os.PathLike)):
        content = str(network)  # a path, as weights may lie in files beside it
        with Path(network).open("rb"):
            pass  # a file that is not there is told of in Python's words
    else:
        try:
            content = _exported(network, shape)
        except Exception as err:  # any of PyTorch's and of the network's own
            raise FileFormatError(
                f"a network must be a module that takes an image of shape {shape}, but "
                f"{type(network).__name__} is not: {' '.join(str(err).split()):.300}"
            ) from err
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as err:  # onnxruntime's errors have no common base
        raise FileFormatError(
            f"{network!s:.80} must be an ONNX network, but is not: {err}"
        ) from err
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise FileFormatError(f"a network must have one input, but has {len(inputs)}.")
    feed = {inputs[0].name: np.random.default_rng(0).random(shape, dtype=np.float32)}
    try:
        session.run(None, feed)
    except Exception as err:  # likewise
        raise FileFormatError(
            f"a network must take numbers of shape {shape}, but this one does not: "
            f"{' '.join(str(err).split())}"
        ) from err
    spent = []
    for _ in range(warmup + runs):
        start = time.perf_counter()
        session.run(None, feed)
        spent.append(1e3 * (time.perf_counter() - start))
    return Latency(tuple(spent[warmup:]))


def latency_cost(
    build: Callable[[Sample], nn.Module],
    shape: Sequence[int] = (1, 3, 224, 224),
    *,
    warmup: int = 10,
    runs: int = 50,
    threads: int = 1,
    initial: int = 32,
) -> SampleCost:
    """The median latency on this machine, in milliseconds, as a cost of a space.

    Each network is measured once; searches measure those that they are about to ask for and some
    that they learn from, and learn between (`SampleCost`). States of searches keep what was
    measured. Measure where nothing else runs: the limit is kept by the measured numbers.

    Args:
        build: From a sample (every label) to its network; an NNI model space's `freeze` is one.
        shape: Of the input, the batch first.
        warmup: See `measure_latency`.
        runs: See `measure_latency`.
        threads: See `measure_latency`.
        initial: Measurements of random networks before anything is learned.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        SpaceError: `initial` is below 8.

    Example:
        >>> space = space.with_cost("ms", latency_cost(Net, (1, 3, 32, 32)))  # doctest: +SKIP
        >>> NCPSearch(space, limits={"ms": 2.0})  # doctest: +SKIP
    """
    require("onnxruntime", "latency")

    def measured(sample: Sample) -> Latency:
        return measure_latency(build(sample), shape, warmup=warmup, runs=runs, threads=threads)

    return SampleCost(measured, noisy=True, initial=initial)


def _exported(network: nn.Module, shape: Sequence[int]) -> bytes:
    """The ONNX file of a module, whose parts are left in their modes.

    The exporter is PyTorch's older one, which needs no more packages.
    """
    import torch

    content = io.BytesIO()
    file: Any = content  # the exporter's types know paths only
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (torch.zeros(tuple(shape)),), file, dynamo=False)
    finally:
        for part, training in modes:
            part.training = training
    return content.getvalue()
