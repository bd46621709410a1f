"""Whatever a file holds, a reader gives one bounded sentence or what can be used."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_aiop.cli._experiment import read_experiment
from nni_aiop.engines._state import read_state
from nni_aiop.errors import FileFormatError
from nni_aiop.files import parse_json, parse_yaml, write_described
from nni_aiop.history import read_history
from nni_aiop.predictors import load_predictor, make_predictor
from nni_aiop.search import (
    BaseSearch,
    LocalSearch,
    NCPSearch,
    PNAGSearch,
    PredictorTopK,
    RandomSearch,
    RegularizedEvolution,
)
from nni_aiop.spaces import CodeSpace, Continuous, Nominal, Ordinal, Subset

SPACE = CodeSpace(
    [
        Ordinal("depth", (1, 2, 3, 4)),
        Nominal("kind", ("a", 1, None, "3", "true")),
        Continuous("rate", 0.0, 1.0),
        Subset("taps", (1, 2, 3)),
    ],
    name="small",
)

WEIRD: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2**70, 10**400, 1e30, 1e300, -0.5, float("nan"), float("inf"),
    "", "x", "\ud800", [], [[]], {}, {"a": 1}, [1, 2, 3, 4], {"format": 1},
)  # fmt: skip


def checked(action: Callable[[], object]) -> bool:
    """Whether it was taken; else it was refused in one bounded sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            action()
        except FileFormatError as err:
            text = str(err)
            assert "\n" not in text and len(text) < 1500, text
            return False
        except OSError:
            return False
    return True


def mutated(data: Any, generator: random.Random) -> Any:
    """Plain data with one change somewhere."""
    data = parse_json(json.dumps(data), "data") if not isinstance(data, str) else data
    holder = data
    while isinstance(holder, (list, dict)) and holder:
        keys: list[Any] = [*holder] if isinstance(holder, dict) else [*range(len(holder))]
        key = generator.choice(keys)
        inner = holder[key]
        if isinstance(inner, (list, dict)) and inner and generator.random() < 0.8:
            holder = inner
            continue
        if generator.random() < 0.3:
            del holder[key]
        else:
            holder[key] = generator.choice(WEIRD)
        break
    return data


def bytes_of(raw: bytes, generator: random.Random) -> bytes:
    """A text with one change of its bytes."""
    place = generator.randrange(len(raw) + 1)
    if generator.random() < 0.3:
        return raw[:place]
    other = generator.choice(
        [b"9" * 5000, b"[" * 3000, b"{" * 50, b"\xff", b'"', b"\n", b",", b"nan", b"null", b"true",
         b"&a ", b"*a", b"2026-02-31", b": ", b"- ", b"\x00", b"\xef\xbb\xbf", b"1e999", b"-", b"0"]
    )  # fmt: skip
    return raw[:place] + other + raw[place + generator.randrange(3) :]


def searches() -> Iterator[BaseSearch]:
    short = {"budget": 12, "rounds": 3}
    yield RandomSearch(SPACE, seed=1)
    yield RegularizedEvolution(SPACE, seed=1, population=4, tournament=2)
    yield LocalSearch(SPACE, seed=1, initial=3)
    yield NCPSearch(SPACE, seed=1, starts=8, steps=2, **short)
    yield PredictorTopK(SPACE, seed=1, pool=20, **short)
    yield PNAGSearch(SPACE, seed=1, **short)


def told(search: BaseSearch, n: int = 4) -> BaseSearch:
    for i, sample in enumerate(search.ask(n)):
        search.tell(sample, None if i == 1 else {"default": float(i), "more": 1.0})
    search.ask(1)
    return search


