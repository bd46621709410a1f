"""Experiment files: NNI's fields for a NAS experiment, and a few of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nni_aiop.errors import FileFormatError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Named(BaseModel):
    """Something with a name and arguments; a bare text in the file is the name alone."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """All that stands beside the name."""
        return dict(self.model_extra or {})


class TrainingService(_Strict):
    """NNI's trainingService: on this machine."""

    platform: Literal["local"] = "local"


class ExecutionEngine(_Strict):
    """NNI's executionEngine: in this process, or trials as processes of the training service."""

    name: Literal["sequential", "ts"] = "sequential"


class Experiment(_Strict):
    """One experiment file.

    The names in camel case are NNI's (`NasExperimentConfig`); the others are ours.
    """

    experimentType: Literal["nas"] = "nas"
    experimentName: str = ""
    trialConcurrency: int = Field(1, ge=1)
    maxTrialNumber: int = Field(ge=1)
    trainingService: TrainingService = TrainingService()
    executionEngine: ExecutionEngine = ExecutionEngine()

    space: str
    evaluator: Named
    strategy: Named = Named(name="ncp")
    engine: Literal["auto", "nni", "optuna"] = "auto"
    seed: int = Field(0, ge=0)
    out: Path | None = None
    storage: str | None = None
    port: int | None = Field(None, ge=1, le=65535)

    @field_validator("evaluator", "strategy", "executionEngine", mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_at_a_time(self) -> Experiment:
        if self.executionEngine.name == "sequential" and self.trialConcurrency > 1:
            raise ValueError(
                "trialConcurrency must be 1 on the sequential engine, "
                f"but got {self.trialConcurrency}"
            )
        return self


def read_experiment(path: Path, **instead: Any) -> Experiment:
    """The experiment that a YAML file describes.

    Args:
        path: The file.
        instead: Fields that replace the file's, unless None.

    Raises:
        FileFormatError: The file is no YAML mapping, or a field is unknown, missing or illegal.
        OSError: The file cannot be read.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise FileFormatError(f"{path} must be a YAML file, but is not: {err}.") from err
    if not isinstance(data, dict):
        raise FileFormatError(
            f"{path} must hold fields and values, but holds {type(data).__name__}."
        )
    try:
        given = {k: v for k, v in instead.items() if v is not None}
        return Experiment(**{**{str(k): v for k, v in data.items()}, **given})
    except ValidationError as err:
        first = err.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(Experiment.model_fields)
            raise FileFormatError(
                f"{path} must only hold known fields, but has {field!r}; known are {known}."
            ) from err
        if first["type"] == "missing":
            raise FileFormatError(f"{path} must have the field {field!r}, but lacks it.") from err
        if not field:  # a rule between fields
            raise FileFormatError(f"{path}: {first['ctx']['error']}.") from err
        rule = first["msg"].replace("Input should be", "must be")
        raise FileFormatError(f"{path}: {field} {rule}, but got {first['input']!r}.") from err
