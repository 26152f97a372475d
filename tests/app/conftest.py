import pytest

from tests.app.command import Command


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The command line, run from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Command(tmp_path, capsys)
