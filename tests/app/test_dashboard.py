"""`p2p-bench dashboard`: faults are found without a key, and a key is asked for before anything is sent."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from p2p_bench.app.verbs.dashboard import main
from p2p_bench.errors import ConfigError, DataError, P2PError
from tests.report.fake_run import fake_run

pytestmark = [
    pytest.mark.skipif(
        find_spec("wandb_workspaces") is None, reason="needs wandb-workspaces, the extra p2p_bench[dashboard]"
    ),
    # wandb-workspaces 0.4 declares its validators in the older way of pydantic.
    pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning"),
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return fake_run(tmp_path / "run", samples=2, variants={"auto": 0.5}, pictures=False)


def test_no_key_and_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no key is known; run: wandb login"):
        main([str(run)], debug=False)
    with pytest.raises(DataError, match="no such directory"):
        main([str(tmp_path / "absent")], debug=False)


def test_a_server_that_refuses_is_one_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb_workspaces.workspaces import Workspace

    def refuse(self: Workspace) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setattr(Workspace, "save", refuse)
    with pytest.raises(P2PError, match=r"did not take the workspace: no route to host$"):
        main([str(run), "--entity", "me"], debug=False)


def test_a_saved_workspace_tells_its_address(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from wandb_workspaces.workspaces import Workspace

    saved = []
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setattr(Workspace, "save", lambda self: saved.append((self.entity, self.project, self.name)))
    monkeypatch.setattr(Workspace, "url", property(lambda self: "https://here.invalid/w"))
    assert main([str(run), "--entity", "me", "--project", "mine", "--name", "two words"], debug=False) == 0
    assert saved == [("me", "mine", "two words")]
    assert "dashboard: https://here.invalid/w" in capsys.readouterr().out
