"""Predictors of metrics from architecture codes: fit, predict, differentiate, save.

`default_predictor(space, seed)` is the one to start with. `PREDICTORS` names all of them.
"""

from __future__ import annotations

import os
from typing import Any

from nni_aiop.predictors._base import CodePredictor, Prediction, read_predictor
from nni_aiop.predictors._budgets import BudgetGrid
from nni_aiop.predictors._gp import CodeGP
from nni_aiop.predictors._mlp import NCPMLP
from nni_aiop.predictors._pareto import ParetoEvaluator, dominance
from nni_aiop.spaces import CodeSpace

__all__ = [
    "NCPMLP",
    "PREDICTORS",
    "BudgetGrid",
    "CodeGP",
    "CodePredictor",
    "ParetoEvaluator",
    "Prediction",
    "default_predictor",
    "dominance",
    "load_predictor",
    "make_predictor",
    "search_predictor",
]

PREDICTORS: dict[str, type[CodePredictor]] = {"gp": CodeGP, "ncp-mlp": NCPMLP}
"""Every predictor by its name; the first is the default."""


def make_predictor(name: str, space: CodeSpace, seed: int = 0, **options: Any) -> CodePredictor:
    """An unfitted predictor by its name, with options of its constructor.

    Raises:
        ValueError: There is no such predictor.
    """
    if name not in PREDICTORS:
        raise ValueError(f"a predictor must be one of {', '.join(PREDICTORS)}, but got {name!r}.")
    return PREDICTORS[name](space, seed=seed, **options)


def default_predictor(space: CodeSpace, seed: int = 0) -> CodePredictor:
    """The predictor that cross-validation chose (`benchmarks/nas_bench_mr.py --select`)."""
    return make_predictor("gp", space, seed)


def search_predictor(space: CodeSpace, seed: int = 0) -> CodeGP:
    """The predictor that NCP learns with (chosen by its regret on NAS-Bench-201 and mixed spaces).

    Unlike one that is trained on a table, it must tell the best of a few dozen results apart: it
    expects metrics to change within a shorter distance, to depend on some decisions much more than
    on others, and to be measured with little noise. It is fitted again and again, so that few rows
    choose its hyperparameters.
    """
    quick = {"rows": 300, "refined": 300, "exact": 1000}
    return CodeGP(space, **quick, length=1.65, doubt=1.0, noise=0.01, seed=seed)


def load_predictor(path: str | os.PathLike[str], space: CodeSpace) -> CodePredictor:
    """The fitted predictor of a file that `save` wrote; its predictions are the same to the bit.

    Args:
        path: A .safetensors file.
        space: The space it was fitted on.

    Raises:
        FileFormatError: The file is truncated, changed, of another version or another space.
        OSError: There is no such file.

    Example:
        >>> import tempfile
        >>> from nni_aiop.spaces import Ordinal
        >>> space = CodeSpace([Ordinal("depth", (1, 2, 3, 4))])
        >>> codes = space.encode([{"depth": depth} for depth in (1, 2, 3, 4)])
        >>> fit = default_predictor(space).fit(codes, {"accuracy": [70.0, 72.0, 73.0, 73.5]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fit.save(f"{folder}/predictor.safetensors")
        ...     again = load_predictor(f"{folder}/predictor.safetensors", space)
        >>> bool((again.predict(codes).mean == fit.predict(codes).mean).all())
        True
    """
    return read_predictor(path, space, PREDICTORS)
