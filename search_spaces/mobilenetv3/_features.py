"""What a predictor reads of a once-for-all network beside its raw code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop.search_spaces.mobilenetv3._codes import Resolution, choices_of
from nni_aiop.search_spaces.mobilenetv3._costs import macs, params, unit_costs

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["features"]


def features(codes: Tensor, *, width: float = 1.0, resolution: Resolution = 224) -> Tensor:
    """Features of codes for predictors: (n, 45) in [0, 1] -> (n, 67), differentiable.

    Of each of the twenty positions the kernel and the expansion, 0 where the depth does not reach
    it; of each unit their means over its blocks, its depth, and the logarithms of its parameters
    and MACs; the logarithms of the network's parameters and MACs. Networks that are equal have
    equal features, whatever stands at their inactive positions.

    Args:
        codes: (n, 45) codes, or (n, 46) where there are several resolutions.
        width: Width multiplier, 1.0 or 1.2.
        resolution: That of the code space.

    Raises:
        ValueError: The shape, the width or the resolution is wrong.
    """
    import torch

    choices = choices_of(codes, resolution)
    unit_params, unit_macs = unit_costs(choices, width=width)
    kernel, expand = choices.gate * choices.kernel, choices.gate * choices.expand
    totals = [count(codes, width=width, resolution=resolution) for count in (params, macs)]
    return torch.cat(
        [
            kernel.flatten(1) / 7,
            expand.flatten(1) / 6,
            kernel.sum(2) / choices.depth / 7,
            expand.sum(2) / choices.depth / 6,
            choices.depth / 4,
            torch.log(unit_params) - 12,
            torch.log(unit_macs) - 17,
            torch.log(torch.stack(totals, dim=1)) - 17,
        ],
        dim=1,
    )
