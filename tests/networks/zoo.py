"""Small networks, each of another kind, for the tests of networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_aiop.networks import Network

Made = tuple[nn.Module, tuple[Tensor, ...]]
"""A network and inputs for it."""

ZOO: dict[str, Callable[[], Made]] = {}


def _enter(make: Callable[[], Made]) -> Callable[[], Made]:
    ZOO[make.__name__] = make
    return make


def image(channels: int = 3, size: int = 16) -> Tensor:
    return torch.rand(1, channels, size, size)


def conv_bn(c: int, out: int, k: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c, out, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


def head(c: int, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))


# --- convolutional networks --------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, c: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_bn(c, out, stride=stride)
        self.second = conv_bn(out, out)
        other = stride > 1 or c != out
        self.shortcut = conv_bn(c, out, 1, stride=stride) if other else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x), inplace=True))
        y += self.shortcut(x)
        return F.relu(y, inplace=True)


@_enter
def residual() -> Made:
    blocks = [Residual(16, 16), Residual(16, 32, 2), Residual(32, 32), Residual(32, 32)]
    return nn.Sequential(conv_bn(3, 16), nn.ReLU(), *blocks, head(32)), (image(),)


class ZeroPadded(nn.Module):
    """A shortcut as of ResNet on CIFAR (option A): every other pixel, zeros for new channels."""

    def __init__(self, c: int, out: int) -> None:
        super().__init__()
        self.first = conv_bn(c, out, stride=2)
        self.second = conv_bn(out, out)
        self.more = out - c

    def forward(self, x: Tensor) -> Tensor:
        side = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(self.second(F.relu(self.first(x))) + side)


@_enter
def zero_padded() -> Made:
    parts = [conv_bn(3, 16), nn.ReLU(), ZeroPadded(16, 32), Residual(32, 32), head(32)]
    return nn.Sequential(*parts), (image(),)


class Squeeze(nn.Module):
    def __init__(self, c: int, inner: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(c, inner, 1)
        self.expand = nn.Conv2d(inner, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(y)


class Inverted(nn.Module):
    def __init__(self, c: int, out: int, k: int, stride: int = 1) -> None:
        super().__init__()
        wide = 2 * c
        self.body = nn.Sequential(
            conv_bn(c, wide, 1),
            nn.Hardswish(),
            conv_bn(wide, wide, k, stride=stride, groups=wide),
            nn.ReLU6(),
            Squeeze(wide, 8),
            conv_bn(wide, out, 1),
        )
        self.adds = stride == 1 and c == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


@_enter
def mobile() -> Made:
    blocks = [Inverted(16, 16, 5), Inverted(16, 24, 3, 2), Inverted(24, 24, 5), Inverted(24, 24, 7)]
    return nn.Sequential(conv_bn(3, 16), nn.Hardswish(), *blocks, head(24)), (image(),)


class Dense(nn.Module):
    def __init__(self, c: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(c + i * growth),
                nn.ReLU(),
                nn.Conv2d(c + i * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        return torch.cat(found, 1)


@_enter
def dense() -> Made:
    body = [nn.Conv2d(3, 16, 3), Dense(16, 8, 3), conv_bn(40, 16, 1), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*body, Dense(16, 8, 2), nn.BatchNorm2d(32), head(32)), (image(),)


@_enter
def grouped() -> Made:
    body = [
        conv_bn(3, 32),
        nn.ReLU(),
        conv_bn(32, 32, groups=4),
        nn.ReLU(),
        conv_bn(32, 48, 1),
        nn.GroupNorm(6, 48),
        nn.SiLU(),
        nn.Conv2d(48, 96, 3, groups=48),
        nn.PReLU(96),
    ]
    return nn.Sequential(*body, head(96)), (image(),)


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, and then both halves are mixed."""

    def __init__(self, c: int) -> None:
        super().__init__()
        half = c // 2
        self.branch = nn.Sequential(
            conv_bn(half, half, 1),
            nn.ReLU(),
            conv_bn(half, half, groups=half),
            conv_bn(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        y = torch.cat((a, F.relu(self.branch(b))), 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


@_enter
def shuffle() -> Made:
    parts = [conv_bn(3, 32), nn.ReLU(), Shuffle(32), Shuffle(32), conv_bn(32, 24, 1), head(24)]
    return nn.Sequential(*parts), (image(),)


class Decoder(nn.Module):
    """Down, up by transposed convolutions, and joined with what was there before (U-Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv_bn(3, 16)
        self.down = conv_bn(16, 32, stride=2)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.each = nn.ConvTranspose2d(16, 16, 3, padding=1, groups=16)
        self.last = nn.Conv2d(32, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.first(x))
        b = F.relu(self.each(self.up(F.relu(self.down(a)))))
        return self.last(torch.cat([a, b], 1))


@_enter
def decoder() -> Made:
    return Decoder(), (image(),)


@_enter
def pixel_shuffle() -> Made:
    parts = [nn.Conv2d(3, 16, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(16, 64, 3, padding=1)]
    up = [nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.PixelUnshuffle(2)]
    return nn.Sequential(*parts, *up, nn.Conv2d(64, 3, 1)), (image(3, 8),)


class NextBlock(nn.Module):
    """ConvNeXt's block: a LayerNorm over channels that a permutation moved, and a layer scale."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(c, c, 7, padding=3, groups=c)
        self.norm = nn.LayerNorm(c, eps=1e-6)
        self.wide = nn.Linear(c, 2 * c)
        self.narrow = nn.Linear(2 * c, c)
        self.scale = nn.Parameter(torch.rand(c))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.mix(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(F.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


@_enter
def next_block() -> Made:
    stem = nn.Conv2d(3, 32, 4, 4)
    return nn.Sequential(stem, NextBlock(32), NextBlock(32), head(32)), (image(3, 32),)


class Attentive(nn.Module):
    """Gates over positions, and multiplied halves of channels (NAFNet)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(c, 2 * c, 1)
        self.spatial = nn.Conv2d(c, 1, 3, padding=1)
        self.narrow = nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.wide(x).split([x.shape[1], x.shape[1]], 1)
        y = a * torch.sigmoid(b)
        return x + self.narrow(y * self.spatial(y).sigmoid())


@_enter
def gated_halves() -> Made:
    parts = [nn.Conv2d(3, 16, 3), Attentive(16), Attentive(16), nn.Conv2d(16, 32, 1), nn.GLU(1)]
    return nn.Sequential(*parts, head(16)), (image(),)


# --- transformers ------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    def __init__(self, c: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.scale = (c // heads) ** -0.5
        self.qkv = nn.Linear(c, 3 * c)
        self.proj = nn.Linear(c, c)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    def __init__(self, c: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.attention = SelfAttention(c, heads, fused=fused)
        self.mlp = nn.Sequential(
            nn.Linear(c, 2 * c), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * c, c)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, c: int = 48, heads: int = 4, patch: int = 4, size: int = 16) -> None:
        super().__init__()
        n = (size // patch) ** 2
        self.patch = nn.Conv2d(3, c, patch, patch)
        self.token = nn.Parameter(torch.rand(1, 1, c))
        self.position = nn.Parameter(torch.rand(1, n + 1, c))
        self.blocks = nn.Sequential(Block(c, heads, fused=True), Block(c, heads, fused=False))
        self.norm = nn.LayerNorm(c)
        self.head = nn.Linear(c, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1) + self.position
        return self.head(self.norm(self.blocks(y))[:, 0])


@_enter
def vit() -> Made:
    return ViT(), (image(),)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 32)
        layer = {"dim_feedforward": 64, "batch_first": True}
        self.first = nn.TransformerEncoderLayer(32, 4, **layer)
        self.second = nn.TransformerEncoderLayer(32, 4, norm_first=True, activation="gelu", **layer)
        self.cross = nn.MultiheadAttention(32, 4, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(self.embed(x)))
        z, _ = self.cross(y[:, :1], y, y, need_weights=False)
        return self.head(z[:, 0])


@_enter
def encoder() -> Made:
    return Encoder(), (torch.rand(1, 7, 12),)


class Language(nn.Module):
    """A small language model whose output layer is its embedding."""

    def __init__(self, words: int = 50, c: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, c)
        self.block = Block(c, 4, fused=True)
        self.gate = nn.Linear(c, 2 * c)
        self.down = nn.Linear(c, c)
        self.norm = nn.RMSNorm(c)
        self.last = nn.Linear(c, words, bias=False)
        self.last.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.block(self.embedding(words))
        a, b = self.gate(x).chunk(2, -1)
        return self.last(self.norm(x + self.down(F.silu(a) * b)))


@_enter
def language() -> Made:
    return Language(), (torch.arange(9)[None],)


# --- other shapes ------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16))
        self.lstm = nn.LSTM(16, 24, batch_first=True)
        self.after = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 3))

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(self.before(x))
        return self.after(y[:, -1])


@_enter
def recurrent() -> Made:
    return Recurrent(), (torch.rand(1, 5, 6),)


class Several(nn.Module):
    """Two inputs, and a record of results."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(conv_bn(3, 32), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten())
        self.number = nn.Sequential(nn.Linear(6, 16), nn.Tanh())
        self.both = nn.Sequential(nn.Linear(32 * 4 + 16, 40), nn.ReLU())
        self.classes, self.box = nn.Linear(40, 5), nn.Linear(40, 4)

    def forward(self, picture: Tensor, numbers: Tensor) -> dict[str, Tensor | tuple[Tensor, ...]]:
        x = self.both(torch.cat([self.image(picture), self.number(numbers)], 1))
        return {"classes": self.classes(x), "parts": (self.box(x), x[:, :4])}


@_enter
def several() -> Made:
    return Several(), (image(3, 8), torch.rand(1, 6))


class Pyramid(nn.Module):
    """A tuple of maps, the coarse ones enlarged and added to the fine ones (FPN)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv_bn(3, 16), conv_bn(16, 32, stride=2)
        self.side1, self.side2 = nn.Conv2d(16, 24, 1), nn.Conv2d(32, 24, 1)
        self.out = nn.Conv2d(24, 6, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = F.relu(self.first(x))
        b = self.side2(F.relu(self.second(a)))
        up = F.interpolate(b, scale_factor=2.0, mode="nearest")
        return self.out(self.side1(a) + up), self.out(b)


@_enter
def pyramid() -> Made:
    return Pyramid(), (image(),)


class Lines(nn.Module):
    """One-dimensional, dilated, gated by what another convolution says (WaveNet)."""

    def __init__(self, c: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, c, 1)
        self.filters = nn.ModuleList(
            nn.Conv1d(c, 2 * c, 3, dilation=2**i, padding=2**i) for i in range(2)
        )
        self.mixes = nn.ModuleList(nn.Conv1d(c, c, 1) for _ in range(2))
        self.last = nn.Conv1d(c, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for layer, mix in zip(self.filters, self.mixes, strict=True):
            a, b = layer(y).chunk(2, 1)
            y = y + mix(a.tanh() * b.sigmoid())
        return self.last(y)


@_enter
def lines() -> Made:
    return Lines(), (torch.rand(1, 2, 20),)


@_enter
def volumes() -> Made:
    body = [nn.Conv3d(1, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(), nn.MaxPool3d(2)]
    last = [nn.Conv3d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 8, 5)]
    return nn.Sequential(*body, *last), (torch.rand(1, 1, 8, 8, 8),)


def made(name: str, seed: int = 0) -> Made:
    """A network of the zoo, in evaluation mode, with statistics as after some training."""
    torch.manual_seed(seed)
    model, inputs = ZOO[name]()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 1.5)
                part.weight.normal_(1, 0.3)
                part.bias.normal_(0, 0.3)
    return model.eval(), inputs


@cache
def captured(name: str) -> Network:
    """The network of a network of the zoo, not to be changed."""
    return Network.capture(*made(name))


def batch_of(inputs: tuple[Tensor, ...], n: int, seed: int = 1) -> tuple[Tensor, ...]:
    """Inputs of another batch size, and other numbers."""
    rng = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn((n, *x.shape[1:]), generator=rng)
        if x.is_floating_point()
        else torch.randint(0, int(x.max()) + 1, (n, *x.shape[1:]), generator=rng)
        for x in inputs
    )
