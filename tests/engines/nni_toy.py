"""A space of 200 points and a measure worked out from the sample, importable by NNI's trials."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from nni_aiop.engines._nni import importing_nni

with importing_nni():
    import nni
    from nni.mutable import Categorical
    from nni.nas.evaluator import Evaluator
    from nni.nas.nn.pytorch import ModelSpace


class Toy(ModelSpace):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        for label, values in (("a", range(10)), ("b", "xyzw"), ("c", [1, 2, 4, 8, 16])):
            self.add_mutable(Categorical(list(values), label=label))


def score(sample: dict[str, Any]) -> dict[str, float]:
    """Different for every sample."""
    value = sample["a"] + 0.01 * ord(sample["b"]) + 0.001 * sample["c"]
    return {"default": value, "size": float(sample["c"])}


def plus(sample: dict[str, Any], b: int) -> int:
    return int(sample["a"]) + b


def nameless(sample: dict[str, Any]) -> dict[str, float]:
    return {"score": 1.0}


@nni.trace
class ToyEvaluator(Evaluator):  # type: ignore[misc]
    """Reports `score`.

    Args:
        log: A file that gets a line when an evaluation begins, is held, and ends.
        hold: An evaluation that begins when so many have ended waits to be killed.
        mode: How to misbehave where a is odd: fail, silent (reports nothing), nan, or the kinds of
            metrics that NNI does not take: numpy, no_default.
    """

    def __init__(self, log: str = "", hold: int | None = None, mode: str = "") -> None:
        self.log = log
        self.hold = hold
        self.mode = mode

    def _execute(self, model: Any) -> None:
        sample = model.sample
        self.write("begin", sample)
        if self.hold is not None and Path(self.log).read_text().count("end") >= self.hold:
            self.write("held", sample)
            time.sleep(600)
        found: Any = score(sample)
        if sample["a"] % 2:
            if self.mode == "fail":
                raise RuntimeError("a is odd")
            if self.mode == "silent":
                return
            if self.mode == "nan":
                found["default"] = float("nan")
        if self.mode == "numpy":
            found = {name: np.float32(value) for name, value in found.items()}
        if self.mode == "no_default":
            del found["default"]
        self.write("end", sample)
        nni.report_final_result(found)

    def write(self, event: str, sample: dict[str, Any]) -> None:
        if self.log:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{event} {sample['a']}{sample['b']}{sample['c']} {os.getpid()}\n")
