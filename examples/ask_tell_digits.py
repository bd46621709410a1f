"""A search in a loop of one's own
===============================

Ask for a network, train it, tell what it reached.

On the command line::

    python examples/ask_tell_digits.py --trials 40

Networks may have 200,000 multiply-adds at most. Interrupt it and start it again: it goes on where
it was, from the state that it writes after each network.
"""

import argparse
import json
from pathlib import Path

from tqdm import tqdm

from nni_aiop.files import write_json
from nni_aiop.results import SearchResults
from nni_aiop.search import NCPSearch
from nni_aiop.search_spaces import digits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=40, help="networks to train")
    parser.add_argument("--epochs", type=int, default=digits.EPOCHS, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of the search and of the trainings")
    parser.add_argument("--out", type=Path, default=Path("out/ask_tell_digits"))
    args = parser.parse_args()

    space = digits.code_space()
    search = NCPSearch(space, budget=args.trials, limits={"flops": 200_000}, seed=args.seed)
    state = args.out / "state.json"
    if state.exists():
        search.load_state_dict(json.loads(state.read_text()))

    done = len(search.history)
    for _ in tqdm(range(done, args.trials), initial=done, total=args.trials, unit="network"):
        # A network that was asked for before an interruption comes first.
        sample = (search.pending() or search.ask(1))[0]
        search.tell(sample, digits.train_and_evaluate(sample, epochs=args.epochs, seed=args.seed))
        write_json(state, search.state_dict())

    results = SearchResults(space, search.history, search.objectives, limits=search.limits)
    results.save(args.out)
    sample, metrics = search.best()
    print(f"The best of {len(search.history)} networks by validation accuracy:")
    for name, value in {**space.canonical(sample), **metrics}.items():
        print(f"  {name:14} {value}")
    print(f"Results: {args.out}/results.json, history.csv, search.png")


if __name__ == "__main__":
    main()
