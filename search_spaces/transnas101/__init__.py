"""The two spaces of TransNAS-Bench-101 (Duan et al., CVPR 2021): `micro` cells, `macro` skeletons.

Both put a searched body under the heads of seven Taskonomy tasks (`TASKS`). From the paper and the
publisher's public code come: the stem of two strided convolutions to 64 channels, the modules of
two blocks and what their types 1 to 4 do, the four operations and the wiring of a cell, the
skeleton 41414 of the micro space, the ResNet block of the macro space, the layers of the decoders,
the numbers of outputs, images of 256x256 pixels, and nine tiles of 64x64 for the jigsaw. Our
reading are: a zeroised edge that changes the shape keeps its place in the graph as zero times its
input (the publisher makes new zeros; the numbers are the same), weights start at PyTorch's
defaults, and the rules of the macro space (see `macro`), which are those of the 3,256 published
rows. There are no published costs beside these tables: the costs are those of our networks.
"""

from __future__ import annotations

from nni_aiop.search_spaces.transnas101 import macro, micro
from nni_aiop.search_spaces.transnas101._tasks import TASKS, Task

__all__ = ["TASKS", "Task", "macro", "micro"]
