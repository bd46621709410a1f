"""Shrink a network of timm to several budgets
===========================================

What is cut where in resnet18, with random weights.

On the command line::

    python examples/shrink_timm.py

Nothing is trained here: the largest weights choose the channels, and each budget is met by uniform
pruning. A search with fine-tunes is `examples/shrink_digits.py`, or the command `nni-aiop shrink`.
"""

import argparse
from pathlib import Path

from nni_aiop.networks import Network
from nni_aiop.search import FlopsReduction
from nni_aiop.spaces import MutationSpace


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet18", help="a name of timm's")
    parser.add_argument("--size", type=int, default=224, help="of the images")
    parser.add_argument("--flops", type=float, nargs="+", default=[0.865, 0.5], help="budgets")
    parser.add_argument("--out", type=Path, default=Path("out/shrink_timm"))
    args = parser.parse_args()
    try:
        import timm
    except ImportError as err:
        print(
            f"timm must be importable here, but is not ({err}): install it with  pip install timm"
        )
        raise SystemExit(1) from err

    model = timm.create_model(args.network, pretrained=False).eval()
    network = Network.capture(model, (1, 3, args.size, args.size))
    space = MutationSpace(network.graph, sites=network.sites(keep=["fc"]))
    search = FlopsReduction(space, budgets=args.flops)
    print(f"{args.network}: {network.graph.macs:,} multiply-adds, {len(space.sites)} sites")
    for _ in search.budgets:
        (sample,) = search.ask(1)
        small = network.edit(space.edits(sample))
        part = small.graph.macs / network.graph.macs
        file = small.save(args.out / f"{args.network}-{search.budget_of(sample):g}.safetensors")
        print(f"\nAt most {search.budget_of(sample):g}: {part:.4f} of the multiply-adds ({file})")
        for label, value in space.edits(sample).items():
            print(f"  {label:32} {space.original[label]:>5} -> {value}")
        search.tell(sample, None)


if __name__ == "__main__":
    main()
