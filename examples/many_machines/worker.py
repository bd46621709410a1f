"""One worker of a search that many machines share: it really trains small networks on digits.

    python examples/many_machines/worker.py --storage postgresql://nni@HOST/nni --trials 40

Start it as often as you like, on any machine that reaches the storage, and kill what you like: the
workers go on until there are 40 results, those of all counted, and what a killed one was training
is trained again by another. docs/many-machines.md has the rest.
"""

import argparse
import os
import socket

import optuna

from nni_aiop.engines.optuna_space import sample_of, suggest
from nni_aiop.search_spaces import digits
from nni_aiop.strategies import NCPSampler, open_storage, optimize_together


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--storage", required=True, help="postgresql://nni@HOST/nni, for example")
    parser.add_argument("--study", default="digits", help="name of the study in the storage")
    parser.add_argument("--trials", type=int, default=40, help="results wanted, over all workers")
    parser.add_argument("--epochs", type=int, default=digits.EPOCHS, help="of each training")
    parser.add_argument("--heartbeat", type=int, default=60, help="seconds between two heartbeats")
    parser.add_argument("--stale-after", type=float, help="seconds; where there are no heartbeats")
    args = parser.parse_args()

    space = digits.code_space()
    # One seed for all: every worker plans the same search, and claims what it trains.
    limits = {"flops": 200_000}  # multiply-adds: no network above is ever trained
    late = args.stale_after
    sampler = NCPSampler(space, budget=args.trials, limits=limits, seed=0, stale_after=late)
    study = optuna.create_study(
        study_name=args.study,
        storage=open_storage(args.storage, heartbeat_interval=args.heartbeat),
        load_if_exists=True,
        direction="maximize",
        sampler=sampler,
    )

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
        metrics = digits.train_and_evaluate(suggest(trial, space), epochs=args.epochs)
        trial.set_user_attr("metrics", metrics)
        return metrics["val_accuracy"]

    optimize_together(study, objective, args.trials, stale_after=late)

    best = study.best_trial
    own = f"{socket.gethostname()}:{os.getpid()}"
    mine = sum(t.user_attrs.get("worker") == own for t in study.trials)
    print(f"{args.trials} results, of which this worker has {mine}. The best by validation:")
    for name, value in {**sample_of(best, space), **best.user_attrs["metrics"]}.items():
        print(f"  {name:14} {value}")


if __name__ == "__main__":
    main()
