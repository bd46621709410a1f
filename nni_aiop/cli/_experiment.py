"""Experiment files: NNI's fields for a NAS experiment, and a few of ours."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nni_aiop.cli._app import MOST
from nni_aiop.engines._references import without_password
from nni_aiop.errors import FileFormatError
from nni_aiop.files import brief, parse_yaml


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
    useActiveGpu: bool | None = None
    maxTrialNumberPerGpu: int | None = Field(default=None, ge=1)
    gpuIndices: list[int] | int | str | None = None


class ExecutionEngine(_Strict):
    """NNI's executionEngine: in this process, or trials as processes of the training service."""

    name: Literal["sequential", "ts"] = "sequential"


WITHOUT_EFFECT = (
    "maxExperimentDuration",
    "maxTrialDuration",
    "experimentWorkingDirectory",
    "logLevel",
    "debug",
)
"""Fields of NNI's that are read and change nothing."""


class Experiment(_Strict):
    """One experiment file.

    The names in camel case are NNI's (`NasExperimentConfig`); the others are ours. Those of
    `WITHOUT_EFFECT` are read, so that files of NNI's need no editing, and told of.
    """

    experimentType: Literal["nas"] = "nas"
    experimentName: str = ""
    trialConcurrency: int = Field(1, ge=1)
    maxTrialNumber: int = Field(ge=1, le=MOST)
    trialGpuNumber: int | None = Field(None, ge=0)
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

    maxExperimentDuration: str | int | None = None
    maxTrialDuration: str | int | None = None
    experimentWorkingDirectory: str | None = None
    logLevel: str | None = None
    debug: bool | None = None

    @property
    def record(self) -> dict[str, Any]:
        """The experiment in plain JSON, without the password of its storage."""
        record = self.model_dump(mode="json")
        if self.storage is not None:
            record["storage"] = without_password(self.storage)
        return record

    @property
    def identity(self) -> dict[str, Any]:
        """What two runs of one experiment have in common, in plain JSON."""
        may_differ = {"out", "maxTrialNumber", "port", "engine", *WITHOUT_EFFECT}
        return {name: value for name, value in self.record.items() if name not in may_differ}

    @property
    def study_name(self) -> str | None:
        """In a storage, which others may share, a name that only the same experiment has."""
        if self.storage is None:
            return None
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        return f"{self.experimentName or self.space} {digest[:8]}"

    @property
    def service(self) -> dict[str, Any]:
        """What the file says of NNI's training service, by NNI's names in Python."""
        given = {
            "trial_gpu_number": self.trialGpuNumber,
            "use_active_gpu": self.trainingService.useActiveGpu,
            "max_trial_number_per_gpu": self.trainingService.maxTrialNumberPerGpu,
            "gpu_indices": self.trainingService.gpuIndices,
        }
        return {name: value for name, value in given.items() if value is not None}

    def without_effect(self, engine: str) -> list[str]:
        """The fields of the file that change nothing on an engine, nni or optuna."""
        fields = [name for name in WITHOUT_EFFECT if getattr(self, name) is not None]
        if engine == "nni" and self.storage is not None:
            fields.append("storage")
        if engine == "optuna" or self.executionEngine.name == "sequential":
            fields += ["trialGpuNumber"] * (self.trialGpuNumber is not None)
            service = self.trainingService.model_dump(exclude={"platform"}, exclude_none=True)
            fields += [f"trainingService.{name}" for name in service]
        return fields

    @field_validator("evaluator", "strategy", "executionEngine", mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        if self.executionEngine.name == "sequential" and self.trialConcurrency > 1:
            raise ValueError(
                "trialConcurrency must be 1 on the sequential engine, "
                f"but got {self.trialConcurrency}"
            )
        if self.trialGpuNumber and self.trainingService.useActiveGpu is None:
            raise ValueError(
                "trainingService.useActiveGpu must be true or false beside trialGpuNumber, "
                "but is missing"
            )
        if self.trainingService.maxTrialNumberPerGpu is not None and not self.trialGpuNumber:
            raise ValueError(
                "trainingService.maxTrialNumberPerGpu must stand beside a trialGpuNumber, "
                "but that is missing"
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
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise FileFormatError(f"{path} must be a YAML file, but is not: {brief(err)}.") from err
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise FileFormatError(
            f"{path} must hold fields and values, but "
            + ("is empty." if data is None else f"holds {type(data).__name__}.")
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
                f"{path} must only hold known fields, but has {field!r:.80}; known are {known}."
            ) from err
        if first["type"] == "missing":
            raise FileFormatError(f"{path} must have the field {field!r}, but lacks it.") from err
        if not field:  # a rule between fields
            raise FileFormatError(f"{path}: {first['ctx']['error']}.") from err
        rule = first["msg"].replace("Input should be", "must be")
        raise FileFormatError(
            f"{path}: {field:.80} {rule}, but got {first['input']!r:.80}."
        ) from err
