"""What every predictor must do; a new member of PREDICTORS joins by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from nni_aiop.errors import FileFormatError, SpaceError
from nni_aiop.predictors import (
    PREDICTORS,
    CodePredictor,
    default_predictor,
    load_predictor,
    make_predictor,
)
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal

QUICK: dict[str, dict[str, Any]] = {"ncp-mlp": {"epochs": 40}}


def features(codes: torch.Tensor) -> torch.Tensor:
    return torch.stack([codes[:, 0] * codes[:, 1], torch.log1p(codes[:, 1])], dim=1)


DIMENSIONS = [
    Ordinal("depth", (1, 2, 3, 4)),
    Ordinal("width", range(8, 129, 8), scale="linear"),
    Nominal("op", ("conv", "pool", "skip")),
]
SPACES = {
    "features": CodeSpace(DIMENSIONS, name="featured", features=features),
    "plain": CodeSpace(DIMENSIONS, name="plain"),
}
BUMPS = np.array([0.5, -1.0, 0.0])


def table(n: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(n, 5) codes, and two smooth metrics of them with a little noise."""
    rng = np.random.default_rng(seed)
    codes = SPACES["plain"].encode(SPACES["plain"].sample(n, rng))
    signal = 2 * codes[:, 0] + np.sqrt(codes[:, 1]) + codes[:, 2:] @ BUMPS
    accuracy = 70 + 5 * signal + 0.1 * rng.normal(size=n)
    latency = 3 + 1e-3 * (codes[:, 0] + codes[:, 1] + 0.01 * rng.normal(size=n))
    return codes, {"accuracy": accuracy, "latency": latency}


@pytest.fixture(params=[(name, kind) for name in PREDICTORS for kind in SPACES], ids="-".join)
def make(request: pytest.FixtureRequest) -> Callable[..., CodePredictor]:
    """From a seed to an unfitted predictor."""
    name, kind = request.param
    return lambda seed=0: make_predictor(name, SPACES[kind], seed, **QUICK.get(name, {}))


@pytest.fixture
def fitted(make: Callable[..., CodePredictor]) -> CodePredictor:
    return make().fit(*table(60))


