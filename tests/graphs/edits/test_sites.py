"""Labels, values, `keep`, `round_to`, and what is said of wrong edits."""

from typing import Any

import pytest
from torch import nn

from nni_aiop.errors import GraphError
from nni_aiop.graphs import ComputeGraph, from_module
from tests.graphs.edits.edit_checks import IMAGE, editable, reasons


def network() -> nn.Module:
    net = nn.Sequential()
    net.add_module("stem", nn.Conv2d(3, 40, 3, padding=1))
    net.add_module("act", nn.ReLU())
    net.add_module("layer1", nn.Sequential(nn.Conv2d(40, 20, 1), nn.ReLU(), nn.Conv2d(20, 16, 1)))
    net.add_module("layer2", nn.Sequential(nn.Conv2d(16, 16, 5, padding=2, groups=16)))
    net.add_module("fc", nn.Conv2d(16, 4, 1))
    net.add_module("head", nn.Conv2d(4, 10, 1))
    return net


@pytest.fixture(scope="module")
def graph() -> ComputeGraph:
    return from_module(network(), IMAGE)


def values(graph: ComputeGraph, **options: Any) -> dict[str, tuple[Any, ...]]:
    return {s.label: s.values for s in graph.sites(**options) if s.reason is None}


def test_widths_are_multiples_of_eight_where_there_are_32_channels_else_of_four(
    graph: ComputeGraph,
) -> None:
    found = values(graph)
    assert found["width:stem"] == (8, 16, 24, 32, 40)
    assert found["width:layer1.0"] == (4, 8, 12, 16, 20)
    assert found["width:layer1.2"] == (4, 8, 12, 16)
    assert reasons(graph)["width:fc"] == "it has 4 channels, too few to be a site"


@pytest.mark.parametrize(
    ("step", "stem", "inner"),
    [
        (16, (16, 32, 40), (16, 20)),
        (12, (12, 24, 36, 40), (12, 20)),
        (1, tuple(range(1, 41)), tuple(range(1, 21))),
        (32, (32, 40), None),
    ],
)
def test_round_to(
    graph: ComputeGraph, step: int, stem: tuple[int, ...], inner: tuple[int, ...] | None
) -> None:
    found = values(graph, round_to=step)
    assert found["width:stem"] == stem
    assert found.get("width:layer1.0") == inner


def test_units_of_several_channels_are_rounded_as_channels() -> None:
    net = nn.Sequential(nn.Conv2d(3, 48, 1), nn.Conv2d(48, 64, 1, groups=4), nn.Conv2d(64, 8, 1))
    found = values(from_module(net, IMAGE))
    # Twelve and sixteen units of four channels: 8, 16, ... channels.
    assert found["width:0"] == (2, 4, 6, 8, 10, 12)
    assert found["width:1"] == (2, 4, 6, 8, 10, 12, 14, 16)


@pytest.mark.parametrize("step", [0, -4, 2.0, True, "8"])
def test_round_to_is_a_positive_whole_number(graph: ComputeGraph, step: Any) -> None:
    with pytest.raises(GraphError, match=r"round_to must be a positive whole number, but got"):
        graph.sites(round_to=step)


def test_the_sites_of_an_edit_have_their_values_rounded_and_others_are_taken_too(
    graph: ComputeGraph,
) -> None:
    assert graph.edit({"width:stem": 37}).nodes[1].output_shape == (1, 37, 8, 8)


# --- keep ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "lost"),
    [
        (["stem"], {"width:stem"}),
        (["layer1"], {"width:layer1.0", "width:layer1.2"}),
        (["layer1.*"], {"width:layer1.0", "width:layer1.2"}),
        (["layer1.0"], {"width:layer1.0"}),
        (["layer?.0"], {"width:layer1.0", "kernel:layer2.0"}),
        (["head", "fc"], set()),
        (("stem", "layer2"), {"width:stem", "kernel:layer2.0"}),
        (["*"], None),
    ],
)
def test_layers_to_keep(graph: ComputeGraph, keep: Any, lost: set[str] | None) -> None:
    before = set(editable(graph))
    after = set(editable(graph, keep=keep))
    assert after == (before - lost if lost is not None else set())
    kept = {s.label: s.reason for s in graph.sites(keep=keep) if s.label in before - after}
    assert set(kept.values()) <= {"it is to be kept"}


def test_a_name_to_keep_is_not_the_start_of_another_name() -> None:
    net = nn.Sequential()
    net.add_module("layer1", nn.Conv2d(3, 16, 1))
    net.add_module("layer10", nn.Conv2d(16, 16, 1))
    net.add_module("fc", nn.Conv2d(16, 4, 1))
    graph = from_module(net, IMAGE)
    assert editable(graph, keep=["layer1"]) == [
        label for label in editable(graph) if "layer10" in label
    ]


