"""Changes single places of the code at random and counts how many changes the quick tests notice.

A development tool outside CI: `make mutants ARGS="--room search --count 20 --seed 1"`. The changes
("mutants") are those of cosmic-ray (`pip install -c constraints.txt cosmic-ray`, or the extra
`mutants`): `<` becomes `<=`, `+` becomes `-`, 1 becomes 2, `and` becomes `or`, a loop is skipped. A
seed draws places of each room, then one change at each place, and each runs the tests in TESTS on
a copy of the working tree. A mutant that no test notices survives: it is printed with its line and
is either a missing test or a change that makes no difference. A time-out counts as noticed.

What no test should have to notice is left out (`left_out` says each kind): annotations, messages,
constants and defaults whose value is a matter of tuning, changes that Python treats alike.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import importlib
import io
import itertools
import os
import py_compile
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ROOMS = {
    "search": "nni_aiop/search/*.py",
    "costs": "nni_aiop/graphs/_costs.py",
    "predictors": "nni_aiop/predictors/**/*.py",
    "generators": "nni_aiop/generators/*.py",
    "engines": "nni_aiop/engines/*.py",
}

# The tests of a file, those that notice most first; the first pattern that fits counts.
TESTS = {
    "nni_aiop/search/_acquisition.py": "search/test_acquisition_by_hand.py"
    " search/test_acquisition.py search/test_search_contract.py",
    "nni_aiop/search/_drawing.py": "search/test_drawing.py",
    "nni_aiop/search/_propagation*.py": "search/test_propagation*.py search/test_what_*.py"
    " search/test_search_contract.py",
    "nni_aiop/search/_budgeted.py": "search/test_reduction.py",
    "nni_aiop/search/_reduction.py": "search/test_reduction.py"
    " strategies/test_flops_reduction_sampler.py",
    "nni_aiop/search/_base.py": "search/test_search_contract.py search/test_sample_costs.py"
    " test_damaged_files.py search",
    "nni_aiop/search/_baselines.py": "search/test_baselines*.py search/test_search_contract.py"
    " search/test_acquisition.py search/test_sample_costs.py test_damaged_files.py",
    "nni_aiop/search/_metrics.py": "search/test_metrics.py search/test_search_contract.py",
    "nni_aiop/search/_options.py": "strategies/test_options.py",
    "nni_aiop/search/_[np]*.py": "search/test_*_by_hand.py search/test_search_contract.py"
    " search/test_acquisition.py strategies/test_pnag*.py test_damaged_files.py",
    "nni_aiop/search/*": "search/test_search_contract.py search/test_acquisition.py search",
    "nni_aiop/graphs/_costs.py": "graphs/test_costs.py graphs/test_products.py"
    " graphs/test_costs_*.py graphs/test_recurrent.py",
    "nni_aiop/predictors/_gp.py": "predictors/test_code_gp.py"
    " predictors/test_predictor_contract.py",
    "nni_aiop/predictors/_pareto.py": "predictors/test_pareto_evaluator.py generators",
    "nni_aiop/predictors/_budgets.py": "predictors/test_pareto_evaluator.py generators",
    "nni_aiop/predictors/metrics.py": "predictors/test_predictor_metrics.py",
    "nni_aiop/predictors/graph/*": "predictors/graph",
    "nni_aiop/predictors/tabular/*": "predictors/test_tabular_*.py"
    " predictors/test_early_stopping.py engines/test_optuna_pruner.py",
    "nni_aiop/predictors/*": "predictors/test_predictor_*.py predictors/test_*.py",
    "nni_aiop/generators/*": "generators/test_policy_gradient.py generators/test_re*.py generators",
    "nni_aiop/engines/_nni_activity.py": "engines/test_small_parts.py engines/test_nni_space.py",
    "nni_aiop/engines/_nni_reaper.py": "engines/test_nni_experiment.py",
    "nni_aiop/engines/_nni.py": "engines/test_nni_*.py strategies/test_nni_tuner.py"
    " strategies/test_nni_strategies.py",
    "nni_aiop/engines/_progress.py": "engines/test_progress.py engines/test_nni_experiment.py"
    " engines/test_optuna_experiment.py",
    "nni_aiop/engines/_references.py": "engines/test_small_parts.py engines/test_nni_*.py",
    "nni_aiop/engines/_results.py": "engines/test_small_parts.py"
    " engines/test_optuna_experiment.py engines/test_nni_experiment.py",
    "nni_aiop/engines/_state.py": "engines/test_small_parts.py strategies/test_nni_tuner.py",
    "nni_aiop/engines/_ordered.py": "engines/test_ordered_choices.py engines/test_*_space.py",
    "nni_aiop/engines/nni_assessor.py": "engines/test_nni_early_stopping.py",
    "nni_aiop/engines/nni_early_stopping.py": "engines/test_nni_early_stopping.py",
    "nni_aiop/engines/nni_evaluators.py": "engines/test_nni_evaluators.py"
    " engines/test_graph_predictor_evaluator.py",
    "nni_aiop/engines/nni_experiment.py": "engines/test_nni_experiment.py"
    " engines/test_nni_evaluators.py engines/test_same_on_both_engines.py",
    "nni_aiop/engines/nni_json.py": "engines/test_nni_json.py strategies/test_nni_tuner.py",
    "nni_aiop/engines/nni_space.py": "engines/test_nni_space.py engines/test_ordered_choices.py",
    "nni_aiop/engines/nni_strategy.py": "strategies/test_nni_strategies.py"
    " engines/test_nni_experiment.py engines/test_same_on_both_engines.py",
    "nni_aiop/engines/optuna_pruner.py": "engines/test_optuna_pruner.py",
    "nni_aiop/engines/optuna_objectives.py": "engines/test_graph_predictor_evaluator.py",
    "nni_aiop/engines/optuna_experiment.py": "engines/test_optuna_experiment.py"
    " engines/test_optuna_processes.py engines/test_same_on_both_engines.py",
    "nni_aiop/engines/*": "engines/test_optuna_parameters.py engines/test_optuna_space.py"
    " engines/test_optuna_learner.py engines/test_optuna_*.py engines/test_ordered_choices.py"
    " strategies/test_optuna_contract.py strategies/test_ncp_sampler.py",
}

# What tests import inside functions; what they import at their top is found by collecting them.
INSIDE = "scipy.optimize scipy.stats sklearn.ensemble optuna torch_geometric.nn torch.export yaml"

# Other changes of an arithmetic operator mostly end in a TypeError, which proves nothing.
NEAR = {
    "Add": ("Sub", "Mul"),
    "Sub": ("Add", "Div"),
    "Mul": ("Div", "Add", "Pow"),
    "Div": ("Mul", "FloorDiv", "Sub"),
    "FloorDiv": ("Div", "Mul"),
    "Mod": ("FloorDiv", "Mul"),
    "Pow": ("Mul", "Div"),
    "BitOr": ("BitAnd",),
    "BitAnd": ("BitOr",),
    "BitXor": ("BitOr",),
    "LShift": ("RShift",),
    "RShift": ("LShift",),
}

Span = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Mutant:
    """One change: the operator's name, which of its occurrences, and where in the file."""

    path: str
    operator: str
    occurrence: int
    span: Span


