"""An Optuna study with NCP as its sampler
=======================================

Small networks are really trained on digits.

On the command line::

    python examples/optuna_ncp_digits.py --trials 40

Networks may have 200,000 multiply-adds at most. With --storage sqlite:///digits.db the study is
kept: interrupt it and start it again, or start it several times at once. What a killed process was
training is trained again, once its heartbeat has been missing for three minutes.
"""

import argparse
from pathlib import Path

import optuna

from nni_aiop.engines.optuna_space import sample_of, suggest
from nni_aiop.results import SearchResults
from nni_aiop.search_spaces import digits
from nni_aiop.strategies import NCPSampler, open_storage


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=40, help="networks to train")
    parser.add_argument("--epochs", type=int, default=digits.EPOCHS, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of the search and of the trainings")
    parser.add_argument("--storage", help="Optuna's storage, such as sqlite:///digits.db")
    parser.add_argument("--out", type=Path, default=Path("out/optuna_ncp_digits"))
    args = parser.parse_args()

    space = digits.code_space()
    sampler = NCPSampler(space, budget=args.trials, limits={"flops": 200_000}, seed=args.seed)

    def objective(trial: optuna.Trial) -> float:
        sample = suggest(trial, space)
        metrics = digits.train_and_evaluate(sample, epochs=args.epochs, seed=args.seed)
        trial.set_user_attr("metrics", metrics)
        return metrics["val_accuracy"]

    study = optuna.create_study(
        study_name="digits",
        storage=open_storage(args.storage),
        load_if_exists=True,
        direction="maximize",
        sampler=sampler,
    )
    study.optimize(objective, n_trials=args.trials)

    search = sampler.catch_up(study)
    results = SearchResults(space, search.history, search.objectives, limits=search.limits)
    results.save(args.out)
    best = study.best_trial
    print(f"The best of {len(study.trials)} networks by validation accuracy:")
    for name, value in {**sample_of(best, space), **best.user_attrs["metrics"]}.items():
        print(f"  {name:14} {value}")
    print(f"Results: {args.out}/results.json, history.csv, search.png")


if __name__ == "__main__":
    main()
