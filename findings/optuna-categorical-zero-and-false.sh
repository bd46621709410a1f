#!/usr/bin/env bash
# Of the choices 0 and False, Optuna's trial is given either and the study records the first.
#
# optuna 5.0.0: choices=[0, False, 2] are three to the sampler, and trial.suggest_categorical returns
# each of the three. The storage looks a value up by ==, and so the index of False is that of 0: every
# trial that ran with False is on record with 0. best_params then names a network that was not the
# best, and TPE learns one value for two. The same holds for 1 and True, and 1 and 1.0. There is no
# warning. ("skip, or a kernel's size" is written so.) This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet optuna==5.0.0
cd "$folder"
env/bin/python -W error - <<'PYTHON'
import optuna

optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def seen(choices, best):
    """The values trials were given, those on record, and the best trial's, which was given `best`."""

    def objective(trial):
        given.append(repr(trial.suggest_categorical("kernel", choices)))
        return given[-1] != repr(best)

    given = []
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=30)
    recorded = {repr(trial.params["kernel"]) for trial in study.trials}
    assert study.best_value == 0
    return set(given), recorded, repr(study.best_params["kernel"])


for choices in ([0, False, 2], [1, True, 2], [1, 1.0, 2]):
    given, recorded, best = seen(choices, best=choices[1])
    print(choices, "given", sorted(given), "on record", sorted(recorded), "best", best)
    assert given == {repr(choice) for choice in choices}
    assert recorded == {repr(choices[0]), "2"} and best == repr(choices[0])
PYTHON