def left_out(source: str) -> list[tuple[Span, str, str]]:
    """Where a change is no fault of the tests: the place, the operators' prefix, the reason."""
    lines = source.split("\n")

    def span(node: ast.AST) -> Span:
        def place(line: int, column: int) -> tuple[int, int]:
            return line, len(lines[line - 1].encode()[:column].decode())

        return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)

    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            found.append((span(node.annotation), "", "annotations"))
        if isinstance(node, ast.FunctionDef):
            if node.returns:
                found.append((span(node.returns), "", "annotations"))
            for value in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
                found.append((span(value), "Number", "numbers that are defaults"))
            for decorator in node.decorator_list:
                if ast.unparse(decorator) in ("abstractmethod", "overload", "override", "cache"):
                    found.append((span(decorator), "RemoveDecorator", "decorators without effect"))
        elif isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and line.value:
                    found.append((span(line.value), "Number", "numbers that are defaults"))
                elif (
                    isinstance(line, ast.Assign)
                    and isinstance(line.value, ast.Constant)
                    and ast.unparse(line.targets[0]).startswith("_")
                ):  # as a module's: the weight that a kind of predictor gives to a prior, say
                    found.append((span(line.value), "Number", "constants"))
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found += [(span(value), "", "messages") for value in node.exc.args]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "warn":
            found += [(span(part), "", "messages") for part in [*node.args, *node.keywords]]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "zip":
            found += [(span(word), "ReplaceTrue", "zip(strict=True)") for word in node.keywords]
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            found.append((span(node), "", "TYPE_CHECKING"))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.col_offset == 0 and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if all(isinstance(name, ast.Name) and name.id.isupper() for name in targets):
                found.append((span(node.value), "", "constants"))
            elif isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr):
                found.append((span(node.value), "", "annotations"))
    return found