class TestEveryPredictor:
    def test_learns(self, fitted: CodePredictor) -> None:
        codes, targets = table(200, seed=1)
        prediction = fitted.predict(codes)
        assert prediction.metrics == fitted.metrics_ == ("accuracy", "latency")
        assert prediction.mean.shape == prediction.std.shape == (200, 2)
        assert len(prediction) == 200
        for name, measured in targets.items():
            error = np.abs(prediction[name].mean[:, 0] - measured).mean()
            assert error < 0.5 * measured.std()
        assert (prediction.std > 0).all()

    def test_same_seed_same_result(self, make: Callable[..., CodePredictor]) -> None:
        codes, targets = table(40)
        torch.manual_seed(1)
        first = make(3).fit(codes, targets).predict(codes)
        torch.manual_seed(2)
        state = torch.get_rng_state()
        second = make(3).fit(codes, targets).predict(codes)
        assert torch.equal(state, torch.get_rng_state())
        np.testing.assert_array_equal(first.mean, second.mean)
        np.testing.assert_array_equal(first.std, second.std)

    def test_refit_forgets(self, make: Callable[..., CodePredictor]) -> None:
        codes, targets = table(40)
        again = make().fit(*table(30, seed=5)).fit(codes, targets)
        fresh = make().fit(codes, targets)
        np.testing.assert_array_equal(again.predict(codes).mean, fresh.predict(codes).mean)

    def test_batch_equals_one_by_one(self, fitted: CodePredictor) -> None:
        codes, _ = table(7, seed=2)
        batch = fitted.predict(codes)
        single = [fitted.predict(codes[i : i + 1]) for i in range(7)]
        np.testing.assert_allclose(batch.mean, np.concatenate([s.mean for s in single]), rtol=1e-9)
        np.testing.assert_allclose(batch.std, np.concatenate([s.std for s in single]), rtol=1e-6)

    def test_no_rows_predict_nothing(self, fitted: CodePredictor) -> None:
        assert fitted.predict(np.empty((0, 5))).mean.shape == (0, 2)

    def test_forward_is_the_predicted_mean_in_either_precision(self, fitted: CodePredictor) -> None:
        codes, _ = table(9, seed=2)
        mean = fitted.predict(codes).mean
        double = fitted.forward(torch.as_tensor(codes))
        single = fitted.forward(torch.as_tensor(codes, dtype=torch.float32))
        assert double.dtype == torch.float64 and single.dtype == torch.float32
        np.testing.assert_allclose(double.numpy(), mean, rtol=1e-9)
        np.testing.assert_allclose(single.numpy(), mean, rtol=1e-3)

    def test_gradients_match_finite_differences(self, fitted: CodePredictor) -> None:
        generator = torch.Generator().manual_seed(0)
        codes = torch.rand(3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
        assert torch.autograd.gradcheck(fitted.forward, codes)
        assert torch.autograd.gradcheck(lambda c: fitted.forward_with_std(c)[0], codes)

    def test_arguments_are_unchanged(self, make: Callable[..., CodePredictor]) -> None:
        codes, targets = table(30)
        before = codes.copy(), {name: column.copy() for name, column in targets.items()}
        make().fit(codes, targets).predict(codes)
        np.testing.assert_array_equal(codes, before[0])
        for name, column in targets.items():
            np.testing.assert_array_equal(column, before[1][name])

    def test_predict_before_fit(self, make: Callable[..., CodePredictor], tmp_path: Path) -> None:
        codes, _ = table(3)
        for call in (
            lambda p: p.predict(codes),
            lambda p: p.forward(torch.as_tensor(codes)),
            lambda p: p.save(tmp_path / "file"),
        ):
            with pytest.raises(NotFittedError, match="call fit first"):
                call(make())
        assert not (tmp_path / "file").exists()

    def test_constant_target(self, make: Callable[..., CodePredictor]) -> None:
        codes, targets = table(30)
        fit = make().fit(codes, {"flat": np.full(30, 0.1), "accuracy": targets["accuracy"]})
        assert fit.scale_[0] == 0 and fit.scale_[1] > 0
        np.testing.assert_allclose(fit.predict(codes)["flat"].mean, 0.1, rtol=1e-9)
        np.testing.assert_array_equal(fit.predict(codes)["flat"].std, 0.0)

    def test_two_rows(self, make: Callable[..., CodePredictor]) -> None:
        codes, targets = table(2)
        prediction = make().fit(codes, targets).predict(table(20, seed=3)[0])
        assert np.isfinite(prediction.mean).all() and np.isfinite(prediction.std).all()

    def test_duplicated_rows(self, make: Callable[..., CodePredictor]) -> None:
        codes, targets = table(10)
        many = {name: np.tile(column, 5) for name, column in targets.items()}
        prediction = make().fit(np.tile(codes, (5, 1)), many).predict(codes)
        assert np.isfinite(prediction.mean).all() and np.isfinite(prediction.std).all()

    def test_rows_with_nan_are_left_out(self, make: Callable[..., CodePredictor]) -> None:
        codes, targets = table(30)
        holes = {name: column.copy() for name, column in targets.items()}
        holes["accuracy"][4] = holes["latency"][9] = np.nan
        known = np.delete(np.arange(30), [4, 9])
        with_holes = make().fit(codes, holes)
        without = make().fit(codes[known], {name: c[known] for name, c in targets.items()})
        assert with_holes.n_rows_ == 28
        np.testing.assert_array_equal(with_holes.predict(codes).mean, without.predict(codes).mean)

    def test_too_little_or_broken_input_is_refused(
        self, make: Callable[..., CodePredictor]
    ) -> None:
        codes, targets = table(5)
        accuracy = targets["accuracy"]
        with pytest.raises(ValueError, match="at least 2 rows"):
            make().fit(codes, {"accuracy": np.full(5, np.nan)})
        with pytest.raises(ValueError, match="at least 2 rows"):
            make().fit(codes[:1], {"accuracy": accuracy[:1]})
        with pytest.raises(ValueError, match="finite"):
            make().fit(codes, {"accuracy": np.append(accuracy[:4], np.inf)})
        with pytest.raises(ValueError, match="at least one metric"):
            make().fit(codes, {})
        with pytest.raises(ValueError, match=r"shape \(5,\)"):
            make().fit(codes, {"accuracy": accuracy[:4]})
        with pytest.raises(SpaceError, match=r"shape \(n, 5\)"):
            make().fit(codes[:, :4], targets)
        with pytest.raises(SpaceError, match=r"shape \(n, 5\)"):
            make().fit(codes, targets).predict(codes[:, :4])


class TestEveryFile:
    def test_reload_predicts_the_same_to_the_bit(
        self, fitted: CodePredictor, tmp_path: Path
    ) -> None:
        codes, _ = table(50, seed=4)
        fitted.save(tmp_path / "p.safetensors")
        again = load_predictor(tmp_path / "p.safetensors", fitted.space)
        assert repr(again) == repr(fitted)
        assert (again.metrics_, again.n_rows_) == (fitted.metrics_, fitted.n_rows_)
        for before, after in (
            (fitted.predict(codes).mean, again.predict(codes).mean),
            (fitted.predict(codes).std, again.predict(codes).std),
            (fitted.scale_, again.scale_),
        ):
            np.testing.assert_array_equal(before, after)
        single = torch.as_tensor(codes, dtype=torch.float32)
        assert torch.equal(fitted.forward(single), again.forward(single))
        again.save(tmp_path / "q.safetensors")
        again.fit(*table(20))
        files = [tmp_path / f"{name}.safetensors" for name in "pq"]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert sorted(tmp_path.iterdir()) == files

    def test_damage_is_refused(self, fitted: CodePredictor, tmp_path: Path) -> None:
        file = tmp_path / "p.safetensors"
        fitted.save(file)
        whole = file.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        rng = np.random.default_rng(0)
        offsets = [0, 1, 7, 8, 9, header - 1, header, header + 1, len(whole) - 1]
        for offset in [*offsets, *rng.integers(len(whole), size=40).tolist()]:
            file.write_bytes(whole[:offset])
            with pytest.raises(FileFormatError, match="must"):
                load_predictor(file, fitted.space)
        for offset in [*range(0, header, 3), *rng.integers(header, len(whole), 40).tolist()]:
            flipped = bytearray(whole)
            flipped[offset] ^= 1 << int(rng.integers(8))
            file.write_bytes(flipped)
            with pytest.raises(FileFormatError, match="must"):
                load_predictor(file, fitted.space)
        file.write_bytes(whole + b"\0")
        with pytest.raises(FileFormatError, match="must"):
            load_predictor(file, fitted.space)

    def test_another_space_is_refused(self, fitted: CodePredictor, tmp_path: Path) -> None:
        fitted.save(tmp_path / "p")
        other = CodeSpace([*DIMENSIONS[:2], Nominal("op", ("conv", "pool", "none"))])
        with pytest.raises(FileFormatError, match="must be of the space"):
            load_predictor(tmp_path / "p", other)


class TestFiles:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        default_predictor(SPACES["plain"]).fit(*table(10)).save(tmp_path / "p")
        return tmp_path / "p"

    @staticmethod
    def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
        """Rewrites the description in a file's header."""
        data = file.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        content = json.loads(header["__metadata__"]["predictor"])
        change(content)
        header["__metadata__"]["predictor"] = json.dumps(content)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        file.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])

    def test_another_version_is_refused(self, file: Path) -> None:
        self.edit(file, lambda content: content.update(version=2))
        with pytest.raises(FileFormatError, match="must have format version 1, but has 2"):
            load_predictor(file, SPACES["plain"])

    def test_an_edited_description_is_refused(self, file: Path) -> None:
        self.edit(file, lambda content: content.update(metrics=["latency", "accuracy"]))
        with pytest.raises(FileFormatError, match="checksum"):
            load_predictor(file, SPACES["plain"])

    def test_other_files_are_refused(self, tmp_path: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"x": np.zeros(3)}, tmp_path / "tensors")
        save_file({"x": np.zeros(3)}, tmp_path / "other", {"predictor": '{"format": "other"}'})
        save_file({"x": np.zeros(3)}, tmp_path / "list", {"predictor": "[]"})
        (tmp_path / "text").write_text("not a predictor at all")
        (tmp_path / "deep").write_bytes((5000).to_bytes(8, "little") + b"[" * 5000)
        (tmp_path / "empty").touch()
        for name in ("tensors", "other", "list", "text", "deep", "empty"):
            with pytest.raises(FileFormatError, match="must be a predictor's file"):
                load_predictor(tmp_path / name, SPACES["plain"])

    def test_a_missing_file_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            load_predictor(tmp_path / "none", SPACES["plain"])

    def test_another_process_predicts_the_same(self, tmp_path: Path) -> None:
        codes, targets = table(50)
        fit = default_predictor(SPACES["plain"]).fit(codes, targets)
        fit.save(tmp_path / "p")
        np.save(tmp_path / "codes.npy", codes)
        script = """
import sys, numpy as np
from nni_aiop.predictors import load_predictor
from nni_aiop.spaces import CodeSpace, Nominal, Ordinal
space = CodeSpace([Ordinal("depth", (1, 2, 3, 4)),
    Ordinal("width", range(8, 129, 8), scale="linear"), Nominal("op", ("conv", "pool", "skip"))])
fit = load_predictor(sys.argv[1] + "/p", space)
found = fit.predict(np.load(sys.argv[1] + "/codes.npy"))
np.savez(sys.argv[1] + "/found.npz", mean=found.mean, std=found.std)
"""
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=600)
        with np.load(tmp_path / "found.npz") as found:
            np.testing.assert_array_equal(found["mean"], fit.predict(codes).mean)
            np.testing.assert_array_equal(found["std"], fit.predict(codes).std)


def test_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match="must be one of gp, ncp-mlp, but got 'tree'"):
        make_predictor("tree", SPACES["plain"])


def test_unknown_metric_lists_the_choices() -> None:
    prediction = default_predictor(SPACES["plain"]).fit(*table(10)).predict(table(3)[0])
    with pytest.raises(KeyError, match="accuracy, latency, but got 'flops'"):
        prediction["flops"]
