#!/usr/bin/env bash
# Study.optimize(catch=...) holds for some of a sampler's methods, and not for others.
#
# optuna 5.0.0: a sampler that raises in infer_relative_search_space or sample_relative makes failed
# trials under catch, as an objective does, and the study goes on. One that raises in before_trial
# ends the study and leaves its trial RUNNING for ever; one that raises in after_trial ends it and
# leaves the trial COMPLETE. A sampler of one's own has to catch its errors in these two itself. This
# script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet optuna==5.0.0
cd "$folder"
env/bin/python - <<'PYTHON'
import optuna
from optuna.distributions import FloatDistribution

optuna.logging.set_verbosity(optuna.logging.CRITICAL)


class Raising(optuna.samplers.RandomSampler):
    def __init__(self, where):
        super().__init__(seed=0)
        self.where = where

    def at(self, name):
        if name == self.where:
            raise ValueError(name)

    def before_trial(self, study, trial):
        self.at("before_trial")

    def infer_relative_search_space(self, study, trial):
        self.at("infer_relative_search_space")
        return {"x": FloatDistribution(0, 1)}

    def sample_relative(self, study, trial, search_space):
        self.at("sample_relative")
        return {}

    def after_trial(self, study, trial, state, values):
        self.at("after_trial")


found = {}
for where in ("infer_relative_search_space", "sample_relative", "before_trial", "after_trial"):
    study = optuna.create_study(sampler=Raising(where))
    try:
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3, catch=ValueError)
        ends = "goes on"
    except ValueError:
        ends = "ends"
    found[where] = (ends, [trial.state.name for trial in study.trials])
    print(where, *found[where])
assert list(found.values()) == [
    ("goes on", ["FAIL"] * 3),
    ("goes on", ["FAIL"] * 3),
    ("ends", ["RUNNING"]),
    ("ends", ["COMPLETE"]),
]
PYTHON
