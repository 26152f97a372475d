"""Output that a terminal cannot take, and output that nobody takes: the exit code is the command's."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_bench.app.console import result_console, status_console
from p2p_bench.app.streams import PatientFile

PLACES: dict[str, tuple[dict[str, str], str]] = {
    "ascii": ({"PYTHONIOENCODING": "ascii"}, ""),
    "cp1252": ({"PYTHONIOENCODING": "cp1252"}, ""),
    "utf-16": ({"PYTHONIOENCODING": "utf-16"}, ""),
    "C": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ""),
    "very narrow": ({"COLUMNS": "1"}, ""),
    "dumb": ({"TERM": "dumb", "NO_COLOR": "1"}, ""),
    "closed output": ({}, ">&-"),
    "closed error": ({}, "2>&-"),
    "all closed": ({}, "<&- >&- 2>&-"),
    "full disk": ({}, ">/dev/full"),
    "reader that has gone": ({}, "| true"),
}
"""Environment, and what a shell does with the output."""

COMMANDS = {"result": ("cache list --dir 猫é", 0), "error": ("猫é", 2)}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", PLACES)
def test_the_exit_code_is_that_of_the_command(place: str, command: str, tmp_path: Path) -> None:
    environment, redirection = PLACES[place]
    arguments, code = COMMANDS[command]
    line = f"set -o pipefail; {sys.executable} -m p2p_bench {arguments} {redirection}"
    ended = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=300,
    )
    assert ended.returncode == code, ended.stderr
    assert b"Traceback" not in ended.stderr
    assert b"unexpected" not in ended.stderr
    assert b"Exception ignored" not in ended.stderr
    if not redirection:
        assert ended.stdout or ended.stderr


def test_a_reader_that_goes_away_ends_the_writing_and_nothing_else() -> None:
    reading, writing = os.pipe()
    stream = io.TextIOWrapper(io.BufferedWriter(PatientFile(writing)), encoding="ascii", errors="replace")
    print("seen: 猫", file=stream, flush=True)
    assert os.read(reading, 100) == b"seen: ?\n"
    os.close(reading)
    for _ in range(3):
        print("x" * 100_000, file=stream, flush=True)
    stream.close()
    os.close(writing)


@pytest.mark.parametrize("console", [result_console, status_console])
def test_tables_and_messages_reach_any_encoding(console, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    name = "stderr" if console is status_console else "stdout"
    monkeypatch.setattr(sys, name, io.TextIOWrapper(written, encoding="cp1252", errors="strict"))
    console().print("LPIPS ↓ 猫 é")
    getattr(sys, name).flush()
    assert written.getvalue().decode("cp1252").split() == ["LPIPS", "?", "?", "é"]
