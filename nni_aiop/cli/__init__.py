"""The command line `nni-aiop`: the one place that joins all the rooms, and nothing imports it."""

from nni_aiop.cli._app import app, main
from nni_aiop.cli._generate import generate
from nni_aiop.cli._graph import graph
from nni_aiop.cli._predict import predict
from nni_aiop.cli._predictor import predictor
from nni_aiop.cli._rank import rank
from nni_aiop.cli._report import report
from nni_aiop.cli._run import run
from nni_aiop.cli._search import search
from nni_aiop.cli._shrink import shrink
from nni_aiop.cli._spaces import spaces
from nni_aiop.cli._supernet import supernet

__all__ = ["app", "main"]

app.command()(search)
app.command()(run)
app.command()(shrink)
app.command()(generate)
app.command()(report)
app.command()(graph)
app.command()(predict)
app.command()(rank)
app.add_typer(predictor)
app.add_typer(spaces)
app.add_typer(supernet)
