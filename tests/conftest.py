"""Set-up of the whole test session."""

import gc
import os
import random
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from uuid import uuid4

# Set before any library reads them: the session is offline and uses the cores it is given. Each worker of a
# parallel session takes one of them, as do the processes that it starts.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ["WANDB__SAVE_REQUIREMENTS"] = "false"  # the list of what is installed, read anew for each run

# What is imported is compiled once and not by each of the processes that tests start: images of containers
# often forbid it, and torch and its kin take five seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Imports make hundreds of thousands of objects, all of which stay: looking for garbage among them is rare.
gc.set_threshold(50_000, 20, 20)

# What is installed stays so: each trainer that is made reads it all anew.
metadata.entry_points = cache(metadata.entry_points)

# `python -m pytest` puts the checkout on the path, where its folder `datasets` looks like a package.
ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]

from tests.checked import install_checks  # noqa: E402  (after the settings above)

# Shapes and types of every annotated function are checked, in the tests only.
install_checks("p2p_bench")

import pytest  # noqa: E402  (after the hook, like all that may import p2p_bench)

import p2p_bench as p2p  # noqa: E402  (likewise)

FIRST = (
    *("test_launchers.py", "test_kills.py", "test_fuzz.py", "test_several.py", "test_documented_commands.py"),
    *("test_wheel.py", "test_null_text_families.py", "test_gpu_experiment.py", "test_imports.py"),
)
"""Files with tests of ten seconds and more, which begin a session: no worker of it ends with one alone."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--shuffle SEED` runs the files, and the tests of each, in another order."""
    parser.addoption("--shuffle", type=int, default=None, metavar="SEED", help="run tests in random order")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files stay whole, so that what a file's tests share is made once."""
    items.sort(key=lambda item: item.path.name not in FIRST)
    seed = config.getoption("shuffle")
    if seed is not None:
        drawn = random.Random(seed)
        places = {path: drawn.random() for path in sorted({str(item.path) for item in items})}
        order = {item.nodeid: drawn.random() for item in items}
        items.sort(key=lambda item: (places[str(item.path)], order[item.nodeid]))


def pytest_collection_finish() -> None:
    """What was imported is no garbage and is never looked through again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """What is left at the end is collected, or libraries warn of leaks."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def _no_cache_in_the_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What fixtures of a wider scope keep is kept here."""
    os.environ["P2P_BENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")


@pytest.fixture(autouse=True)
def _cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test finds what another has kept."""
    monkeypatch.setenv("P2P_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / f"cache-{uuid4().hex}"))


@pytest.fixture(scope="session")
def world() -> "p2p.DiffusionModel":
    """The embedded model, loaded once for all tests."""
    return p2p.load_model("world")
