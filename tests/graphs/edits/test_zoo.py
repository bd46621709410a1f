"""Networks of timm: halves of all sites, and random edits, are valid and their costs exact."""

import random
from typing import Any

import pytest

from benchmarks._timm import create, input_shape
from nni_aiop.graphs import from_module
from tests.graphs.edits.edit_checks import assert_valid, planned_costs, true_costs

QUICK = [
    "resnet18",
    "mobilenetv3_small_100",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "levit_128s",
]

MORE = [
    "mobilenetv2_100", "efficientnet_b0", "densenet121", "regnety_002", "resnext50_32x4d",
    "convnext_atto", "repvit_m0_9", "ghostnet_100", "mobilevitv2_050", "res2net50_26w_4s",
    "hrnet_w18_small", "mixer_s32_224", "poolformer_s12", "inception_v3", "vgg11_bn", "dla34",
    "efficientformer_l1", "edgenext_xx_small", "fastvit_t8", "mobileone_s0", "repvgg_a0",
    "cspresnet50", "dpn68", "selecsls42b", "resnest14d", "pit_ti_224", "crossvit_tiny_240",
    "xcit_nano_12_p16_224", "coat_tiny", "nextvit_small", "tiny_vit_5m_224", "efficientvit_b0",
    "starnet_s1", "mambaout_femto", "hgnetv2_b0",
]  # fmt: skip


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_edits_are_valid_and_their_costs_exact(name: str) -> None:
    model = create(name)
    graph = from_module(model, input_shape(model))
    sites = [site for site in graph.sites() if site.reason is None]
    drawn = random.Random(0)
    halves = {site.label: max(1, site.value // 2) for site in sites if site.counts}
    candidates: list[dict[str, Any]] = [{}, halves]
    for share in (0.2, 0.6):
        candidates.append(
            {
                site.label: drawn.randint(1, site.value) if site.counts else site.values[-1]
                for site in sites
                if drawn.random() < share
            }
        )
    graphs = [graph.edit(edits) for edits in candidates]
    for edited in graphs:
        assert_valid(edited)
    assert graphs[0] == graph
    # Halves on both sides of a layer are a quarter, of heads and widths an eighth; what is frozen
    # keeps more of it.
    assert 0.15 < graphs[1].macs / graph.macs < 0.6
    assert planned_costs(graph, candidates) == [true_costs(edited) for edited in graphs]
