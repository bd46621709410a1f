"""Ready search spaces: each has codes, exact costs, compute graphs, and its networks.

Every space is a module with `code_space() -> CodeSpace`, free of any engine, and a class that
is an NNI ModelSpace with the same labels in the same order (there when NNI is installed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop.errors import SpaceError

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace
    from nni_aiop.supernet import Supernet

__all__ = ["SPACES", "SUPERNETS", "get_space", "get_supernet"]

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

SUPERNETS: dict[str, str] = {
    "digits": "nni_aiop.search_spaces.digits:supernet",
    "mobilenetv3": "nni_aiop.search_spaces.mobilenetv3:supernet",
    "naap": "nni_aiop.search_spaces.naap:supernet",
    "nasbench201": "nni_aiop.search_spaces.nasbench201:supernet",
}
"""Of each ready space that has one, by its name: what makes its supernet."""


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


def get_supernet(name: str, *, seed: int | None = None) -> Supernet:
    """The supernet of a ready space, or of a user's own, untrained.

    Args:
        name: A key of `SUPERNETS`, or `module:attribute`, where the attribute is a Supernet or an
            NNI ModelSpace, or something to call without arguments that returns either. The module
            is imported: name only modules that you trust.
        seed: Of the weights of a ready space's one.

    Raises:
        AiopError: The name leads nowhere.
        SpaceError: The name is unknown, or does not lead to a supernet.
        MissingPackageError: It needs a package that is not installed.

    Example:
        >>> get_supernet("naap", seed=0).largest["width_4"]
        40
    """
    from nni_aiop.engines._references import load_object

    if name in SUPERNETS:
        found: Supernet = load_object(SUPERNETS[name])(seed=seed)
        return found
    if ":" not in name:
        raise SpaceError(
            f"a supernet must be one of {', '.join(sorted(SUPERNETS))} or module:attribute, "
            f"but got {name!r}."
        )
    from nni_aiop.engines.nni_supernet import as_supernet

    return as_supernet(name)
