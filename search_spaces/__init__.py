"""Ready search spaces: each has codes, exact costs, compute graphs, and its networks.

Every space is a module with `code_space() -> CodeSpace`, free of any engine, and a class that
is an NNI ModelSpace with the same labels in the same order (there when NNI is installed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop.errors import SpaceError

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace

__all__ = ["SPACES", "get_space"]

SPACES: dict[str, str] = {
    "digits": "nni_aiop.search_spaces.digits:DigitsSpace",
    "mobilenetv3": "nni_aiop.search_spaces.mobilenetv3:MobileNetV3Space",
    "multi_resolution": "nni_aiop.search_spaces.multi_resolution:MultiResolutionSpace",
    "naap": "nni_aiop.search_spaces.naap:NAAPSpace",
    "nasbench101": "nni_aiop.search_spaces.nasbench101:NASBench101Space",
    "nasbench201": "nni_aiop.search_spaces.nasbench201:NASBench201Space",
    "transnas101_macro": "nni_aiop.search_spaces.transnas101.macro:TransNASMacroSpace",
    "transnas101_micro": "nni_aiop.search_spaces.transnas101.micro:TransNASMicroSpace",
}
"""Of each ready space, by its name: its module, and there its NNI ModelSpace."""


def get_space(name: str) -> CodeSpace:
    """The code space of a ready space, or of a user's own.

    Args:
        name: A key of `SPACES`, or `module:attribute`, where the attribute is a CodeSpace, an NNI
            ModelSpace, or something to call without arguments that returns either. The module
            is imported: name only modules that you trust.

    Raises:
        SpaceError: The name is unknown, or does not lead to a CodeSpace.
        MissingPackageError: The space needs a package that is not installed.

    Example:
        >>> get_space("nasbench201").labels
        ('op_01', 'op_02', 'op_12', 'op_03', 'op_13', 'op_23')
    """
    # Here, so that the names alone, which a shell completes, take no time.
    from nni_aiop.engines.nni_space import as_code_space

    if name in SPACES:
        module = SPACES[name].partition(":")[0]
        return as_code_space(f"{module}:code_space")
    if ":" not in name:
        raise SpaceError(
            f"a space must be one of {', '.join(sorted(SPACES))} or module:attribute, "
            f"but got {name!r}."
        )
    return as_code_space(name)
