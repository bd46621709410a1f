"""The PyTorch door: runs a copy of a module on the meta device and writes down what it does.

Under `torch.inference_mode` a dispatch mode sees ATen operations before they are broken up, such as
aten.linear and aten.scaled_dot_product_attention; `_handlers` says what each means. Nothing is
computed and the module is not touched: the copy shares no tensor with it.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nni_aiop.errors import GraphError
from nni_aiop.graphs._graph import ComputeGraph
from nni_aiop.graphs.doors.modules._copies import meta_copy, on_meta
from nni_aiop.graphs.doors.modules._examples import (
    Plain,
    is_shape,
    mapped,
    plain_arguments,
    tensors_of,
)
from nni_aiop.graphs.doors.modules._handlers import HANDLERS
from nni_aiop.graphs.doors.modules._known import DataDependentError
from nni_aiop.graphs.doors.modules._python import PythonCalls
from nni_aiop.graphs.doors.modules._recorder import Recorder

__all__ = ["from_module"]

Example = Any
"""A tensor, a shape, or any nest of them in tuples, lists, mappings and dataclasses."""


def from_module(
    module: nn.Module,
    example: Example,
    *,
    kwargs: dict[str, Example] | None = None,
    constants: dict[str, Any] | None = None,
    partial: bool = False,
) -> ComputeGraph:
    """The compute graph of a PyTorch module, in evaluation mode.

    No arithmetic is run and the module is not touched: a copy on the meta device is.

    Args:
        module: Any module that can be copied (`copy.deepcopy`).
        example: Its inputs: a tensor or a shape such as (1, 3, 224, 224); a tuple or list of
            them where the module takes several; nests where an input is one. A shape means
            float32. Values are not looked at, but for those of integer and boolean tensors, such
            as a mask of which the module asks whether it is all ones, and of its buffers.
        kwargs: Inputs by keyword. Whole numbers such as (16, 16) are a shape here, too, but for
            an argument that `forward` annotates as numbers (`tuple[int, int]`), or whose default
            is such.
        constants: Arguments by keyword that are passed on as they are, whatever they look like.
        partial: Whether a module that asks for values of its data (detectors that filter their
            boxes) gives the graph up to there, with a warning that says where. The outputs are
            then what was computed and not read yet.

    Raises:
        GraphError: The module is scripted or traced, or has parameters that are not initialised;
            it raises; its control flow depends on data, or its shapes do; or no output depends
            on an input. The module's own exception is the cause.

    Example:
        >>> graph = from_module(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), (8, 4))
        >>> graph.operations
        {'input': 1, 'linear': 1, 'output': 1, 'relu': 1}
    """
    if isinstance(example, Tensor) or is_shape(example):
        example = (example,)
    if not isinstance(example, (tuple, list)):
        raise GraphError(
            f"an example must be a tensor or a shape, or several, but got {example!r}."
        )
    if twice := sorted({*(kwargs or {})} & {*(constants or {})}):
        raise GraphError(f"an argument must be given once, but got {twice[0]!r} twice.")
    arguments, by_keyword = plain_arguments(module, example, kwargs or {})
    by_keyword.update({name: Plain(value) for name, value in (constants or {}).items()})
    twin, buffers = meta_copy(module)
    recorder = Recorder(HANDLERS)
    for name, parameter in twin.named_parameters():
        value = recorder.builder.parameter(tuple(parameter.shape), name)
        recorder.register(parameter, value)
    for buffer, original in buffers:
        recorder.known.add_original(buffer, original, buffer=True)
    args, named = _inputs(recorder, arguments, by_keyword)
    _name_modules(twin, recorder.scope)
    try:
        with torch.inference_mode(), _ordinary_attention(), recorder, PythonCalls(recorder):
            result = twin(*args, **named)
    except Exception as err:
        reason = _reason(module, recorder.scope[-1], err)
        stops = _depends_on_data(err) or _has_no_shape(err)
        if not partial or not stops:
            if any(map(is_shape, by_keyword.values())) and not isinstance(err, GraphError):
                reason += " (whole numbers that are no shape are given as constants=...)"
            if stops:
                reason += "; partial=True gives the graph up to there"
            raise GraphError(reason) from err
        warnings.warn(f"the graph ends early: {reason}.", stacklevel=2)
        ends = recorder.unread()
    else:
        ends = [recorder.value(tensor) for tensor in tensors_of(result)]
    for place, value in enumerate(ends):
        recorder.builder.output(value, f"output_{place}")
    return recorder.builder.finish()


def _inputs(recorder: Recorder, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments with meta tensors, which the recorder knows as inputs."""
    place = -1

    def leaf(x: Any) -> Any:
        nonlocal place
        place += 1
        if not isinstance(x, Tensor) and not is_shape(x):
            return x
        made = on_meta(x)
        recorder.register(made, recorder.builder.input(tuple(made.shape), f"input_{place}"))
        if isinstance(x, Tensor):
            recorder.known.add_original(made, x)
        return made

    return [mapped(x, leaf) for x in args], {k: mapped(x, leaf) for k, x in kwargs.items()}


@contextlib.contextmanager
def _ordinary_attention() -> Iterator[None]:
    """Transformers run layer by layer, not by one fused operation, nor on nested tensors."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _name_modules(module: nn.Module, scope: list[str]) -> None:
    """Lets `scope` end in the path of the module that runs."""

    def leave(*_: Any) -> None:
        scope.pop()

    for name, part in module.named_modules():
        part.register_forward_pre_hook(lambda *_, name=name: scope.append(name))
        part.register_forward_hook(leave)


def _reason(module: nn.Module, scope: str, err: Exception) -> str:
    what = f"{type(module).__name__}" + (f" (in {scope})" if scope else "")
    if _depends_on_data(err):
        asked = str(err) if isinstance(err, DataDependentError) else _short(str(err))
        return (
            f"what a network does must not depend on the values of its data, but {what} asks for "
            f"one: {asked}"
        )
    if _has_no_shape(err):
        return (
            f"the shape of what an operation returns must be known without its data, but {what} "
            f"has one that gives none (no meta kernel): {_short(str(err))}"
        )
    return (
        f"a network must run on the example, but {what} raised {type(err).__name__}: "
        f"{_short(str(err))}"
    )


def _short(text: str, longest: int = 160) -> str:
    """The first sentence of a message, without addresses in memory."""
    text = re.sub(r" (object )?at 0x[0-9a-f]+", "", text.strip().split("\n")[0])
    text = re.split(r"[.;:!?]\s+(?=[A-Z])", text)[0].rstrip(".;:!?")
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _depends_on_data(err: Exception) -> bool:
    return isinstance(err, DataDependentError) or any(word in str(err) for word in _DATA_DEPENDENT)


def _has_no_shape(err: Exception) -> bool:
    return "no fake impl" in str(err)


_DATA_DEPENDENT = (
    "on meta tensors",
    "data-dependent",
    "data-independent",
    "aten::nonzero",
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::masked_select",
    "aten::is_nonzero",
    "Tensor on device meta",
    "meta device type tensor to numpy",
    "tensor with unallocated storage",
    "Cannot copy out of meta tensor",
)
"""How PyTorch says that a meta tensor has no values."""