def test_a_pattern_that_fits_no_layer_is_one_sentence(graph: ComputeGraph) -> None:
    with pytest.raises(GraphError) as error:
        graph.sites(keep=["stem", "layr1.0"])
    assert str(error.value) == (
        "a name to keep must be that of a layer, but got 'layr1.0'; the nearest name is 'layer1.0'."
    )


@pytest.mark.parametrize("keep", ["fc", ""])
def test_a_text_of_names_to_keep_is_refused(graph: ComputeGraph, keep: str) -> None:
    with pytest.raises(
        GraphError, match=f"keep must be a list of names, but got the text '{keep}'"
    ):
        graph.sites(keep=keep)


@pytest.mark.parametrize("keep", [[3], [None], 5, [["fc"]]])
def test_what_is_no_name_is_refused(graph: ComputeGraph, keep: Any) -> None:
    with pytest.raises(GraphError, match="keep must be a list of names, but got"):
        graph.sites(keep=keep)


# --- wrong edits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        (
            {"width:stm": 8},
            "an edit must be of a site of the graph, but got 'width:stm'; "
            "the nearest is 'width:stem'.",
        ),
        (
            {"stem": 8},
            "an edit must be of a site of the graph, but got 'stem'; the nearest is 'width:stem'.",
        ),
        (
            {"width:head": 4},
            "'width:head' must stay as it is, since output_0 (output): it leaves the network.",
        ),
        (
            {"width:fc": 2},
            "'width:fc' must stay as it is, since it has 4 channels, too few to be a site.",
        ),
        ({"width:stem": 0}, "'width:stem' must keep 1 to 40 of its units, but got 0."),
        ({"width:stem": -1}, "'width:stem' must keep 1 to 40 of its units, but got -1."),
        ({"width:stem": 41}, "'width:stem' must keep 1 to 40 of its units, but got 41."),
        ({"width:stem": 0.5}, "'width:stem' must keep 1 to 40 of its units, but got 0.5."),
        ({"width:stem": 40.0}, "'width:stem' must keep 1 to 40 of its units, but got 40.0."),
        ({"width:stem": True}, "'width:stem' must keep 1 to 40 of its units, but got True."),
        ({"width:stem": "8"}, "'width:stem' must keep 1 to 40 of its units, but got '8'."),
        ({"width:stem": None}, "'width:stem' must keep 1 to 40 of its units, but got None."),
        ({"width:stem": [8]}, "'width:stem' must keep 1 to 40 of its units, but got [8]."),
        ({"kernel:layer2.0": 4}, "'kernel:layer2.0' must be one of 5, 3, but got 4."),
        ({"kernel:layer2.0": 1}, "'kernel:layer2.0' must be one of 5, 3, but got 1."),
        ({"kernel:layer2.0": "3"}, "'kernel:layer2.0' must be one of 5, 3, but got '3'."),
        ({"kernel:layer2.0": 3.0}, "'kernel:layer2.0' must be one of 5, 3, but got 3.0."),
        ({"kernel:layer2.0": [3]}, "'kernel:layer2.0' must be one of 5, 3, but got [3]."),
    ],
)
def test_a_wrong_edit_is_one_sentence(
    graph: ComputeGraph, edits: dict[str, Any], said: str
) -> None:
    with pytest.raises(GraphError) as error:
        graph.edit(edits)
    assert str(error.value) == said


def test_a_label_that_is_no_text_is_refused(graph: ComputeGraph) -> None:
    with pytest.raises(GraphError, match="an edit must be of a site of the graph, but got 3"):
        graph.edit({3: 8})  # type: ignore[dict-item]


@pytest.mark.parametrize("edits", [None, 3, "width:stem", ["width:stem"], [("width:stem", 8)]])
def test_edits_are_values_by_label(graph: ComputeGraph, edits: Any) -> None:
    with pytest.raises(GraphError, match="edits must be values by label, but got"):
        graph.edit(edits)


def test_what_is_wrong_changes_nothing(graph: ComputeGraph) -> None:
    before = graph.content_hash
    with pytest.raises(GraphError):
        graph.edit({"width:stem": 8, "width:head": 4})
    assert from_module(network(), IMAGE).content_hash == before == graph.edit({}).content_hash


def test_a_site_may_be_said_to_stay_as_it_is(graph: ComputeGraph) -> None:
    same = {site.label: site.value for site in graph.sites()}
    assert graph.edit(same) == graph


def test_labels_differ_and_stay_those_of_the_graph(graph: ComputeGraph) -> None:
    labels = [site.label for site in graph.sites()]
    assert len(set(labels)) == len(labels)
    assert labels == [site.label for site in from_module(network(), IMAGE).sites()]
    assert sorted(labels) == sorted(s.label for s in graph.sites(keep=["stem"], round_to=16))
