"""An Optuna study over a model space written for NNI
==================================================

No NNI experiment is started.

On the command line::

    python examples/optuna_user_space.py --trials 20
"""

import argparse
from pathlib import Path

import optuna
from user_space import UserSpace, evaluate

from nni_aiop.engines.optuna_space import suggest_nni
from nni_aiop.results import SearchResults
from nni_aiop.strategies import NCPSampler


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20, help="networks to train")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--out", type=Path, default=Path("out/optuna_user_space"))
    args = parser.parse_args()

    space = UserSpace()
    sampler = NCPSampler(space, budget=args.trials, seed=args.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: evaluate(suggest_nni(trial, space)), n_trials=args.trials)

    search = sampler.catch_up(study)
    SearchResults(search.space, search.history, search.objectives).save(args.out)
    print(f"The best of {len(study.trials)} networks reaches {study.best_value:.1f} %:")
    for name, value in study.best_params.items():
        print(f"  {name:14} {value}")
    print(f"Results: {args.out}/results.json, history.csv, search.png")


if __name__ == "__main__":
    main()
