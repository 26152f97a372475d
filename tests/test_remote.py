"""Files go to a URL and come from it whole, though the store fails now and then."""

from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from p2p_bench import remote as module
from p2p_bench.cache import Cache
from p2p_bench.errors import ConfigError, DataError
from p2p_bench.remote import Remote, is_url
from tests.flaky import FlakyFileSystem

KEY = "ab" * 32


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.0)


@pytest.fixture(params=["memory", "flaky", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of its own."""
    return f"file://{tmp_path}/far" if request.param == "file" else f"{request.param}://{uuid4().hex}/far"


def test_files_go_and_come_back(url: str, tmp_path: Path) -> None:
    far = Remote(f"{url}/", "run.output")
    far.check()
    assert far.names() == []
    for number in range(12):
        (tmp_path / "one").write_bytes(bytes([number]) * number)
        far.send(tmp_path / "one", f"rows/part-{number}")
    assert far.names() == sorted(f"rows/part-{number}" for number in range(12))
    for number in range(12):
        far.fetch(f"rows/part-{number}", tmp_path / "near" / "two")
        assert (tmp_path / "near" / "two").read_bytes() == bytes([number]) * number
    assert [path.name for path in (tmp_path / "near").iterdir()] == ["two"]
    far.remove("rows/part-3")
    far.remove("rows/part-3")
    assert "rows/part-3" not in far.names()
    with pytest.raises(FileNotFoundError):
        far.fetch("rows/part-3", tmp_path / "near" / "two")


def test_a_store_that_always_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(FlakyFileSystem, "every", 1)
    far = Remote("flaky://gone", "run.output")
    with pytest.raises(ConfigError, match=r"run.output: flaky://gone cannot be used \(the store hung up\)"):
        far.check()
    (tmp_path / "one").write_text("1")
    with pytest.raises(OSError, match="the store hung up"):
        far.send(tmp_path / "one", "one")


def test_an_upload_that_is_cut_short_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    far = Remote(f"memory://{uuid4().hex}", "run.output")
    whole, cuts = type(far._files).put_file, iter([True, True, False])

    def put(files: object, local: str, name: str, **more: object) -> None:
        if next(cuts):
            fsspec.filesystem("memory").pipe_file(name, b"ha")
        else:
            whole(files, local, name)

    monkeypatch.setattr(type(far._files), "put_file", put)
    (tmp_path / "one").write_bytes(b"half and half")
    far.send(tmp_path / "one", "one")
    assert far._files.cat_file(far._path("one")) == b"half and half"


def test_a_url_that_no_file_system_answers_to() -> None:
    with pytest.raises(ConfigError, match=r"run.output: nowhere://bucket cannot be used"):
        Remote("nowhere://bucket", "run.output")


def test_what_is_a_url() -> None:
    assert all(map(is_url, ("s3://bucket", "gs://bucket/folder", "memory://x", "file:///folder")))
    assert not any(
        map(is_url, ("", "folder", "/folder", "://x", "s3:/x", "s3://", "3s://x", "a b://x", "file:///"))
    )


def test_a_name_that_leads_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    far = Remote("memory://bucket/far", "run.output")
    monkeypatch.setattr(type(far._files), "find", lambda *_, **__: ["/bucket/far/../../etc/passwd"])
    with pytest.raises(DataError, match="cannot be a file of this machine"):
        far.names()


def test_a_cache_that_machines_share(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"flaky://{uuid4().hex}"
    here, there = (Cache(tmp_path / name, beyond=Remote(url, "run.cache")) for name in ("here", "there"))
    assert here.read(KEY) is None
    assert here.write(KEY, b"body", {})
    assert there.read(KEY) == b"body"
    assert [entry.key for entry in there.entries()] == [KEY]
    files = there.beyond._files if there.beyond is not None else None
    assert files is not None
    name = f"/{url.removeprefix('flaky://')}/{KEY}.entry"
    files.store[name].write(b"damage")
    (tmp_path / "there" / f"{KEY}.entry").unlink()
    assert there.read(KEY) is None
    assert "damaged" in caplog.text
