"""A model space of one's own, as NNI's users write them, and a function that measures its networks.

The other `*_user_space` examples search it. Nothing here knows nni_aiop.
"""

import nni
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear, Repeat
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn


class UserSpace(ModelSpace):
    def __init__(self):
        super().__init__()
        width = nni.choice("width", [8, 16, 32, 64])
        self.stem = MutableLinear(64, width)
        self.activation = LayerChoice([nn.ReLU(), nn.Tanh(), nn.Sigmoid()], label="activation")
        block = nn.Sequential(MutableLinear(width, width), nn.ReLU())
        self.blocks = Repeat(block, (0, 3), label="depth")
        self.head = MutableLinear(width, 10)

    def forward(self, pixels):
        return self.head(self.blocks(self.activation(self.stem(pixels))))


def evaluate(sample, epochs=30, seed=0):
    """Validation accuracy in percent after full-batch training for a fraction of a second."""
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = torch.tensor(pixels / 16).float(), torch.tensor(labels)
    train, validation = train_test_split(
        torch.arange(len(labels)), test_size=0.4, stratify=labels, random_state=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UserSpace().freeze(sample)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(epochs):
        loss = nn.functional.cross_entropy(network(pixels[train]), labels[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    hits = network(pixels[validation]).argmax(dim=1) == labels[validation]
    return 100 * hits.float().mean().item()
