"""The state of a search on disk: whatever moment a kill comes at, it goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nni_aiop.cli import _keeping, _pace
from nni_aiop.cli._keeping import Keeper, take_up
from nni_aiop.errors import FileFormatError
from nni_aiop.search import (
    BaseSearch,
    LocalSearch,
    NCPSearch,
    PNAGSearch,
    PredictorTopK,
    RandomSearch,
    RandomWarmup,
    RegularizedEvolution,
)
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal, Sample, SampleCost


def space(**costs: Any) -> CodeSpace:
    dimensions = [Ordinal("depth", range(1, 9)), Ordinal("width", range(8)), Nominal("op", "abc")]
    return CodeSpace(dimensions, costs=costs or {"flops": lambda codes: 1 + codes[:, 0]})


def measured(sample: Sample) -> dict[str, float] | None:
    if sample["op"] == "b" and sample["width"] == 3:
        return None
    return {"default": sample["depth"] - abs(sample["width"] - 4) / 16, "extra": 0.1}


@pytest.fixture
def never_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first event writes a whole state."""
    monkeypatch.setattr(_pace.Pace, "is_due", property(lambda self: not self.began))


@pytest.mark.usefixtures("never_due")
@pytest.mark.parametrize(
    "make",
    [RandomSearch, RegularizedEvolution, LocalSearch, PredictorTopK, NCPSearch, PNAGSearch],
)
def test_each_event_can_be_gone_on_from(make: type[BaseSearch], tmp_path: Path) -> None:
    options: dict[str, Any] = {"budget": 14} if make in (NCPSearch, PredictorTopK) else {}
    if make is PNAGSearch:
        options = {"targets": {"flops": 1.6}, "warmup": RandomWarmup(0.5, 8)}
    search = make(space(), seed=3, **options)
    path = tmp_path / "state.json"
    states = []
    with Keeper(search, path) as keeper:
        for _ in range(12):
            (sample,) = search.ask(1)
            keeper.asked()
            states.append((path.read_bytes(), search.state_dict()))
            metrics = measured(sample)
            search.tell(sample, metrics)
            keeper.told(sample, metrics)
            states.append((path.read_bytes(), search.state_dict()))
    assert states[-1][0].count(b"\n") == 23
    assert path.read_bytes().count(b"\n") == 0
    for text, expected in [states[0], states[5], states[12], states[-2], states[-1]]:
        path.write_bytes(text)
        again = make(space(), seed=3, **options)
        take_up(again, path)
        assert again.state_dict() == expected
    path.write_bytes(states[-1][0][:-9])  # the kill came while the last event was written
    again = make(space(), seed=3, **options)
    take_up(again, path)
    assert again.state_dict() == states[-2][1]


@pytest.mark.usefixtures("never_due")
def test_a_search_that_measures_its_costs_is_kept_whole(tmp_path: Path) -> None:
    noisy = SampleCost(lambda sample: sample["width"], noisy=True)
    search = RandomSearch(space(ms=noisy))
    with Keeper(search, tmp_path / "state.json") as keeper:
        for _ in range(3):
            search.ask(1)
            keeper.asked()
            assert b"\n" not in (tmp_path / "state.json").read_bytes()


def test_whole_states_get_a_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(_pace.time, "monotonic", lambda: now[0])
    written = []

    def write(path: Path, state: dict[str, Any]) -> None:
        written.append(now[0])
        now[0] += 0.001 * len(state["history"])  # the longer, the more there is
        path.write_text("{}")

    monkeypatch.setattr(_keeping, "write_state", write)
    search = RandomSearch(space(), repeat_networks=True)
    with Keeper(search, tmp_path / "state.json") as keeper:
        for sample in search.ask(180):
            search.tell(sample, 1.0)
            keeper.told(sample, {"default": 1.0})
            now[0] += 0.01
    assert len(written) < 30
    assert now[0] < 1.1 * 1.8 + 0.2


def test_a_state_that_was_set_in_lines_by_hand_is_read(tmp_path: Path) -> None:
    search = RandomSearch(space())
    path = tmp_path / "state.json"
    with Keeper(search, path):
        search.tell(search.ask(1)[0], 1.0)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1) + "\n")
    again = RandomSearch(space(), seed=5)
    take_up(again, path)
    assert again.state_dict() == search.state_dict()
    path.write_text("{")
    with pytest.raises(FileFormatError, match="must be JSON"):
        take_up(again, path)


@pytest.mark.parametrize(
    "line", ['["told"]', "{}", '["other", []]', "[]", "3", '["told", [9, 9], null]']
)
def test_a_damaged_event_is_named(line: str, tmp_path: Path) -> None:
    search = RandomSearch(space())
    path = tmp_path / "state.json"
    with Keeper(search, path):
        pass
    path.write_text(f'{path.read_text()}\n{line}\n["asked"]')
    with pytest.raises(FileFormatError, match="line 2"):
        take_up(RandomSearch(space()), path)
    path.write_text(f'{path.read_text()}\n["asked"')
    with pytest.raises(FileFormatError):
        take_up(RandomSearch(space()), path)
