"""Small convolutional networks on scikit-learn's digits, each really trained in about a second.

`code_space()` is the space; `build` makes the network of a sample; `train_and_evaluate` trains it
and measures it. `DigitsSpace` (an NNI ModelSpace) and `DigitsEvaluator` are the same for NNI, and
need it.

Example:
    >>> from nni_aiop.search_spaces import digits
    >>> space = digits.code_space()
    >>> len(space), space.width
    (14, 28)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_aiop._lazy import lazy_names
from nni_aiop.search_spaces.digits._costs import features, flops, params
from nni_aiop.search_spaces.digits._graphs import graph
from nni_aiop.search_spaces.digits._space import code_space

if TYPE_CHECKING:
    from nni_aiop.search_spaces.digits._network import DigitsNetwork, build
    from nni_aiop.search_spaces.digits._nni import DigitsEvaluator as DigitsEvaluator
    from nni_aiop.search_spaces.digits._nni import DigitsSpace as DigitsSpace
    from nni_aiop.search_spaces.digits._supernet import supernet, supernet_data
    from nni_aiop.search_spaces.digits._training import EPOCHS, load_split, train_and_evaluate

__all__ = [
    "EPOCHS",
    "DigitsNetwork",
    "build",
    "code_space",
    "features",
    "flops",
    "graph",
    "load_split",
    "params",
    "supernet",
    "supernet_data",
    "train_and_evaluate",
]

# Imported when first asked for: the space itself needs neither PyTorch nor NNI.
_LAZY = {
    "DigitsEvaluator": "nni_aiop.search_spaces.digits._nni",
    "DigitsNetwork": "nni_aiop.search_spaces.digits._network",
    "DigitsSpace": "nni_aiop.search_spaces.digits._nni",
    "EPOCHS": "nni_aiop.search_spaces.digits._training",
    "build": "nni_aiop.search_spaces.digits._network",
    "load_split": "nni_aiop.search_spaces.digits._training",
    "supernet": "nni_aiop.search_spaces.digits._supernet",
    "supernet_data": "nni_aiop.search_spaces.digits._supernet",
    "train_and_evaluate": "nni_aiop.search_spaces.digits._training",
}

__getattr__ = lazy_names(__name__, _LAZY)
