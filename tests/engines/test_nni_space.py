"""NNI's spaces as CodeSpaces: kinds, constraints, activity; NNI's hub there and back."""

from typing import Any

import numpy as np
import pytest
from torch import nn

pytest.importorskip("nni", reason="NNI is not installed")

from nni_aiop.engines._nni import importing_nni
from nni_aiop.engines._nni_activity import activity_of
from nni_aiop.engines.nni_space import as_code_space, code_space_from_nni
from nni_aiop.errors import SpaceError
from nni_aiop.spaces import CodeSpace, Continuous, Nominal, Ordinal, Sample, Subset

with importing_nni():
    import nni
    from nni.mutable import (
        Categorical,
        CategoricalMultiple,
        ExpressionConstraint,
        Mutable,
        Numerical,
        SampleValidationError,
    )
    from nni.nas.evaluator import Evaluator
    from nni.nas.evaluator.evaluator import MutableEvaluator
    from nni.nas.hub import pytorch as hub
    from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, Repeat
    from nni.nas.space import RawFormatModelSpace, SimplifiedModelSpace
    from scipy.stats import beta

QUICK = ("NasBench201", "ProxylessNAS", "ShuffleNetSpace", "MobileNetV3Space", "AutoFormer")
DEAR = ("NasBench101", "NASNet", "ENAS", "AmoebaNet", "PNAS", "DARTS")
HUB = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in DEAR)]


def nni_samples(space: Any, labels: tuple[str, ...], n: int) -> list[Sample]:
    """Valid samples that NNI itself draws, by rejection where there are constraints."""
    rng = np.random.RandomState(0)
    mutables = space.simplify().values()
    out: list[Sample] = []
    while len(out) < n:
        memo: Sample = {}
        try:
            for mutable in mutables:
                mutable.random(memo, rng)
        except SampleValidationError:
            continue
        # NASBench101 leaves a note of its constraint in the sample.
        out.append({label: memo[label] for label in labels})
    return out


def active_by_leaving_out(space: Any, sample: Sample) -> set[str]:
    """NNI's own definition: what the space misses where it is not in the sample."""
    return {
        label
        for label in sample
        if space.check_contains({k: v for k, v in sample.items() if k != label}) is not None
    }


@pytest.mark.parametrize("name", HUB)
def test_hub_spaces_go_there_and_back_and_know_what_is_active(name: str) -> None:
    space = getattr(hub, name)()
    codes = code_space_from_nni(space)
    assert list(codes.labels) == [
        label for label, m in space.simplify().items() if "Constraint" not in type(m).__name__
    ]
    samples = nni_samples(space, codes.labels, 200)
    assert codes.decode(codes.encode(samples)) == samples
    assert codes.from_points(codes.points(samples)) == samples
    assert [codes.violation(s) for s in samples[:5]] == [None] * 5
    asked = activity_of(space)
    for sample in samples[:2]:
        assert set(codes.canonical(sample)) == active_by_leaving_out(space, sample)
    for sample in samples[:20]:
        assert set(codes.canonical(sample)) == asked(sample) & set(codes.labels)
    # All but NASBench101, which checks samples in its own way, are told by conditions.
    assert (codes.activity is None) == (name != "NasBench101")
    # What the CodeSpace draws, NNI accepts.
    for sample in codes.sample(5, np.random.default_rng(0)):
        assert space.check_contains(dict(sample)) is None


@pytest.mark.slow
def test_rejected_by_nasbench101_is_rejected_here() -> None:
    space = hub.NasBench101()
    codes = code_space_from_nni(space)
    rng = np.random.default_rng(0)
    drawn = codes.from_points(codes.sample_points(100, rng))
    verdicts = [space.check_contains(dict(s)) is None for s in drawn]
    assert [codes.violation(s) is None for s in drawn] == verdicts
    assert 0 < sum(verdicts) < 100


class Kinds(ModelSpace):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layers = LayerChoice([nn.Identity(), nn.ReLU(), nn.Tanh()], label="listed")
        self.named = LayerChoice({"skip": nn.Identity(), "relu": nn.ReLU()}, label="named")
        self.inputs = InputChoice(4, n_chosen=2, label="inputs")
        for mutable in (
            Categorical([8, 16, 24], label="rising"),
            Categorical([0.5, 0.25, 0.125], label="falling"),
            Categorical([3, 5, 1], label="mixed"),
            Categorical([True, False], label="flag"),
            Categorical([[1, 2], [3, 4]], label="lists"),
            Categorical([7], label="one"),
            CategoricalMultiple(["p", "q", "r"], label="any"),
            Numerical(0.0, 2.0, label="uniform"),
            Numerical(1e-4, 1e-1, log_distributed=True, label="log"),
            Numerical(1.0, 10.0, quantize=2.0, label="steps"),
            Numerical(mu=0.0, sigma=1.0, label="normal"),
            Numerical(low=-1.0, high=1.0, mu=0.0, sigma=1.0, label="clipped"),
            Numerical(mu=0.0, sigma=1.0, quantize=0.5, label="normal_steps"),
            Numerical(distribution=beta(2, 5), label="beta"),
        ):
            self.add_mutable(mutable)


