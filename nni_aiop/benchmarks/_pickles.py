"""Reading the publishers' pickles without ever unpickling.

A pickle is a program, and Python's own `pickle` runs it. Here only the opcodes that build plain
data (lists, dicts, tuples, numbers, text, bytes) are carried out, by the small machine below; a
global is admitted by name only, and stands for one of our own constructors, never for the object
of that name. So nothing that a file says is ever called, and memory grows at most in proportion
to the file.
"""

from __future__ import annotations

import io
import os
import pickletools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nni_aiop.errors import FileFormatError

__all__ = ["NUMPY", "Array", "load_plain", "parse_plain"]

MAX_BYTES = 32 * 2**20
"""The benchmarks' files have 1 to 3 MiB."""

MAX_OPCODES = 5_000_000
"""They have half a million; an opcode of one byte can cost a hundred bytes of memory."""

Global = tuple[str, str]
"""Module and name."""


# fmt: off
_ADMITTED = {
    "BININT1", "BININT2", "BININT", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES",
    "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "MARK", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "NONE", "NEWTRUE", "NEWFALSE",
    "APPEND", "APPENDS", "SETITEM", "SETITEMS",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "PROTO", "FRAME", "STOP",
}
# fmt: on
_OPCODES = {
    opcode.code.encode("latin-1"): (opcode.name, opcode.arg.reader if opcode.arg else None)
    for opcode in pickletools.opcodes
    if opcode.name in _ADMITTED
}
"""Byte -> name and reader of the argument. What is not here is refused before it is read."""


class _Buildable(Protocol):
    def build(self, state: object) -> None:
        """Takes the state that a pickle keeps apart from the constructor's arguments."""


Constructor = Callable[..., _Buildable]


class Array:
    """A NumPy array as a pickle describes it; `values` is there once its state was read."""

    values: NDArray[Any] | None = None

    def __init__(self, kind: object = None, shape: object = None, code: object = None) -> None:
        if not isinstance(kind, _Name) or kind.path[1] != "ndarray" or shape != (0,):
            raise ValueError("it makes an array of an unknown kind")

    def build(self, state: object) -> None:
        match state:
            case (int(), tuple() as shape, DType() as dtype, bool() as fortran, bytes() as data):
                pass
            case _:
                raise ValueError("it gives an array an unknown state")
        if not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 4:
            raise ValueError("it gives an array an impossible shape")
        # frombuffer and reshape hold the data to the shape, so a wrong size is an error of theirs.
        values = np.frombuffer(data, dtype=dtype.numpy)
        self.values = values.reshape(shape, order="F" if fortran else "C")


class DType:
    """A NumPy number type as a pickle describes it."""

    def __init__(self, name: object = None, align: object = False, copy: object = True) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[fiu][248]|[iu]1|b1", name):
            shown = repr(name[:20]) if isinstance(name, str) else "none"
            raise ValueError(f"its arrays must hold plain numbers, but one has the type {shown}")
        self.numpy = np.dtype(name)

    def build(self, state: object) -> None:
        match state:
            case (int(), "<" | ">" | "|" | "=" as order, None, None, None, *_):
                self.numpy = self.numpy.newbyteorder(order)
            case _:
                raise ValueError("it gives a number type an unknown state")


class _Name:
    """A global that is only handed on as an argument."""

    def __init__(self, path: Global) -> None:
        self.path = path


NUMPY: dict[Global, Constructor | None] = {
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy", "dtype"): DType,
    ("numpy", "ndarray"): None,
}
"""The globals of pickled NumPy arrays; None is for a name that is not called."""


def load_plain(
    path: str | os.PathLike[str], *, admitted: Mapping[Global, Constructor | None] | None = None
) -> object:
    """The plain data of a pickle: lists, dicts with text keys, tuples, numbers, text, bytes.

    Args:
        path: The file.
        admitted: Globals that may occur, and what stands for each; none by default.

    Raises:
        FileFormatError: The file is truncated, damaged, too big, or no pickle of plain data.
        OSError: The file cannot be read.
    """
    file = Path(path)
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise FileFormatError(f"{file} must have at most {MAX_BYTES} bytes, but has {size}.")
    return parse_plain(file.read_bytes(), str(file), admitted=admitted)


def parse_plain(
    data: bytes, name: str, *, admitted: Mapping[Global, Constructor | None] | None = None
) -> object:
    """The plain data of a pickle in memory, called `name` where it is refused; see `load_plain`.

    Raises:
        FileFormatError: As `load_plain`.
    """
    cause: Exception
    try:
        return _run(data, admitted or {})
    except IndexError as err:
        reason, cause = "it takes more from its stack than there is", err
    except KeyError as err:
        reason, cause = "it recalls a value that it has not stored", err
    except (ValueError, TypeError, OverflowError) as err:
        reason, cause = " ".join(str(err).split())[:200], err
    raise FileFormatError(
        f"{name} must be a whole pickle of plain data, but is not: {reason}."
    ) from cause


def _run(data: bytes, admitted: Mapping[Global, Constructor | None]) -> object:
    """Carries out the opcodes; whatever is wrong with them raises an error of `load_plain`."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def put(target: object, items: list[Any]) -> None:
        if type(target) is not dict or len(items) % 2:
            raise ValueError("it sets items of something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only text: hashing a deeply nested key would exhaust the interpreter's own stack.
            if type(key) is not str:
                raise ValueError(f"a key must be text, but one is of type {type(key).__name__}")
            target[key] = value

    def extend(target: object, items: list[Any]) -> None:
        if type(target) is not list:
            raise ValueError("it appends to something that is no list")
        target.extend(items)

    def named(module: object, name: object) -> _Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("it names a global by something that is no text")
        if (module, name) not in admitted:
            raise ValueError(f"it names the global {module[:60]}.{name[:60]}")
        return _Name((module, name))

    def call(function: object, arguments: object) -> object:
        constructor = admitted[function.path] if isinstance(function, _Name) else None
        if constructor is None or type(arguments) is not tuple:
            raise ValueError("it calls something that is no admitted global")
        return constructor(*arguments)

    stream = io.BytesIO(data)
    for _ in range(MAX_OPCODES):
        opcode = _OPCODES.get(stream.read(1))
        if opcode is None:
            raise ValueError(f"byte {stream.tell()} is no admitted opcode")
        name, read = opcode
        argument: Any = None if read is None else read(stream)
        match name:
            case "BININT1" | "BININT2" | "BININT" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES":
                stack.append(argument)
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "APPEND":
                item = stack.pop()
                extend(stack[-1], [item])
            case "APPENDS":
                items = since_mark()
                extend(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                put(stack[-1], [key, value])
            case "SETITEMS":
                items = since_mark()
                put(stack[-1], items)
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(items)))
            case "GLOBAL":
                module, _, attribute = str(argument).partition(" ")
                stack.append(named(module, attribute))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(named(module, attribute))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(call(function, arguments))
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], Array | DType):
                    raise ValueError("it gives a state to something that has none")
                stack[-1].build(state)
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                if len(stack) != 1 or marks or stream.tell() != len(data):
                    raise ValueError("it stops before its end")
                return stack[0]
    raise ValueError(f"it has more than {MAX_OPCODES} opcodes")
