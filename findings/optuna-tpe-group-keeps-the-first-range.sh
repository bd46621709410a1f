#!/usr/bin/env bash
# With group=True, Optuna's TPE keeps a parameter within its first range when the range has grown.
#
# optuna 5.0.0: x is suggested from 0 to 2 for 20 trials and from 0 to 10 for 40 more, where the best
# is 9. TPESampler(multivariate=True, group=True) stays below 2 in all 40, without a warning, as the
# group keeps the distribution that it has seen first. The default of 5.0.0 (multivariate) drops a
# parameter of several ranges from what it samples jointly, and samples it alone and from the new
# range, as does multivariate=False: 39 and 40 of 40 lie above 2. So a space that grows while a study
# goes on is searched in its old part only. This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet optuna==5.0.0
cd "$folder"
env/bin/python - <<'PYTHON'
import warnings

import optuna
from optuna.samplers import TPESampler

warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def objective(trial):
    x = trial.suggest_float("x", 0, 2 if trial.number < 20 else 10)
    return (x - 9) ** 2 + trial.suggest_float("y", 0, 1)


def beyond(**options):
    """How many of 40 trials leave the first range."""
    study = optuna.create_study(sampler=TPESampler(seed=0, **options))
    study.optimize(objective, n_trials=60)
    return sum(trial.params["x"] > 2 for trial in study.trials[20:])


found = {
    "default": beyond(),
    "univariate": beyond(multivariate=False),
    "group": beyond(multivariate=True, group=True),
}
print("of 40 trials, beyond the first range:", found)
assert found["group"] == 0 and min(found["default"], found["univariate"]) > 30, found
PYTHON
