"""Importing NNI and keeping it quiet: the one place that knows about its noise."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nni_aiop.engines._references import load_object
from nni_aiop.errors import MissingPackageError

_EVALUATIONS = "nni_aiop.engines._progress"  # the logger of a line for each evaluation

__all__ = ["importing_nni", "load_object", "nni_log", "numbers"]


@contextlib.contextmanager
def importing_nni() -> Iterator[None]:
    """Imports of `nni` inside this block make no noise, and a missing NNI says how to install it.

    NNI 3.0 walks over `torch.nn` when `nni.nas` is first imported and warns of what newer versions
    of PyTorch have there.

    Raises:
        MissingPackageError: NNI, or a package that it needs, cannot be imported.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found to be not a nn.Module", module="nni")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, message="pkg_resources")
        try:
            yield
        except ImportError as err:
            raise MissingPackageError(
                f"NNI must be importable here, but is not ({err}): "
                "install it with  pip install 'nni-aiop[nni]'"
            ) from err


@contextlib.contextmanager
def nni_log(path: Path) -> Iterator[None]:
    """NNI's log goes to the file `path` inside this block, and not to the screen.

    So does a line for each evaluation, which reaches other handlers only where these want INFO.
    """
    with importing_nni():
        from nni.runtime import log as nni_runtime_log

    spoke = "_stdout_" in nni_runtime_log._handlers
    nni_runtime_log.silence_stdout()
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s (%(name)s) %(message)s"))
    own = logging.getLogger(_EVALUATIONS)
    before = own.level, own.propagate
    own.propagate = own.isEnabledFor(logging.INFO)
    own.setLevel(logging.INFO)
    for logger in (logging.getLogger("nni"), own):
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in (logging.getLogger("nni"), own):
            logger.removeHandler(handler)
        own.setLevel(before[0])
        own.propagate = before[1]
        handler.close()
        if spoke:
            nni_runtime_log.start_stdout_logging()


def numbers(metric: Any) -> dict[str, float]:
    """The numbers of a reported metric; a bare one is called `default`, as NNI calls it."""
    from nni_aiop import measures  # which imports torch: too heavy for an assessor's start

    return measures.numbers(metric)
