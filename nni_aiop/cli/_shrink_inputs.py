"""What `nni-aiop shrink` is given: a network, its data, a loss, a training, shapes and budgets."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nni_aiop.cli._app import BadInput
from nni_aiop.cli._inputs import import_from
from nni_aiop.engines._references import load_object, raised
from nni_aiop.errors import AiopError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "LOSSES",
    "Batch",
    "load_batches",
    "load_loss",
    "load_model",
    "load_training",
    "parse_parts",
    "parse_shapes",
]

Batch = tuple[Any, Any]

LOSSES = {
    "cross_entropy": "cross_entropy",
    "mse": "mse_loss",
    "l1": "l1_loss",
    "bce": "binary_cross_entropy_with_logits",
}
"""The losses that have a name, with that of PyTorch."""

_MOST_DIGITS = 9


def parse_shapes(text: str) -> tuple[tuple[int, ...], ...]:
    """The shapes of a text such as `1x3x224x224`, those of several inputs between commas."""
    shapes = []
    for part in text.split(","):
        sizes = [size.strip() for size in part.split("x")]
        if not all(
            re.fullmatch(f"[0-9]{{1,{_MOST_DIGITS}}}", size) and int(size) > 0 for size in sizes
        ):
            raise BadInput(
                f"--input must be a shape such as 1x3x224x224, the batch first, those of several "
                f"inputs between commas, but got {text!r:.80}."
            )
        shapes.append(tuple(int(size) for size in sizes))
    return tuple(shapes)


def parse_parts(text: str, option: str) -> tuple[float, ...]:
    """The parts of a whole in a text such as `0.865,0.5`, the largest first."""
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if not parts or not all(0 < part <= 1 for part in parts):
        raise BadInput(
            f"{option} must be parts of the whole above 0 and at most 1, such as 0.865 or 0.8,0.5, "
            f"but got {text!r:.80}."
        )
    return tuple(sorted(set(parts), reverse=True))


def load_model(reference: str) -> tuple[nn.Module, list[Batch] | None]:
    """What a function `module:make` gives: a module, and batches where it gives them beside it."""
    from torch import nn

    found = _called(reference, "a torch module, or a module and batches")
    batches = None
    if isinstance(found, (tuple, list)) and len(found) == 2:
        found, batches = found[0], _checked(found[1], reference)
    if not isinstance(found, nn.Module):
        raise BadInput(
            f"{reference!r} must give a torch module, or a module and batches in a tuple, but gave "
            f"{type(found).__name__}."
        )
    return found, batches


def load_batches(reference: str) -> list[Batch]:
    """The batches that a function `module:batches` gives."""
    return _checked(_called(reference, "batches"), reference)


def load_loss(name: str) -> Callable[[Any, Any], Tensor]:
    """The loss of a name in `LOSSES`, or the user's own by `module:function`."""
    from torch.nn import functional

    if name in LOSSES:
        return getattr(functional, LOSSES[name])  # type: ignore[no-any-return]
    if ":" not in name:
        raise BadInput(
            f"--loss must be one of {', '.join(LOSSES)} or module:function, but got {name!r}."
        )
    return _function(name, 2, "outputs and targets")


def load_training(reference: str) -> Callable[[Any], Any]:
    """The function `module:fine_tune`, which takes a network."""
    return _function(reference, 1, "a network")


def _function(reference: str, count: int, what: str) -> Callable[..., Any]:
    import_from(os.getcwd())
    function: Any = load_object(reference)
    if not callable(function):
        raise BadInput(f"{reference!r} must be a function, but is a {type(function).__name__}.")
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError as err:
        raise BadInput(f"{reference!r} must take {what}, but does not: {err}.") from err
    except ValueError:  # of some functions written in C
        pass
    return function  # type: ignore[no-any-return]


def _called(reference: str, what: str) -> Any:
    import_from(os.getcwd())
    function: Any = load_object(reference)
    if not callable(function):
        raise BadInput(
            f"{reference!r} must be a function without arguments that gives {what}, but is a "
            f"{type(function).__name__}."
        )
    try:
        return function()
    except AiopError:
        raise
    except (Exception, SystemExit) as err:
        raise BadInput(f"{reference!r} must give {what}, but raised {raised(err)}.") from err


def _checked(found: Any, reference: str) -> list[Batch]:
    try:
        batches = [tuple(batch) for batch in found]
    except TypeError:
        batches = []
    if not batches or not all(len(batch) == 2 for batch in batches):
        raise BadInput(
            f"{reference!r} must give batches as a list of (inputs, targets), at least one, but "
            f"gave {_kind(found)}."
        )
    return [(inputs, targets) for inputs, targets in batches]


def _kind(found: Any) -> str:
    size = f" of {len(found)}" if isinstance(found, Sequence) else ""
    return f"{type(found).__name__}{size}"
