#!/usr/bin/env bash
# FlopCounterMode counts an attention and an LSTM on the meta device, and as nothing on the CPU.
#
# torch 2.13.0: scaled_dot_product_attention of 10 tokens of 2 heads of 8 costs 6,400 operations, and
# nn.LSTM(5, 7) 2,016 over 3 steps. On meta tensors both are split into products, which are counted.
# On the CPU each is one kernel (aten._scaled_dot_product_flash_attention_for_cpu, mkldnn_rnn_layer)
# for which there is no formula: 0, without a warning. A vision transformer's count thus depends on
# where it is made, by 14 % for ViT-Tiny at 224 pixels. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0
"$folder/env/bin/pip" install --quiet numpy
cd "$folder"
env/bin/python -W error - <<'PYTHON'
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def counted(run, device):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(device)
    return counter.get_total_flops()


def attention(device):
    q = torch.zeros(1, 2, 10, 8, device=device)
    nn.functional.scaled_dot_product_attention(q, q, q)


def lstm(device):
    nn.LSTM(5, 7, device=device).eval()(torch.zeros(3, 1, 5, device=device))


found = {run.__name__: (counted(run, "cpu"), counted(run, "meta")) for run in (attention, lstm)}
print("on the CPU, on the meta device:", found)
assert found["attention"] == (0, 2 * 2 * 2 * 10 * 10 * 8)
assert found["lstm"] == (0, 2 * 3 * 4 * 7 * (5 + 7))
PYTHON
