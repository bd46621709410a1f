"""A loop over a model space written for NNI
=========================================

No NNI experiment is started.

On the command line::

    python examples/ask_tell_user_space.py --trials 20
"""

import argparse
from pathlib import Path

from tqdm import tqdm
from user_space import UserSpace, evaluate

from nni_aiop.engines.nni_space import code_space_from_nni
from nni_aiop.results import SearchResults
from nni_aiop.search import NCPSearch


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20, help="networks to train")
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--out", type=Path, default=Path("out/ask_tell_user_space"))
    args = parser.parse_args()

    space = code_space_from_nni(UserSpace())
    search = NCPSearch(space, budget=args.trials, seed=args.seed)
    for _ in tqdm(range(args.trials), unit="network"):
        (sample,) = search.ask(1)
        search.tell(sample, {"default": evaluate(sample)})

    SearchResults(space, search.history, search.objectives).save(args.out)
    sample, metrics = search.best()
    print(f"The best of {args.trials} networks reaches {metrics['default']:.1f} %:")
    for name, value in sample.items():
        print(f"  {name:14} {value}")
    print(f"Results: {args.out}/results.json, history.csv, search.png")


if __name__ == "__main__":
    main()
