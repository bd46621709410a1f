"""`nni-aiop spaces`: what there is to search."""

from __future__ import annotations

from typing import Annotated

import typer

from nni_aiop.cli._app import help_without_command, table
from nni_aiop.errors import MissingPackageError

spaces = typer.Typer(name="spaces", rich_markup_mode=None, help="The spaces to search.")
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
    for name in SPACES:
        try:
            space = get_space(name)
        except MissingPackageError as err:
            rows.append([name, "", "", str(err)])
            continue
        rows.append(
            [name, len(space), f"{space.size:.3g}", ", ".join(space.shown_costs()) or "none"]
        )
    typer.echo(table(["space", "dimensions", "points", "exact costs"], rows))
    typer.echo("\nThe cost flops of these counts multiply-adds, which `graph` calls MACs.")


@spaces.command("show")
def show_space(
    name: Annotated[str, typer.Argument(help="A name from `spaces list`, or module:attribute.")],
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
    typer.echo(f"{space.name}: {len(space)} dimensions, {space.size:.3g} points\n")
    typer.echo(table(["dimension", "kind", "choices", "active when"], list(space.table())))
    for constraint in space.constraints:
        typer.echo(f"constraint: {constraint.name}")
    (sample,) = space.sample(1, np.random.default_rng(seed))
    typer.echo(f"\nAn example (the random architecture of seed {seed}):")
    shown = ", ".join(f"{k}={v!r}" for k, v in space.canonical(sample).items())
    typer.echo(f"  {shown}")
    for cost in space.shown_costs() or space.costs:
        typer.echo(f"  {cost} = {space.cost(cost, space.encode([sample]))[0]:.6g}")
