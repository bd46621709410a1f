"""A trained network to shrink on NNI or on Optuna:  nni-aiop run examples/nni_shrink_digits.yml

`space` has the edits of the network of `shrink_digits.py`, and `measure` fine-tunes one of them.
"""

from functools import cache

import torch
from shrink_digits import accuracy, fit, residual_network, splits

from nni_aiop.search_spaces.network import NetworkSpace


@cache
def make():
    """The trained network: a seed makes it the same one in every process."""
    torch.manual_seed(0)
    network = residual_network()
    fit(network, splits(), epochs=4, rate=0.1, seed=0)
    return network


def batches():
    """Calibration batches: validation images, on which edits are measured."""
    images, labels = splits()["validation"]
    return list(zip(images.split(100), labels.split(100), strict=True))


@cache
def space():
    return NetworkSpace("shrink_space:make", (1, 1, 8, 8), batches="shrink_space:batches")


def measure(sample, epochs=1):
    """Validation and test accuracy in percent of the edited network, fine-tuned."""
    network, data = space().network(sample), splits()
    fit(network, data, epochs, rate=0.02, seed=0)
    return {part: accuracy(network, data, part) for part in ("validation", "test")}