COUNTS = [pytest.param(60, id="quick"), pytest.param(3000, id="long", marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
def test_states_of_searches(count: int, tmp_path: Path) -> None:
    generator = random.Random(0)
    for search in searches():
        state = told(search).state_dict()
        taken = 0
        for _ in range(count):
            fresh = next(s for s in searches() if type(s) is type(search))
            before = fresh.state_dict()
            changed = mutated(state, generator)
            if checked(lambda fresh=fresh, changed=changed: fresh.load_state_dict(changed)):
                taken += 1
                json.dumps(fresh.state_dict())
                if not isinstance(fresh, (NCPSearch, PNAGSearch, PredictorTopK)):
                    fresh.ask(1)
            else:
                assert fresh.state_dict() == before, "a state that is refused changes nothing"
        assert 0 < taken < count
        raw = json.dumps(state).encode()
        path = tmp_path / "state.json"
        for _ in range(count):
            path.write_bytes(bytes_of(raw, generator))
            checked(lambda path=path: read_state(path))


@pytest.mark.parametrize("count", COUNTS)
def test_history_files(count: int, tmp_path: Path) -> None:
    generator = random.Random(1)
    raw = (
        b'number,depth,kind,rate,taps,accuracy\n0,1,a,0.5,"[1, 2]",70.5\n'
        b'1,2,1,0.25,[],\n2,3,None,1.0,[3],71\n3,4,3,0.0,"[1, 3]",nan\n'
    )
    path = tmp_path / "history.csv"
    path.write_bytes(raw)
    assert len(read_history(path, SPACE)[0]) == 4
    for _ in range(20 * count):
        path.write_bytes(bytes_of(raw, generator))
        checked(lambda: read_history(path, SPACE))


@pytest.mark.parametrize("cell", ["7", "nil", "false", "[" * 5000, "9" * 5000, "{}", "inf", "nan"])
@pytest.mark.parametrize("column", ["depth", "kind", "rate", "taps"])
def test_cells_that_are_no_values(tmp_path: Path, column: str, cell: str) -> None:
    row = {"depth": "1", "kind": "a", "rate": "0.5", "taps": "[]"} | {column: cell}
    path = tmp_path / "history.csv"
    path.write_text(f"{','.join(row)},y\n{','.join(row.values())},1\n")
    with pytest.raises(FileFormatError, match=f"line 2: '{column}' must be one of") as caught:
        read_history(path, SPACE)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("count", COUNTS)
def test_experiment_files(count: int, tmp_path: Path) -> None:
    generator = random.Random(2)
    raw = (
        b"experimentType: nas\nmaxTrialNumber: 5\nspace: digits\n"
        b"evaluator: {name: digits, epochs: 3}\nstrategy:\n  name: ncp\n  budget: 5\n"
        b"  limits: {flops: 2.0e+5}\nseed: 3\n"
    )
    path = tmp_path / "experiment.yml"
    path.write_bytes(raw)
    assert read_experiment(path).seed == 3
    for _ in range(10 * count):
        path.write_bytes(bytes_of(raw, generator))
        checked(lambda: read_experiment(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "the key 'a' twice"),
        ("x: {b: 1, b: 2}", "the key 'b' twice"),
        ("a: &x [1, 2]\nb: [*x, *x]", "an alias, *x"),
        ("a: 2026-02-31", "day is out of range"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("a: 0b" + "1" * 20000, "20000 bits"),
        ("a: " + "[" * 2000 + "]" * 2000, "nests too deeply"),
        ("- " * 2000, "nests too deeply"),
        ("a: !!bool x", "must be a YAML file, but is not"),
    ],
)
def test_what_yaml_may_not_hold(text: str, message: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        parse_yaml(text, "x.yml")
    assert message in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ("9" * 5000, "a whole number of 5000 digits"),
        ("[" * 100_000, "nests too deeply"),
        ('{"a":' * 100 + "1" + "}" * 100, "nests too deeply"),
        ('"\\ud800"', "surrogates not allowed"),
    ],
)
def test_what_json_may_not_hold(text: str, message: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        parse_json(text, "x.json")
    assert message in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["history"][0][1].update(default=float("nan")), "must be finite, but is nan"),
        (lambda s: s["history"][0][1].update(more=float("inf")), "must be finite, but is inf"),
        (lambda s: s["history"][0][1].pop("default"), "result 0 must have 'default'"),
        (lambda s: s["history"].append(s["history"][0]), "must stand there once"),
        (lambda s: s["pending"].append(s["history"][0][0]), "must stand there once"),
        (lambda s: s["pending"].append(s["pending"][0]), "must stand there once"),
        (lambda s: s["options"].update(steps=10**30), "steps must be from 1 to 10000"),
        (lambda s: s["options"].update(budget=1e30), "budget must be from 1 to 1e+06"),
        (
            lambda s: s["options"].update(lr=float("nan")),
            "lr a positive number",
        ),
        (lambda s: s.update(round=10**30), "round must be from 0 to a million"),
        (lambda s: s.update(round=-1), "round must be from 0 to a million"),
        (lambda s: s["warmup"].__setitem__(1, 2.5), "a warm-up whole"),
        (lambda s: s.update(stretched=[0.5, 3]), "stretched must be a slack and a number"),
        (lambda s: s.update(stretched=[0.1, -1]), "stretched must be a slack and a number"),
        (lambda s: s.update(stretched=[0.1, 10**10]), "stretched must be a slack and a number"),
        (lambda s: s.update(stretched=[0.1, 3.0]), "stretched must be a slack and a number"),
        (lambda s: s.update(queue=2 * s["pending"]), "what is queued must stand there once"),
        (lambda s: s.update(seed=10**30), "a seed must be from 0"),
        (lambda s: s.update(seed=-1), "a seed must be from 0"),
    ],
)
def test_what_a_state_may_not_hold(change: Callable[[Any], Any], message: str) -> None:
    search = NCPSearch(SPACE, budget=12, rounds=3, starts=8, steps=2)
    state = json.loads(json.dumps(told(search).state_dict()))
    change(state)
    fresh = NCPSearch(SPACE, budget=12, rounds=3, starts=8, steps=2)
    before = fresh.state_dict()
    with pytest.raises(FileFormatError, match="a search state must be complete") as caught:
        fresh.load_state_dict(state)
    assert message in str(caught.value) and fresh.state_dict() == before