def test_every_kind_of_mutable() -> None:
    codes = code_space_from_nni(Kinds())
    found = {d.label: d for d in codes.dimensions}
    assert list(found) == list(Kinds().simplify())
    assert isinstance(found["listed"], Nominal)  # 0, 1, 2 number the candidates: no order
    assert isinstance(found["named"], Nominal)
    assert found["inputs"] == Subset("inputs", (0, 1, 2, 3), 2)
    assert found["rising"] == Ordinal("rising", (8, 16, 24))
    assert found["falling"] == Ordinal("falling", (0.125, 0.25, 0.5))
    for label in ("mixed", "flag", "lists", "one"):
        assert isinstance(found[label], Nominal)
    assert found["any"] == Subset("any", ("p", "q", "r"), None)
    assert found["uniform"] == Continuous("uniform", 0.0, 2.0)
    assert found["log"] == Continuous("log", 1e-4, 1e-1, log=True)
    steps = found["steps"]
    assert isinstance(steps, Ordinal)
    # NNI rounds half to even and clips at the ends, which need not be multiples.
    assert steps.values == (1.0, 2.0, 4.0, 6.0, 8.0, 10.0)
    normal = found["normal"]
    assert isinstance(normal, Continuous)
    assert -normal.low == pytest.approx(normal.high)
    assert normal.decode(np.array([[0.5]]))[0] == pytest.approx(0.0, abs=1e-9)
    clipped = found["clipped"]
    assert isinstance(clipped, Continuous)
    assert (clipped.low, clipped.high) == (-1.0, 1.0)
    normal_steps = found["normal_steps"]
    assert isinstance(normal_steps, Ordinal)
    assert normal_steps.values[1] - normal_steps.values[0] == 0.5
    assert isinstance(found["beta"], Continuous)


def test_what_is_drawn_is_accepted_and_comes_back() -> None:
    space = Kinds()
    codes = code_space_from_nni(space)
    samples = codes.sample(50, np.random.default_rng(0))
    assert codes.decode(codes.encode(samples)) == samples
    assert [space.check_contains(s) for s in samples] == [None] * 50
    drawn = nni_samples(space, codes.labels, 20)
    assert all(codes.violation(s) is None for s in drawn)


class Constrained(ModelSpace):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        a = self.add_mutable(Categorical([1, 2, 3], label="a"))
        b = self.add_mutable(Categorical([1, 2, 3], default=3, label="b"))
        self.add_mutable(ExpressionConstraint(a + b == 4, label="four"))


def test_expression_constraints() -> None:
    codes = code_space_from_nni(Constrained())
    assert codes.labels == ("a", "b")
    assert codes.violation({"a": 1, "b": 3}) is None
    assert "four" in str(codes.violation({"a": 1, "b": 2}))
    assert {(s["a"], s["b"]) for s in codes.sample(50, np.random.default_rng(0))} == {
        (1, 3),
        (2, 2),
        (3, 1),
    }
    assert codes.decode(codes.encode([{"a": 3, "b": 3}]))[0]["a"] + 1 in (3, 4)


class Nested(ModelSpace):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        inner = LayerChoice({"x": nn.Identity(), "y": nn.ReLU()}, label="inner")
        self.outer = LayerChoice({"plain": nn.Identity(), "nested": inner}, label="outer")
        self.blocks = Repeat(
            lambda i: LayerChoice({"p": nn.ReLU(), "q": nn.Tanh()}, label=f"block{i}"),
            nni.choice("depth", [1, 3]),
        )


def test_activity_is_what_nni_reads() -> None:
    space = Nested()
    codes = code_space_from_nni(space)
    sample = {"outer": "plain", "inner": "x", "depth": 1} | {f"block{i}": "p" for i in range(3)}
    assert set(codes.canonical(sample)) == {"outer", "depth", "block0"}
    full = {**sample, "outer": "nested", "depth": 3}
    assert set(codes.canonical(full)) == set(codes.labels)
    assert set(codes.canonical(full)) == active_by_leaving_out(space, full)
    assert codes.key(sample) == codes.key({**sample, "inner": "y", "block2": "q"})


def block(*labels: str) -> Any:
    return nn.Sequential(
        *(LayerChoice({"p": nn.ReLU(), "q": nn.Tanh()}, label=label) for label in labels)
    )