def alike(operator: str) -> bool:
    """Whether an operator's change is one that Python mostly treats alike, or as a TypeError."""
    kind, _, pair = operator.partition("Operator_")
    before, _, after = pair.partition("_")
    if kind == "ReplaceBinary":
        return after not in NEAR[before]
    if kind == "ReplaceComparison":
        return {before, after} in ({"Eq", "Is"}, {"NotEq", "IsNot"}) or (
            (before in ("Is", "IsNot")) != (after in ("Is", "IsNot"))
        )
    if kind == "ReplaceUnary":
        return before != "Delete" and "UAdd" not in pair
    return False


def mutants_of(path: str) -> tuple[list[Mutant], Counter[str]]:
    """Every mutant of a file, and how many were left out for each reason."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.operators.provider import OperatorProvider

    source = (ROOT / path).read_text(encoding="utf-8")
    nodes = list(ast_nodes(get_ast(source)))
    places = left_out(source)
    provider = OperatorProvider()
    kept: list[Mutant] = []
    reasons: Counter[str] = Counter()
    if path.endswith(("_drawing.py", "_picture.py")):
        places.append((((0, 0), (len(source), 0)), "Number", "sizes in figures"))
    for name in provider:
        if provider[name].arguments():
            continue
        operator = provider[name]()
        spans = [span for node in nodes for span in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(spans):
            why = [
                reason
                for (low, high), prefix, reason in places
                if name.startswith(prefix)
                and (
                    (low <= start and end <= high)
                    or (prefix == "RemoveDecorator" and start[0] == low[0])
                )
            ]
            if alike(name):
                continue
            if why:
                reasons[why[0]] += 1
            else:
                kept.append(Mutant(path, name, occurrence, (start, end)))
    return kept, reasons


def drawn(room: str, count: int, seed: int) -> tuple[list[Mutant], int, Counter[str]]:
    """`count` mutants of a room at different places, how many there are, and what was left out.

    A place is drawn first and then one of its changes: a place with many of them counts once.
    """
    mutants: list[Mutant] = []
    reasons: Counter[str] = Counter()
    for path in sorted(ROOT.glob(ROOMS[room])):
        more, out = mutants_of(path.relative_to(ROOT).as_posix())
        mutants += more
        reasons += out
    places: dict[tuple[str, Span], list[Mutant]] = {}
    for mutant in mutants:
        places.setdefault((mutant.path, mutant.span), []).append(mutant)
    rng = random.Random(f"{seed} {room}")
    order = sorted(places)
    rng.shuffle(order)
    sample = (rng.choice(places[place]) for place in order)
    valid = (mutant for mutant in sample if _compiles(mutated(mutant)[0]))
    return list(itertools.islice(valid, count)), len(mutants), reasons


def _compiles(text: str) -> bool:
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def mutated(mutant: Mutant) -> tuple[str, str]:
    """The file's text with the change, and the changed line."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.operators.provider import OperatorProvider

    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    text = mutate_code(source, OperatorProvider()[mutant.operator](), mutant.occurrence)
    before, after = source.split("\n"), text.split("\n")
    number = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    return (
        text,
        f"{mutant.path}:{number + 1}  {before[number].strip()}  ->  {after[number].strip()}",
    )


