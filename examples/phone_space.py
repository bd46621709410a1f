"""A ready space with one more exact cost: the once-for-all networks and their latency on a phone.

    export LATENCY_TABLE=lut_note10_w1.2.csv.gz
    nni-aiop generate --space phone_space:space --table surrogate_16k.csv.gz \\
        --metric autobuild_top1 --limit latency_ms=40
    nni-aiop generate --space phone_space:space --limit latency_ms=35 -n 3

LATENCY_TABLE is a look-up table of blocks, as once-for-all's authors publish one. Whatever computes
a number from a network's code can be a cost of a space.
"""

import os

from nni_aiop.search_spaces.mobilenetv3 import code_space, load_latency_table


def space():
    table = load_latency_table(os.environ.get("LATENCY_TABLE", "lut_note10_w1.2.csv.gz"), width=1.2)
    return code_space(width=1.2, latency={"latency_ms": table})