def test_options_that_the_user_gave_again_are_taken() -> None:
    search = NCPSearch(SPACE, budget=12, rounds=3, starts=8, steps=20_000)
    NCPSearch(SPACE, budget=12, rounds=3, starts=8, steps=20_000).load_state_dict(
        told(search).state_dict()
    )


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["gp", "ncp-mlp"])
def test_predictor_files_with_a_new_checksum(name: str, count: int, tmp_path: Path) -> None:
    """Content and tensors are changed and the checksum made anew, as no accident does."""
    from nni_aiop.files import read_described

    generator, rng = random.Random(3), np.random.default_rng(3)
    options = {"steps": 5} if name == "gp" else {"shared": 8, "separate": 4, "epochs": 2}
    codes = SPACE.encode(SPACE.sample(12, rng))
    fit = make_predictor(name, SPACE, 0, **options).fit(codes, {"y": rng.random(12)})
    path = tmp_path / "p.safetensors"
    fit.save(path)
    content, tensors = read_described(
        path, "predictor", kind="nni-aiop predictor", version=1, what="a predictor"
    )
    taken = 0
    for _ in range(count):
        changed, arrays = content, dict(tensors)
        if generator.random() < 0.4:
            changed = mutated(content, generator)
        else:
            key = generator.choice([*arrays])
            array = np.array(arrays[key])
            how = generator.randrange(5)
            if how == 0:
                del arrays[key]
            elif how == 1:
                arrays[key] = array[..., :-1] if array.ndim else np.zeros(3)
            elif how == 2:
                arrays[key] = array.astype(np.float16)
            elif how == 3:
                arrays[key] = np.full_like(array, -1)
            else:
                arrays[key] = array * np.nan if array.dtype.kind == "f" else array[None]
        if not isinstance(changed, dict):
            continue
        try:
            write_described(path, "predictor", changed, arrays, flush=False)
        except (ValueError, TypeError, UnicodeError):
            continue  # not even to be written

        def load() -> None:
            again = load_predictor(path, SPACE)
            found = again.predict(codes)
            assert found.mean.shape == (12, 1)
            if again.scale_[0] > 0:
                assert np.isfinite(found.mean).all()

        taken += checked(load)
    assert taken < count / 2
