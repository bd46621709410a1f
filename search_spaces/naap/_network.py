"""The networks of NAAP-440 (Hakim, 2022, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nni_aiop.search_spaces.naap._costs import CLASSES
from nni_aiop.search_spaces.naap._schemes import layers

__all__ = ["NAAPNet"]


class NAAPNet(nn.Module):
    """The network of a scheme: convolutions, global average pooling, a classifier of ten classes.

    Each convolution is without bias and followed by batch normalisation and ReLU; a skip adds its
    input behind the ReLU. Takes (B, 3, 32, 32) images and gives (B, 10) logits. Weights are drawn
    as the publisher draws them.

    Args:
        sample: A valid sample of the space; inactive labels may be missing.

    Raises:
        SpaceError: The sample is not valid.
    """

    def __init__(self, sample: Mapping[str, Any]) -> None:
        super().__init__()
        scheme = layers(sample)
        self.skips = tuple(layer.skip for layer in scheme)
        widths = [3, *(layer.width for layer in scheme)]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(
                    before,
                    layer.width,
                    layer.kernel,
                    layer.stride,
                    padding=layer.kernel // 2,
                    bias=False,
                ),
                nn.BatchNorm2d(layer.width),
                nn.ReLU(),
            )
            for before, layer in zip(widths, scheme, strict=False)
        )
        self.classifier = nn.Linear(widths[-1], CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer, skip in zip(self.layers, self.skips, strict=True):
            x = layer(x) + x if skip else layer(x)
        scores: Tensor = self.classifier(x.mean((2, 3)))
        return scores
