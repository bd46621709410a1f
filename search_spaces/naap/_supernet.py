"""The supernet of NAAP-440."""

from __future__ import annotations

from nni_aiop.search_spaces.naap._network import NAAPNet
from nni_aiop.search_spaces.naap._space import code_space
from nni_aiop.supernet import Supernet

__all__ = ["supernet"]


def supernet(*, apart: tuple[str, ...] = (), seed: int | None = None) -> Supernet:
    """The shared weights of all 440 networks: the widest four layers, their windows 3 x 3.

    It comes without data: `train_supernet` needs batches of (B, 3, 32, 32) images and ten classes.

    Args:
        apart: Labels each of whose values has weights of its own, such as `kernel_3`.
        seed: Of the weights; None draws them from PyTorch's global generator.

    Example:
        >>> from nni_aiop.search_spaces import naap
        >>> net = naap.supernet(seed=0)
        >>> tuple(net.weights["layers/3/0/weight"].shape)
        (40, 32, 3, 3)
    """
    return Supernet(code_space(), NAAPNet, apart=apart, head="classifier", seed=seed)
