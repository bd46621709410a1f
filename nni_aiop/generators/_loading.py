"""Reading a trained generator from its file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nni_aiop.errors import FileFormatError
from nni_aiop.files import read_described, whole
from nni_aiop.generators._files import exact_costs
from nni_aiop.generators._generator import _FORMAT, _VERSION, ParetoGenerator
from nni_aiop.generators._training import TrainingOptions
from nni_aiop.predictors import BudgetGrid

if TYPE_CHECKING:
    from nni_aiop.spaces import CodeSpace

__all__ = ["load_generator"]


def load_generator(path: str | os.PathLike[str], space: CodeSpace) -> ParetoGenerator:
    """The trained generator of a file that `save` wrote; it generates the same architectures.

    Args:
        path: A .safetensors file.
        space: The space it was trained on, with the same costs.

    Raises:
        FileFormatError: The file is truncated, changed, of another version or another space.
        SpaceError: The space lacks a cost of the generator.
        OSError: There is no such file.
    """
    content, tensors = read_described(
        path, "generator", kind=_FORMAT, version=_VERSION, what="a generator's file"
    )
    with whole(path, "a generator", tensors):
        if content["space"] != space.fingerprint:
            raise FileFormatError(
                f"{path} must be of the space {space.name}, but was trained on another one, "
                f"{content['space_name']}."
            )
        generator = ParetoGenerator(
            space,
            BudgetGrid(content["levels"]),
            hidden=content["hidden"],
            training=TrainingOptions(**content["training"]),
            evaluator=content["evaluator"],
            seed=content["seed"],
        )
        generator.book.load_state(content.get("known_costs", {}))  # earlier files have none
        if content["costs"] != exact_costs(space, generator.grid.names):
            raise FileFormatError(
                f"{path} must be of a space with the same costs, but {space.name} has others: "
                "another width, resolution or latency table, maybe."
            )
        policy = generator._new_policy()
        policy.load_arrays(
            {k.removeprefix("policy."): v for k, v in tensors.items() if k.startswith("policy.")}
        )
        if content["has_evaluator"]:
            generator.evaluator_ = generator._restored_evaluator(tensors)
        generator._keep(policy)
    return generator