class Shared(ModelSpace):  # type: ignore[misc]
    """Labels in several places: of two branches, of a branch and everywhere, below two depths."""

    def __init__(self) -> None:
        super().__init__()
        branches = {"u": block("x"), "v": block("x", "y"), "w": nn.ReLU(), "z": block("y")}
        self.outer = LayerChoice(branches, label="outer")
        self.always = block("everywhere")
        depth = nni.choice("depth", [2, 4])
        self.blocks = Repeat(lambda i: block(f"b{i}", "everywhere"), depth // 2 + 1)
        self.more = Repeat(lambda i: block(f"b{i + 1}"), depth)


class Tangled(ModelSpace):  # type: ignore[misc]
    """`x` below two parents at once: no conditions tell when it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.one = LayerChoice({"x": block("x"), "none": nn.ReLU()}, label="one")
        self.two = LayerChoice({"x": block("x"), "none": nn.ReLU()}, label="two")


@pytest.mark.parametrize(("space", "told"), [(Nested, True), (Shared, True), (Tangled, False)])
def test_conditions_say_what_leaving_out_says(space: Any, told: bool) -> None:
    codes = code_space_from_nni(space())
    assert (codes.activity is None) == told
    for sample in codes.sample(40, np.random.default_rng(0)):
        assert set(codes.canonical(sample)) == active_by_leaving_out(space(), sample)


def test_conditions_of_shared_labels() -> None:
    conditions = code_space_from_nni(Shared()).conditions
    assert {
        label: [(c.parent, c.values) for c in given] for label, given in conditions.items()
    } == {
        "x": [("outer", ("u", "v"))],
        "y": [("outer", ("v", "z"))],
        "b3": [("depth", (4,))],
        "b4": [("depth", (4,))],
    }


@pytest.mark.parametrize("wrap", [SimplifiedModelSpace, RawFormatModelSpace])
def test_all_of_nnis_formats_are_one_space(wrap: Any) -> None:
    codes = code_space_from_nni(wrap.from_model(Nested(), None))
    assert codes.fingerprint == code_space_from_nni(Nested()).fingerprint


class Own(ModelSpace):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.add_mutable(Categorical([1, 2], label="x"))

    def code_space(self) -> CodeSpace:
        return CodeSpace(
            [Ordinal("x", (1, 2))], name="own", costs={"flops": lambda codes: codes[:, 0] * 7.0}
        )


@nni.trace
class Tunable(MutableEvaluator):  # type: ignore[misc]
    def __init__(self, lr: float = 0.1) -> None:
        self.lr = lr


def test_a_space_that_knows_its_codes_is_asked() -> None:
    assert code_space_from_nni(Own()).name == "own"
    assert code_space_from_nni(SimplifiedModelSpace.from_model(Own(), Evaluator())).name == "own"


def test_choices_of_the_evaluator_follow_behind() -> None:
    evaluator = Tunable(lr=Numerical(0.0, 1.0, label="lr"))
    codes = code_space_from_nni(SimplifiedModelSpace.from_model(Own(), evaluator))
    assert codes.labels == ("x", "lr")
    code = codes.encode([{"x": 2, "lr": 0.25}])
    assert code.tolist() == [[1.0, 0.25]]
    assert codes.cost("flops", code).tolist() == [7.0]
    nested = code_space_from_nni(SimplifiedModelSpace.from_model(Nested(), evaluator))
    sample = nested.complete({"outer": "plain", "depth": 1, "lr": 0.5})
    assert set(nested.canonical(sample)) == {"outer", "depth", "block0", "lr"}


class Odd(ModelSpace):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.add_mutable(Strange())


class Strange(Mutable):  # type: ignore[misc]
    label = "strange"

    def leaf_mutables(self, is_leaf: Any) -> Any:
        yield self

    def robust_default(self, memo: Any = None, retries: int = 0) -> None:
        return None

    def equals(self, other: Any) -> bool:
        return self is other


class Empty(ModelSpace):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()


def test_refused_with_a_sentence() -> None:
    with pytest.raises(SpaceError, match="'strange' must be a Categorical"):
        code_space_from_nni(Odd())
    with pytest.raises(SpaceError, match="Empty must have choices"):
        code_space_from_nni(Empty())
    with pytest.raises(SpaceError, match="must be given, but got int"):
        code_space_from_nni(3)


def test_references() -> None:
    reference = "nni_aiop.search_spaces.nasbench201:code_space"
    space = as_code_space(reference)
    assert isinstance(space, CodeSpace)
    assert as_code_space(space) is space
    assert as_code_space(Nested).labels == as_code_space(Nested()).labels
    with pytest.raises(SpaceError, match=r"package\.module:name"):
        as_code_space("nonsense")
    with pytest.raises(SpaceError, match=r"must lead to a CodeSpace, but gives .* type int"):
        as_code_space(7)
    with pytest.raises(SpaceError, match="must name something importable"):
        as_code_space("nni_aiop.spaces:Missing")
