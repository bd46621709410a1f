"""The seven tasks of TransNAS-Bench-101, and the decoders of those that give an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["TASKS", "DecoderLayer", "Task", "decoder_layers", "task_of"]


@dataclass(frozen=True)
class Task:
    """What stands on the body.

    Attributes:
        head: "linear" on the mean of the features, or a decoder up to the image's size:
            "segmentation", or "generative", which ends in tanh.
        n_outputs: Numbers per image, or channels of the output image.
        image_size: Side of what the body sees, in pixels.
        n_pieces: How many of those it sees per sample; their features are joined.
    """

    head: Literal["linear", "segmentation", "generative"]
    n_outputs: int
    image_size: int = 256
    n_pieces: int = 1


TASKS: dict[str, Task] = {
    "class_scene": Task("linear", 47),
    "class_object": Task("linear", 75),
    "room_layout": Task("linear", 9),
    "jigsaw": Task("linear", 1000, image_size=64, n_pieces=9),
    "segmentsemantic": Task("segmentation", 17),
    "normal": Task("generative", 3),
    "autoencoder": Task("generative", 3),
}


def task_of(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: The name is unknown.
    """
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, but got {name!r}.")
    return TASKS[name]


@dataclass(frozen=True)
class DecoderLayer:
    """A 3x3 convolution to so many channels, transposed with stride 2 where it doubles the side."""

    channels: int
    doubles: bool


def decoder_layers(task: Task, n_halvings: int) -> list[DecoderLayer]:
    """The layers of a decoder; the last has neither normalisation nor LeakyReLU.

    Args:
        task: One whose head is a decoder.
        n_halvings: How often the modules of the body halve the image, 1 to 4; the stem does so
            twice more.
    """
    n_doublings = n_halvings + 2
    if task.head == "segmentation":
        widths = [1024, 512, 256, 128, 64, 32, 32]
        candidates = tuple(range(len(widths)))
    else:
        widths = [1024, 1024, 512, 512, 256, 128, 64, 64, 32, 32, 16, 32, 16]
        candidates = (2, 4, 6, 8, 10, 12)
    doubling = candidates[-n_doublings:]
    return [
        *(DecoderLayer(width, place in doubling) for place, width in enumerate(widths)),
        DecoderLayer(task.n_outputs, doubles=False),
    ]
