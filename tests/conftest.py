"""Set-up of the whole test session."""

import os
from uuid import uuid4

# Set before any library reads them: the session is offline and uses the cores it is given.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

from jaxtyping import install_import_hook

# Shapes and types of every annotated function are checked, in the tests only.
install_import_hook("p2p_bench", "beartype.beartype")

import pytest  # noqa: E402  (after the hook, like all that may import p2p_bench)

import p2p_bench as p2p  # noqa: E402  (likewise)


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
