"""CodeSpace <-> Optuna distributions, and define-by-run suggestion."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from nni_aiop.engines.optuna_space import (
    code_space_from_distributions,
    distributions_of,
    params_of,
    sample_of,
    suggest,
)
from nni_aiop.errors import SpaceError
from nni_aiop.spaces import (
    CodeSpace,
    Condition,
    Constraint,
    Continuous,
    Nominal,
    Ordinal,
    Subset,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)


def every_kind() -> CodeSpace:
    return CodeSpace(
        [
            Ordinal("even", range(8, 65, 8)),
            Ordinal("uneven", (16, 24, 64)),
            Ordinal("wide", [i**2 for i in range(150)]),
            Ordinal("log", range(1, 100), scale="log"),
            Ordinal("float", (0.1, 0.2, 0.3, 0.4)),
            Ordinal("float uneven", (0.1, 0.25, 1.0)),
            Ordinal("one", (3,)),
            Nominal("text", ("conv", "pool", None)),
            Nominal("collide", (1, True, "1")),
            Nominal("tuple", ((1, 2), (3,), [4, 5])),
            Nominal("numbered", (0, 1, 2)),
            Continuous("rate", 1e-4, 1.0, log=True),
            Continuous("drop", 0.0, 0.5),
            Continuous("normal", -3.0, 3.0, ppf=lambda q: 6 * q - 3, cdf=lambda x: (x + 3) / 6),
            Subset("few", ("a", "b", "c", "d"), 2),
            Subset("any", ("a", "b", "c"), None),
            Subset("many", range(20), 7),
            Subset("masks", range(12), None),
        ],
        conditions={"tuple": Condition("text", ("conv", None)), "few": Condition("even", (8, 16))},
    )


@pytest.fixture(params=["memory", "journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStorage | str:
    if request.param == "memory":
        return optuna.storages.InMemoryStorage()
    if request.param == "journal":
        return JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    return f"sqlite:///{tmp_path}/study.db"


def test_each_kind_has_its_distribution() -> None:
    d = distributions_of(every_kind())
    assert d["even"] == IntDistribution(8, 64, step=8)
    assert d["uneven"] == CategoricalDistribution((16, 24, 64))
    assert d["wide"] == IntDistribution(0, 149)  # the rank
    assert d["log"] == IntDistribution(1, 99, log=True)
    assert d["float"] == FloatDistribution(0.1, 0.4, step=0.1)
    assert d["float uneven"] == CategoricalDistribution((0.1, 0.25, 1.0))
    assert d["one"] == IntDistribution(3, 3)
    assert d["text"] == CategoricalDistribution(("conv", "pool", None))
    assert d["collide"] == CategoricalDistribution(("0", "1", "2"))
    assert d["tuple"] == CategoricalDistribution(("0", "1", "2"))
    assert d["numbered"] == CategoricalDistribution((2, 1, 0))  # increasing would be ordinal
    assert d["rate"] == FloatDistribution(1e-4, 1.0, log=True)
    assert d["normal"] == FloatDistribution(0.0, 1.0)
    assert d["few"] == CategoricalDistribution(("0+1", "0+2", "1+2", "0+3", "1+3", "2+3"))
    assert d["any"].choices[0] == "none"
    assert d["many"] == IntDistribution(0, math.comb(20, 7) - 1)
    assert d["masks"] == IntDistribution(0, 2**12 - 1)


def test_parameters_read_as_the_sample_where_they_can() -> None:
    space = every_kind()
    (sample,) = space.sample(1, np.random.default_rng(1))
    params = params_of(sample, space)
    named = {"wide", "collide", "tuple", "normal", "few", "any", "many", "masks"}
    assert {k: v for k, v in params.items() if k not in named} == {
        k: v for k, v in sample.items() if k not in named
    }


def test_samples_survive_every_storage(storage: Any) -> None:
    space = every_kind()
    samples = [space.canonical(s) for s in space.sample(8, np.random.default_rng(0))]
    study = optuna.create_study(storage=storage)
    for sample in samples:
        study.enqueue_trial(params_of(sample, space))
    suggested = []
    study.optimize(lambda t: suggested.append(suggest(t, space)) or 0.0, n_trials=len(samples))
    assert suggested == samples
    assert [sample_of(t, space) for t in study.trials] == samples
    # `1 == True`: the comparison above does not tell them apart.
    assert [type(s["collide"]) for s in suggested] == [type(s["collide"]) for s in samples]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_parameter_of_any_sampler_is_a_sample(seed: int) -> None:
    space = every_kind()
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(lambda t: float(space.violation(suggest(t, space)) is not None), n_trials=15)
    assert study.best_value == 0.0
    assert {t.value for t in study.trials} == {0.0}
    for trial in study.trials:  # only what the conditions make active was asked for
        assert ("tuple" in trial.params) == (trial.params["text"] != "pool")
        assert ("few" in trial.params) == (trial.params["even"] in (8, 16))


def test_an_activity_function_decides_what_is_suggested() -> None:
    space = CodeSpace(
        [Ordinal("depth", (1, 2, 3)), *(Ordinal(f"width_{i}", (8, 16)) for i in range(3))],
        activity=lambda s: ["depth", *(f"width_{i}" for i in range(s["depth"]))],
    )
    for depth in (1, 2, 3):
        trial = optuna.trial.FixedTrial({"depth": depth, **{f"width_{i}": 16 for i in range(3)}})
        assert len(suggest(trial, space)) == len(trial.params) == 1 + depth


def test_a_broken_constraint_prunes_the_trial() -> None:
    space = CodeSpace(
        [Ordinal("a", (1, 2)), Ordinal("b", (1, 2))],
        constraints=[Constraint("a + b = 3", lambda s: s["a"] + s["b"] == 3)],
    )
    assert suggest(optuna.trial.FixedTrial({"a": 1, "b": 2}), space) == {"a": 1, "b": 2}
    with pytest.raises(optuna.TrialPruned, match=r"a \+ b = 3"):
        suggest(optuna.trial.FixedTrial({"a": 1, "b": 1}), space)


def test_distributions_become_dimensions() -> None:
    space = code_space_from_distributions(
        {
            "float": FloatDistribution(-1.0, 2.0),
            "float log": FloatDistribution(1e-3, 1.0, log=True),
            "float step": FloatDistribution(0.0, 0.5, step=0.1),
            "fine": FloatDistribution(0.0, 1e6, step=0.1),
            "int": IntDistribution(-4, 4, step=2),
            "int log": IntDistribution(1, 50, log=True),
            "int log wide": IntDistribution(1, 10**7, log=True),
            "numbers": CategoricalDistribution((16, 24, 64)),
            "unsorted": CategoricalDistribution((64, 16, 24)),
            "flags": CategoricalDistribution((False, True)),
            "text": CategoricalDistribution(("a", "b")),
        },
        conditions={"text": Condition("flags", (True,))},
    )
    kinds = {d.label: d for d in space.dimensions}
    assert kinds["float"] == Continuous("float", -1.0, 2.0)
    assert kinds["float log"] == Continuous("float log", 1e-3, 1.0, log=True)
    # In decimals, and not 0.30000000000000004.
    assert kinds["float step"].values == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # type: ignore[attr-defined]
    assert kinds["fine"] == Continuous("fine", 0.0, 1e6)
    assert kinds["int"] == Ordinal("int", range(-4, 5, 2), scale="linear")
    assert kinds["int log"] == Ordinal("int log", range(1, 51), scale="log")
    assert kinds["int log wide"] == Continuous("int log wide", 1.0, 1e7, log=True)
    assert kinds["numbers"] == Ordinal("numbers", (16, 24, 64))
    assert kinds["unsorted"] == Nominal("unsorted", (64, 16, 24))
    assert kinds["flags"] == Nominal("flags", (False, True))
    assert "text" not in space.canonical({"flags": False})


def test_there_and_back_keeps_the_kinds() -> None:
    space = every_kind()
    back = code_space_from_distributions(distributions_of(space))
    for d, b in zip(space.dimensions, back.dimensions, strict=True):
        if not isinstance(d, Subset):
            assert type(b) is type(d), d.label
            assert b.size == d.size


def test_lists_from_a_storage_are_the_tuples_that_went_in() -> None:
    with pytest.warns(UserWarning, match="Choices for a categorical distribution"):
        went_in = CategoricalDistribution(((1, 2), (3,)))  # type: ignore[arg-type]
        came_back = CategoricalDistribution(([1, 2], [3]))  # type: ignore[list-item]
    a, b = (code_space_from_distributions({"kernel": d}) for d in (went_in, came_back))
    assert a.fingerprint == b.fingerprint


def test_strangers_are_refused_with_a_sentence() -> None:
    space = CodeSpace([Ordinal("depth", (1, 2, 4))])
    with pytest.raises(SpaceError, match="'depth' must be one of"):
        params_of({"depth": 3}, space)
    trial = optuna.create_trial(
        params={"depth": 3}, distributions={"depth": IntDistribution(1, 4)}, value=0.0
    )
    with pytest.raises(SpaceError, match=r"trial .* has 3"):
        sample_of(trial, space)
