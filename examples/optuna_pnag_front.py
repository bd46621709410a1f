"""An Optuna study of two objectives with PNAG
===========================================

Digits networks, accurate and small.

On the command line::

    python examples/optuna_pnag_front.py --trials 40

Every network is really trained. The front is printed, and then networks that the study's generator
writes for budgets that nobody searched for.
"""

import argparse
import warnings
from pathlib import Path

import optuna

from nni_aiop.engines.optuna_space import suggest
from nni_aiop.results import SearchResults
from nni_aiop.search_spaces import digits
from nni_aiop.strategies import PNAGSampler


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=40, help="networks to train")
    parser.add_argument("--epochs", type=int, default=digits.EPOCHS, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of the search and of the trainings")
    parser.add_argument("--out", type=Path, default=Path("out/optuna_pnag_front"))
    args = parser.parse_args()

    space = digits.code_space()
    sampler = PNAGSampler(space, budget=args.trials, rounds=4, seed=args.seed)

    def objectives(trial: optuna.Trial) -> tuple[float, float]:
        metrics = digits.train_and_evaluate(
            suggest(trial, space), epochs=args.epochs, seed=args.seed
        )
        return metrics["val_accuracy"], metrics["flops"]

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    # By its name the second objective is the exact cost of the space.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    study.set_metric_names(["val_accuracy", "flops"])
    study.optimize(objectives, n_trials=args.trials)

    search = sampler.catch_up(study)
    SearchResults(space, search.history, search.objectives).save(args.out)
    print("The front (accuracy in percent, multiply-adds):")
    for trial in sorted(study.best_trials, key=lambda trial: trial.values[1]):
        print(f"  {trial.values[0]:5.1f}  {trial.values[1]:9,.0f}")
    generator = search.generator_
    low, high = generator.grid.levels["flops"][0], generator.grid.levels["flops"][-1]
    for budget in (low + share * (high - low) for share in (0.1, 0.3)):
        (sample,) = search.generate(budget)
        print(f"Generated for {budget:,.0f} multiply-adds: {space.canonical(sample)}")
    print(f"Results: {args.out}/results.json, history.csv, search.png")


if __name__ == "__main__":
    main()
