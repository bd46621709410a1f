"""What several packages' tests share."""

import os
import zlib
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow-share", type=int, default=1, help="run one of so many slow tests, always the same"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests beyond the share; which ones are left follows from their names."""
    share = config.getoption("--slow-share")
    left_out = [
        item
        for item in items
        if item.get_closest_marker("slow") and zlib.crc32(item.nodeid.encode()) % share
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of published benchmark tables, laid out as their publishers do."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("NNI_AIOP_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no benchmark data in {folder}: set NNI_AIOP_DATA to where it lies")
    return folder
