#!/usr/bin/env bash
# On Python 3.13 an Optuna study on SQLite that nobody needs any more leaves ResourceWarnings.
#
# optuna 5.0.0, sqlalchemy 2.1.9, Python 3.13.0: sqlite3 warns since 3.13 of a connection that is
# collected open. RDBStorage closes none and has no close(): where the study goes, there is a
# ResourceWarning "unclosed database", which pytest with warnings as errors reports against a test that
# happens to run then. storage.engine.dispose() before that, on the RDBStorage itself, prevents it (a
# study's own `_storage` is a wrapper of it). Needs python3.13 on the PATH. This script fails if that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.13 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet optuna==5.0.0 sqlalchemy==2.1.9
cd "$folder"
env/bin/python - <<'PYTHON'
import gc
import warnings

import optuna

optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def told(name, disposed):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        storage = optuna.storages.RDBStorage(f"sqlite:///{name}.db")
        study = optuna.create_study(storage=storage)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        if disposed:
            storage.engine.dispose()
        del study, storage
        gc.collect()
    return [str(w.message) for w in found if w.category is ResourceWarning]


left, disposed = told("left", False), told("disposed", True)
print("left:", len(left), "disposed:", len(disposed))
assert left and all("unclosed database" in message for message in left)
assert not disposed, disposed
assert not hasattr(optuna.storages.RDBStorage, "close")
PYTHON
