"""The rules of code spaces for NNI's ModelSpaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni_aiop.engines._nni import importing_nni
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal

with importing_nni():
    from nni.mutable import Categorical, ConstraintViolation, SampleValidationError
    from nni.nas.nn.pytorch import ModelSpace

__all__ = ["add_dimensions", "violation"]


def add_dimensions(model_space: ModelSpace, codes: CodeSpace) -> None:
    """Adds the nominal and ordinal dimensions of a code space as NNI's, in their order."""
    for dimension in codes.dimensions:
        assert isinstance(dimension, Nominal | Ordinal)
        model_space.add_mutable(Categorical(list(dimension.values), label=dimension.label))


def violation(codes: CodeSpace, sample: Mapping[str, Any]) -> SampleValidationError | None:
    """What makes a sample invalid, or None; inactive labels may be missing, others be there."""
    own = {label: value for label, value in sample.items() if label in codes.labels}
    broken = codes.violation(own)
    return None if broken is None else ConstraintViolation(broken)
