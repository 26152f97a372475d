import errno
import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2p_bench import cache as cache_module
from p2p_bench.cache import Cache, DamagedEntryError, default_directory, read_entry
from p2p_bench.errors import DataError


def size_of(body: bytes, folder: Path) -> int:
    """Bytes of the file of an entry."""
    apart = Cache(folder / "apart")
    apart.write("a", body, {})
    return apart.entries()[0].size


def age(cache: Cache, key: str, seconds: float) -> None:
    """Makes an entry look as if it was last used some time ago."""
    path = cache.directory / f"{key}.entry"
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "not" / "yet")
    assert cache.read("ab") is None
    assert cache.entries() == []
    body = bytes(range(256)) + b"\n\nmore"
    assert cache.write("ab", body, {"method": "ddim", "steps": 5})
    assert cache.read("ab") == body
    (entry,) = cache.entries()
    assert (entry.key, read_entry(entry.path)) == ("ab", ({"method": "ddim", "steps": 5}, body))
    assert cache.write("ab", b"new", {})
    assert cache.read("ab") == b"new"


def with_checksum(rest: bytes) -> bytes:
    """A file with a checksum that fits."""
    return b"p2p_bench cache 1 " + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-1], "checksum"),
        (lambda content: content[: len(content) // 2], "checksum"),
        (lambda content: b"", "begin"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "checksum"),
        (lambda content: content.replace(b'"steps": 5', b'"steps": 6'), "checksum"),
        (lambda content: content[:18] + b"0" * 64 + content[82:], "checksum"),
        (lambda content: with_checksum(b"no JSON\nbody"), "does not say what it holds"),
        (lambda content: with_checksum(b"[1]\nbody"), "does not say what it holds"),
        (lambda content: with_checksum(b'{"key": "ab", "about": 3}\nbody'), "holds the entry"),
        (lambda content: with_checksum(b""), "does not say what it holds"),
        (lambda content: with_checksum(b"[" * 100_000), "does not say what it holds"),
    ],
)
def test_a_damaged_entry_is_said_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage, said: str
) -> None:
    cache = Cache(tmp_path)
    cache.write("ab", b"body", {"steps": 5})
    (entry,) = cache.entries()
    entry.path.write_bytes(damage(entry.path.read_bytes()))
    with pytest.raises(DamagedEntryError, match=said):
        read_entry(entry.path)
    with caplog.at_level(logging.WARNING):
        assert cache.read("ab") is None
    assert "ab.entry is damaged" in caplog.text
    assert "computed again" in caplog.text
    assert cache.entries() == []


def test_an_entry_under_another_name_is_not_taken_for_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write("ab", b"body", {})
    (tmp_path / "ab.entry").rename(tmp_path / "cd.entry")
    with pytest.raises(DamagedEntryError, match="key 'ab'"):
        read_entry(tmp_path / "cd.entry")
    assert cache.read("cd") is None


def test_a_cache_that_may_only_be_read_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    cache.write("ab", b"body", {})

    def refused(*arguments: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    assert cache.read("ab") == b"body"
    assert not caplog.text
    assert len(cache.entries()) == 1


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    size = size_of(b"x" * 100, tmp_path)
    cache = Cache(tmp_path / "cache", max_bytes=3 * size)
    for place, key in enumerate("abc"):
        cache.write(key, b"x" * 100, {})
        age(cache, key, 100 - place)
    assert cache.read("a") is not None  # now the most recently used
    cache.write("d", b"x" * 100, {})
    assert [entry.key for entry in cache.entries()] == ["c", "a", "d"]
    cache.write("c", b"y" * 100, {})  # replacing one takes no room
    assert {entry.key for entry in cache.entries()} == set("acd")


def test_an_entry_larger_than_the_cache_is_refused_and_costs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path, max_bytes=400)
    cache.write("a", b"x", {})
    assert not cache.write("b", b"x" * 500, {})
    assert "not kept" in caplog.text
    assert [entry.key for entry in cache.entries()] == ["a"]


def test_a_full_disk_is_said_and_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    cache.write("a", b"x", {})

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert not cache.write("b", b"x", {})
    assert "No space left on device" in caplog.text
    assert "the run goes on" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == ["a.entry"]
    monkeypatch.undo()
    assert cache.write("b", b"x", {})


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "cache")
    assert not cache.write("a", b"x", {})
    assert "cannot be written" in caplog.text
    assert cache.read("a") is None


def test_what_a_dead_writer_left_is_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    (tmp_path / ".tmp-123-b").write_bytes(b"half")
    assert cache.entries() == []
    cache.write("a", b"x", {})
    assert not list(tmp_path.glob(".tmp-*"))


def test_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.clear() == []
    for key in "ab":
        cache.write(key, b"x", {})
    (cache.directory / "mine.txt").write_text("not an entry")
    assert {entry.key for entry in cache.clear()} == {"a", "b"}
    assert cache.entries() == []
    assert (cache.directory / "mine.txt").exists()
    monkeypatch.setattr(cache_module, "_LOCK_SECONDS", 0.01)
    with cache._locked(), pytest.raises(DataError, match="cannot be cleared"):
        Cache(cache.directory).clear()


WRITER = """
import sys
from pathlib import Path
from p2p_bench.cache import Cache

cache = Cache(Path(sys.argv[1]), max_bytes=int(sys.argv[2]))
for turn in range(30):
    key = f"{turn % 5:02d}"
    body = key.encode() * 2000
    assert cache.write(key, body, {"writer": sys.argv[3]})
    read = cache.read(f"{(turn + 2) % 5:02d}")
    assert read is None or read == f"{(turn + 2) % 5:02d}".encode() * 2000
"""


def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    size = size_of(b"00" * 2000, tmp_path)
    cache = Cache(tmp_path / "cache", max_bytes=3 * size + 100)
    arguments = [sys.executable, "-c", WRITER, str(cache.directory), str(cache.max_bytes)]
    environment = {**os.environ, "PYTHONPATH": str(Path(cache_module.__file__).parent.parent)}
    writers = [
        subprocess.Popen([*arguments, name], stderr=subprocess.PIPE, env=environment) for name in ("1", "2")
    ]
    for writer in writers:
        _, err = writer.communicate(timeout=120)
        assert (writer.returncode, err) == (0, b"")
    entries = cache.entries()
    assert sum(entry.size for entry in entries) <= cache.max_bytes
    assert len(entries) == 3
    for entry in entries:
        assert read_entry(entry.path)[1] == entry.key.encode() * 2000


def test_default_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("P2P_BENCH_CACHE", str(tmp_path / "own"))
    assert default_directory() == tmp_path / "own"
    monkeypatch.delenv("P2P_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_directory() == tmp_path / "xdg" / "p2p_bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".cache" / "p2p_bench"


def test_loads_no_torch() -> None:
    code = "import sys, p2p_bench.cache; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(cache_module.__file__).parent.parent)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
