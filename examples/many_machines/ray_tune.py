"""The same search through Ray Tune: Ray places the trainings, NCP proposes what to train.

    pip install "ray[tune]"
    python examples/many_machines/ray_tune.py --trials 20                      # on this machine
    python examples/many_machines/ray_tune.py --trials 20 --address auto       # on a Ray cluster

With --storage sqlite:///digits.db, or a database's URL, the study is kept: started again, it goes
on with what it has learned.
"""

import argparse
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from nni_aiop.engines.optuna_space import suggest
from nni_aiop.search_spaces import digits
from nni_aiop.strategies import NCPSampler, open_storage

SPACE = digits.code_space()


def space(trial: optuna.Trial) -> dict[str, Any]:
    """The active labels of what to train; Ray pickles this, so that it must have a name."""
    return dict(suggest(trial, SPACE))


def train(sample: dict[str, Any], epochs: int) -> None:
    metrics = digits.train_and_evaluate(sample, epochs=epochs)
    tune.report({"val_accuracy": metrics["val_accuracy"], "flops": metrics["flops"]})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20, help="networks to train")
    parser.add_argument("--epochs", type=int, default=digits.EPOCHS, help="of each training")
    parser.add_argument("--parallel", type=int, default=2, help="trainings at a time")
    parser.add_argument("--storage", help="Optuna's storage, such as sqlite:///digits.db")
    parser.add_argument("--address", help="of a Ray cluster; a local one by default")
    args = parser.parse_args()

    ray.init(address=args.address, include_dashboard=False, log_to_driver=False)
    # Metric and mode belong here: what TuneConfig says of them does not reach a given space.
    search = OptunaSearch(
        space=space,
        sampler=NCPSampler(SPACE, budget=args.trials, limits={"flops": 200_000}, seed=0),
        metric="val_accuracy",
        mode="max",
        # Ray asks and tells: such trials have no heartbeats.
        storage=open_storage(args.storage, heartbeat_interval=None),
    )
    tuner = tune.Tuner(
        tune.with_parameters(train, epochs=args.epochs),
        tune_config=tune.TuneConfig(
            search_alg=search, num_samples=args.trials, max_concurrent_trials=args.parallel
        ),
        # A training whose machine is lost is begun again elsewhere, up to three times.
        run_config=tune.RunConfig(verbose=0, failure_config=tune.FailureConfig(max_failures=3)),
    )
    results = tuner.fit()
    best = results.get_best_result("val_accuracy", "max")
    print(f"The best of {len(results)} networks has {best.metrics['val_accuracy']:.1f} %:")
    for name, value in best.config.items():
        print(f"  {name:14} {value}")


if __name__ == "__main__":
    main()
