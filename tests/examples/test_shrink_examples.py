"""The example that shrinks a network runs from a folder of one's own and ends in a table."""

import re
import subprocess
import sys
from pathlib import Path

from nni_aiop.networks import Network

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_digits_by_a_third(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "shrink_digits.py"), "--tries", "3", "--epochs", "3"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^(unshrunk|uniform pruning|best of the search) +([\d,]+)", done.stdout,
                           flags=re.M))  # fmt: skip
    whole, uniform, best = (int(text.replace(",", "")) for text in rows.values())
    assert 0.6 * whole < uniform <= 2 / 3 * whole
    assert 0.6 * whole < best <= 2 / 3 * whole
    out = tmp_path / "out" / "shrink_digits"
    assert Network.load(out / "shrunk.safetensors").graph.macs == best
    assert (out / "shrunk.onnx").stat().st_size > 1000
    assert (out / "search.png").stat().st_size > 1000
