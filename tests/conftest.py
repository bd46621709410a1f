"""What several packages' tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of published benchmark tables, laid out as their publishers do."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("NNI_AIOP_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no benchmark data in {folder}: set NNI_AIOP_DATA to where it lies")
    return folder