def tests_of(path: str, tree: Path) -> list[str]:
    """The test files of a file of the package, in the order in which they run."""
    known = next(pattern for pattern in TESTS if fnmatch(path, pattern))
    files: list[str] = []
    for entry in [*TESTS[known].split(), "packaging/test_records.py"]:
        matches = sorted(tree.glob(f"tests/{entry}"))
        assert matches, f"{entry} names no test"
        for match in matches:
            inside = sorted(match.glob("test_*.py")) if match.is_dir() else [match]
            files += [str(file.relative_to(tree)) for file in inside]
    return list(dict.fromkeys(files))


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """A copy of the working tree, byte-compiled, in a folder that goes away afterwards."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder) / "tree"
        for name in filter(None, names.split("\0")):
            if (ROOT / name).exists():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
        for room in ("nni_aiop", "strategies", "search_spaces"):
            checked = py_compile.PycInvalidationMode.CHECKED_HASH
            compileall.compile_dir(tree / room, quiet=1, invalidation_mode=checked)
        yield tree


class _Notes:
    """A pytest plugin that writes down the tests that fail, and the modules that are loaded."""

    def __init__(self, folder: Path) -> None:
        self.failures, self.modules = folder / "failures", folder / "modules"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            with self.failures.open("a") as file:
                file.write(f"{report.nodeid}\n")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            with self.failures.open("a") as file:
                file.write(f"{report.nodeid}\n")

    def pytest_collection_finish(self) -> None:
        self.modules.write_text("\n".join(sys.modules))


def run(tree: Path, tests: list[str], timeout: float, *more: str) -> tuple[int | None, list[str]]:
    """pytest's exit code (None: no end in `timeout` seconds) and the tests that failed."""
    failures = tree.parent / "failures"
    failures.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        output = os.open(tree.parent / "output", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        options = [*more, "-q", "-m", "not slow", "-p", "no:cacheprovider"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        options += ["--basetemp", str(tree.parent / "tmp")]
        code = 99
        try:
            code = int(pytest.main([*options, *tests], plugins=[_Notes(tree.parent)]))
        except BaseException:  # noqa: BLE001 - the parent shows it
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            failed = failures.read_text().splitlines() if failures.exists() else []
            return os.waitstatus_to_exitcode(status), failed
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, []


def load_outside(tree: Path, timeout: float) -> None:
    """Import what the tests import, but the package: each mutant's process is forked from this."""
    known = {name for tests in TESTS.values() for name in tests.split()}
    files = [str(file.relative_to(tree)) for n in known for file in tree.glob(f"tests/{n}")]
    if run(tree, sorted(files), timeout, "--collect-only")[0] != 0:
        raise SystemExit((tree.parent / "output").read_text()[-4000:])
    own = ("nni_aiop", "tests", "test_", "conftest", "__", "search_spaces", "strategies")
    names = (tree.parent / "modules").read_text().split("\n") + INSIDE.split()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for name in names:
            if name not in sys.modules and not name.startswith(own):
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
    assert "nni_aiop" not in sys.modules, "each mutant imports the package anew"


def killer_of(mutant: Mutant, text: str, tree: Path, timeout: float) -> str:
    """The test that notices a mutant, "time-out", or "" where nothing notices it."""
    file = tree / mutant.path
    original = file.read_bytes()
    file.write_text(text, encoding="utf-8")
    try:
        code, failed = run(tree, tests_of(mutant.path, tree), timeout, "-x")
    finally:
        file.write_bytes(original)
    if code in (5, 99):
        raise SystemExit(
            f"pytest ended with {code}: {(tree.parent / 'output').read_text()[-2000:]}"
        )
    return "time-out" if code is None else "" if code == 0 else (failed or [f"exit code {code}"])[0]


def main() -> None:
    """Draw, run and report."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--room", action="append", choices=ROOMS, help="all where none is named")
    options.add_argument("--count", type=int, default=10, help="mutants of each room")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="only mutants whose file:line contains this")
    options.add_argument("--timeout", type=float, default=240, help="seconds for one mutant")
    options.add_argument(
        "--list", action="store_true", help="name the mutants without running them"
    )
    chosen = options.parse_args()
    try:
        importlib.import_module("cosmic_ray.mutating")
    except ModuleNotFoundError as err:
        install = "pip install -c constraints.txt cosmic-ray"
        raise SystemExit(f"cosmic-ray is missing ({err}): {install}") from err

    os.environ.setdefault("NNI_AIOP_DATA", str(ROOT.parent / "shared" / "data"))
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.path[:] = [entry for entry in sys.path if entry not in (str(ROOT / "tests"), str(ROOT))]
    with copied() as tree:
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(tree), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        )
        if not chosen.list:
            load_outside(tree, chosen.timeout)
        killers: dict[str, list[str]] = {}
        for room in chosen.room or ROOMS:
            mutants, total, reasons = drawn(room, chosen.count, chosen.seed)
            counted = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
            print(f"{room}: {total} mutants; left out: {counted or 'none'}", flush=True)
            killers[room] = []
            for mutant in mutants:
                text, line = mutated(mutant)
                if chosen.only not in line:
                    continue
                if chosen.list:
                    print(f"  {line}")
                    continue
                begin = time.monotonic()
                killer = killer_of(mutant, text, tree, chosen.timeout)
                killers[room].append(killer)
                said = f"killed by {killer}" if killer else "SURVIVED"
                print(f"  {said} ({time.monotonic() - begin:.0f} s)\n    {line}", flush=True)
        tests = sorted({k for found in killers.values() for k in found if "::" in k})
        unsound = run(tree, tests, 10 * chosen.timeout)[1] if tests else []
    for test in unsound:
        print(f"{test} fails without any change: its kills do not count")
    print(f"\nseed {chosen.seed}\nroom         run  killed  (of them time-outs)  survived")
    killers["all"] = [killer for found in killers.values() for killer in found]
    for room, found in killers.items():
        killed = [killer for killer in found if killer and killer not in unsound]
        late = killed.count("time-out")
        print(f"{room:12} {len(found):3}  {len(killed):6}  {late:18}  {len(found) - len(killed):8}")


if __name__ == "__main__":
    main()
