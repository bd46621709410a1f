#!/usr/bin/env bash
# Four counters of multiply-adds give four figures for one attention block, and none is right.
#
# fvcore 0.1.5.post20221221, thop 0.1.1.post2209072238, ptflops 0.7.5, torchinfo 1.8.0, torch 2.13.0:
# a LayerNorm, a Linear for queries, keys and values, the attention and a Linear, of 10 tokens of 16
# numbers, have 13,440 multiply-adds in products, 3,200 of them in the attention.
#                         written with @ and softmax    with scaled_dot_product_attention
#   fvcore                14,240                        11,040   adds the norm, skips the attention
#   thop                  10,880                        10,880   adds the norm, skips @ and attention
#   ptflops               10,400                        10,400   adds the norm, skips @ and attention
#   torchinfo             1,056                         1,056    weights once, for any count of tokens
# So figures of two papers, or of two ways to write one network, cannot be compared before it is known
# who counted. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0
"$folder/env/bin/pip" install --quiet numpy fvcore==0.1.5.post20221221 thop==0.1.1.post2209072238 \
    ptflops==0.7.5 torchinfo==1.8.0
cd "$folder"
env/bin/python - <<'PYTHON'
import contextlib
import io
import logging
import warnings

import fvcore.nn
import ptflops
import thop
import torch
import torchinfo
from torch import nn

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
TOKENS, WIDTH, HEADS = 10, 16, 2


class Block(nn.Module):
    def __init__(self, fused, tokens=TOKENS):
        super().__init__()
        self.fused, self.tokens = fused, tokens
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        parts = self.qkv(self.norm(x)).reshape(1, self.tokens, 3, HEADS, WIDTH // HEADS)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if self.fused:
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(1, self.tokens, WIDTH))


def counts(fused):
    net, x = Block(fused).eval(), torch.zeros(1, TOKENS, WIDTH)
    found = {
        "fvcore": fvcore.nn.FlopCountAnalysis(net, x).total(),
        "torchinfo": torchinfo.summary(net, input_data=x, verbose=0).total_mult_adds,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        found["ptflops"] = ptflops.get_model_complexity_info(
            net, (TOKENS, WIDTH), as_strings=False, print_per_layer_stat=False, backend="pytorch"
        )[0]
    found["thop"] = thop.profile(Block(fused).eval(), (x,), verbose=False)[0]
    return {name: int(count) for name, count in found.items()}


linears = TOKENS * WIDTH * 4 * WIDTH
attention = 2 * TOKENS * TOKENS * WIDTH
norm = TOKENS * WIDTH
print("in products:", linears + attention)
for fused in (False, True):
    found = counts(fused)
    print("scaled_dot_product_attention" if fused else "@ and softmax", found)
    assert found == {
        "fvcore": linears + 5 * norm + (0 if fused else attention),
        "thop": linears + 4 * norm,
        "ptflops": linears + norm,
        "torchinfo": 4 * WIDTH * WIDTH + 2 * WIDTH,
    }
more = torchinfo.summary(Block(True, 99), input_data=torch.zeros(1, 99, WIDTH), verbose=0)
assert more.total_mult_adds == 4 * WIDTH * WIDTH + 2 * WIDTH, "of 99 tokens"
PYTHON
