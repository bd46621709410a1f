"""A strategy of NNI over a model space of one's own
=================================================

NCP searches a `ModelSpace` of NNI, in an NNI experiment.

On the command line::

    python examples/nni_user_space.py --trials 20
    python examples/nni_user_space.py --trials 20 --engine ts    (each network in its own process)

Interrupt it and start it again: it goes on where it was, from the state in its folder.
"""

import argparse
from pathlib import Path

from user_space import UserSpace

from nni_aiop.engines.nni_experiment import run_nni
from nni_aiop.evaluators import SampleEvaluator
from nni_aiop.results import SearchResults
from nni_aiop.strategies import NCP


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20, help="networks to train")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--engine", choices=["sequential", "ts"], default="sequential")
    parser.add_argument("--out", type=Path, default=Path("out/nni_user_space_strategy"))
    args = parser.parse_args()

    strategy = NCP(budget=args.trials, seed=args.seed)
    run_nni(
        UserSpace(),
        SampleEvaluator("user_space:evaluate"),
        strategy,
        engine=args.engine,
        max_trials=args.trials,
        out_dir=args.out,
    )

    search = strategy.search_
    SearchResults(search.space, search.history, search.objectives).save(args.out)
    sample, metrics = search.best()
    print(f"The best of {args.trials} networks reaches {metrics['default']:.1f} %:")
    for name, value in sample.items():
        print(f"  {name:14} {value}")
    print(f"Results: {args.out}/results.json, history.csv, search.png")


if __name__ == "__main__":
    main()
