"""`nni-aiop spaces`: what there is to search."""

from __future__ import annotations

from typing import Annotated

import typer

from nni_aiop.cli import _names as names
from nni_aiop.cli._app import help_without_command, table
from nni_aiop.cli._tell import Commands, answer, note
from nni_aiop.errors import MissingPackageError

spaces = Commands(name="spaces", rich_markup_mode=None, help="The spaces to search.")
help_without_command(spaces)


@spaces.command("list")
def list_spaces() -> None:
    """List the ready spaces: dimensions, number of points, exact costs.

    \b
    Example
      nni-aiop spaces list
    """
    from nni_aiop.search_spaces import SPACES, get_space

    rows: list[list[object]] = []
    listed: list[dict[str, object]] = []
    for name in SPACES:
        try:
            space = get_space(name)
        except MissingPackageError as err:
            rows.append([name, "", "", str(err)])
            listed.append({"name": name, "missing": str(err)})
            continue
        costs = list(space.shown_costs())
        rows.append([name, len(space), f"{space.size:.3g}", ", ".join(costs) or "none"])
        listed.append(
            {"name": name, "dimensions": len(space), "points": space.size, "costs": costs}
        )
    answer(table(["space", "dimensions", "points", "exact costs"], rows), spaces=listed)
    note("\nThe cost flops of these counts multiply-adds, which `graph` calls MACs.")


@spaces.command("show")
def show_space(
    name: Annotated[
        str,
        typer.Argument(
            help="A name from `spaces list`, or module:attribute.", autocompletion=names.spaces
        ),
    ],
    seed: Annotated[
        int, typer.Option(min=0, help="Which random architecture to show the costs of.")
    ] = 0,
) -> None:
    """Show a space: its dimensions, their kinds and choices, and the costs of an example.

    \b
    Examples
      nni-aiop spaces show digits
      nni-aiop spaces show my_module:MySpace
    """
    import numpy as np

    from nni_aiop.cli._inputs import load_space

    space = load_space(name)
    (sample,) = space.sample(1, np.random.default_rng(seed))
    chosen = space.canonical(sample)
    codes = space.encode([sample])
    costs = {cost: float(space.cost(cost, codes)[0]) for cost in space.shown_costs() or space.costs}
    rows = list(space.table())
    constraints = [constraint.name for constraint in space.constraints]
    heading = ["dimension", "kind", "choices", "active when"]
    lines = [
        f"{space.name}: {len(space)} dimensions, {space.size:.3g} points\n",
        table(heading, rows),
        *(f"constraint: {name}" for name in constraints),
        f"\nAn example (the random architecture of seed {seed}):",
        f"  {', '.join(f'{k}={v!r}' for k, v in chosen.items())}",
        *(f"  {cost} = {value:.6g}" for cost, value in costs.items()),
    ]
    answer(
        "\n".join(lines),
        space=space.name,
        points=space.size,
        dimensions=[
            {
                "name": label,
                "kind": kind,
                "choices": list(getattr(dimension, "values", ())) or choices,
                "active_when": active or None,
            }
            for dimension, (label, kind, choices, active) in zip(
                space.dimensions, rows, strict=True
            )
        ],
        constraints=constraints,
        example={"sample": chosen, "costs": costs},
    )
