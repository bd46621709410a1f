#!/usr/bin/env bash
# PyTorch's grouped_mm refuses float32 on the meta device, and FlopCounterMode counts it as nothing.
#
# torch 2.13.0: torch.nn.functional.grouped_mm(rows, experts, offs=...) takes float32 and bfloat16 on
# the CPU; on meta tensors it raises "Expected inputs of BF16 type" for float32 and gives the shape
# for bfloat16. FlopCounterMode has no formula for it: 0 operations where the same products written
# as three linear layers count 1,536. So a mixture of experts in float32 that is written with it, as
# those of transformers 5 are, fails where shapes are asked for on the meta device, and elsewhere
# counts without its experts, most of what it computes. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0
"$folder/env/bin/pip" install --quiet numpy
cd "$folder"
env/bin/python - <<'PYTHON'
import torch
from torch.nn.functional import grouped_mm, linear
from torch.utils.flop_counter import FlopCounterMode


def shape(device, dtype):
    rows = torch.zeros(6, 16, device=device, dtype=dtype)
    experts = torch.zeros(3, 16, 8, device=device, dtype=dtype)
    ends = torch.tensor([2, 4, 6], device=device, dtype=torch.int32)
    try:
        return tuple(grouped_mm(rows, experts, offs=ends).shape)
    except RuntimeError as err:
        return str(err).split(" but ")[0]


found = {(d, t): shape(d, t) for d in ("cpu", "meta") for t in (torch.float32, torch.bfloat16)}
for (device, dtype), told in found.items():
    print(device, dtype, told)
good, bad = (6, 8), "Expected inputs of BF16 type"
assert list(found.values()) == [good, good, bad, good]
rows, experts = torch.zeros(6, 16), torch.zeros(3, 16, 8)
with FlopCounterMode(display=False) as grouped:
    grouped_mm(rows, experts, offs=torch.tensor([2, 4, 6], dtype=torch.int32))
with FlopCounterMode(display=False) as single:
    for some, weights in zip(rows.split(2), experts, strict=True):
        linear(some, weights.T)
print("counted:", grouped.get_total_flops(), "as linear layers:", single.get_total_flops())
assert (grouped.get_total_flops(), single.get_total_flops()) == (0, 2 * 6 * 16 * 8)
PYTHON
