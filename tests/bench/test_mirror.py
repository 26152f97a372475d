"""A run is copied to a URL as it grows, and goes on from there; a store that fails loses nothing."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

from p2p_bench import remote
from p2p_bench.bench import mirror as module
from p2p_bench.bench.directory import ASIDE
from p2p_bench.bench.mirror import Mirror, mirrored, mirrored_together
from p2p_bench.bench.url_lock import UrlLock
from p2p_bench.errors import CannotWriteError, ConfigError
from p2p_bench.remote import Remote
from tests.app.command import SWEEP, Command
from tests.app.test_run import assert_same_rows, rows_of
from tests.flaky import FlakyFileSystem


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSE", 0.0)
    monkeypatch.setattr(module, "_EVERY", 0.01)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capsys)


def contents(url: str) -> dict[str, bytes]:
    """Files at a URL, by name."""
    files, root = fsspec.core.url_to_fs(url)
    start = f"{root}/"  # without a call of the store, which may be one of those that fail
    return {
        path.removeprefix(start): held.getvalue()
        for path, held in files.store.items()
        if path.startswith(start)
    }


def there(folder: Path) -> dict[str, bytes]:
    """Files of a directory, by name, but for those that begin with a dot."""
    paths = [path for path in folder.rglob("[!.]*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_mirrored(url: str, here: dict[str, bytes]) -> None:
    """The log may go on after it was copied: what is tried again at the end is told in it."""
    copied, own = contents(url), dict(here)
    log, own_log = copied.pop("run.log"), own.pop("run.log")
    assert copied == own
    assert log
    assert own_log.startswith(log)


def test_a_run_is_at_the_url_and_goes_on_from_there(command: Command) -> None:
    """On a store that fails one call in ten; on another machine with another directory."""
    url, failures = f"flaky://{uuid4().hex}/run", FlakyFileSystem.failures
    settings = (SWEEP, "run.batch_size=1", "run.images=1", "logger=none", f"run.output={url}")
    assert command.bench(*settings, "run.dir=here").code == 0
    assert FlakyFileSystem.failures > failures
    here = there(command.folder / "here")
    assert_mirrored(url, here)
    assert any(name.startswith("rows/part-") for name in here)
    assert any(name.startswith("images/") for name in here)

    files, root = fsspec.core.url_to_fs(url)
    lost = sorted(name for name in here if name.startswith("rows/"))[-1]
    files.rm_file(f"{root}/{lost}")
    again = command.bench(*settings, "run.dir=elsewhere")
    assert again.code == 0, again.err
    assert f"fetched {len(here) - 2} files from {url}" in again.err  # each but the lost one and the log
    assert_same_rows(rows_of(command.folder / "here"), rows_of(command.folder / "elsewhere"))
    parts = {name: body for name, body in contents(url).items() if name.startswith("rows/")}
    assert all(parts[name] == here[name] for name in parts if name != lost)
    assert len(parts) == sum(name.startswith("rows/") for name in here)  # nothing was computed again
    assert_mirrored(url, there(command.folder / "elsewhere"))


def test_each_job_of_a_sweep_has_a_folder(command: Command) -> None:
    url = f"memory://{uuid4().hex}"
    more = ("run.images=0", "logger=none", "run.dir=sweep", f"run.output={url}")
    assert command.bench("-m", "tau.cross=0.2,0.8", *more).code == 0
    for job in ("0", "1"):
        assert contents(f"{url}/{job}") == there(command.folder / "sweep" / job)


def test_a_sweep_goes_on_from_the_url(command: Command) -> None:
    """On another machine, whose directory is empty: the pass that jobs share makes only what is missing."""
    url = f"memory://{uuid4().hex}"
    more = ("run.batch_size=1", "run.images=0", "logger=none", f"run.output={url}")
    assert command.bench("-m", "tau.cross=0.2,0.8", *more, "run.dir=here").code == 0
    here = {job: contents(f"{url}/{job}") for job in ("0", "1")}
    files, root = fsspec.core.url_to_fs(f"{url}/1")
    lost = sorted(name for name in here["1"] if name.startswith("rows/"))[-1]
    files.rm_file(f"{root}/{lost}")

    again = command.bench("-m", "tau.cross=0.2,0.8", *more, "run.dir=elsewhere")
    assert again.code == 0, again.err
    assert again.err.count("loading model") == 1
    assert "1 edits of 1 pairs to make" in again.err
    for job, before in here.items():
        now = contents(f"{url}/{job}")
        assert now == there(command.folder / "elsewhere" / job)
        assert all(now[name] == before[name] for name in before if name.startswith("rows/") and name != lost)
        one, other = (rows_of(command.folder / sweep / job) for sweep in ("here", "elsewhere"))
        assert_same_rows(one, other, apart_from=("unet_rows_spent",))


def test_journals_are_gone_on_with_from_the_longer_one(tmp_path: Path) -> None:
    """Lines are only ever added to them; one that was copied while a line was written ends in half a line."""
    remote, local = Remote(f"memory://{uuid4().hex}", "run.output"), tmp_path / "search.jsonl"

    def pulled(there: str, here: str) -> str:
        remote.write(local.name, there.encode())
        local.write_text(here)
        Mirror(tmp_path, remote, only=(local.name,)).pull()
        return local.read_text()

    assert pulled("1\n2\n3", "1\n") == "1\n2\n3"
    assert pulled("1\n2", "1\n2\n3\n") == "1\n2\n3\n"
    assert pulled("1\n", "1\n") == "1\n"
    with pytest.raises(ConfigError, match="neither goes on from the other"):
        pulled("1\n2\n", "1\n3\n")
    (tmp_path / "other").write_text("stays here")
    Mirror(tmp_path, remote, only=(local.name,)).push()
    assert remote.names() == [local.name]


def test_the_pass_of_a_sweep_is_at_the_url_when_it_is_interrupted(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{uuid4().hex}"

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("p2p_bench.bench.run.compact", interrupted)  # no job is summarised
    more = ("run.images=0", "logger=none", f"run.output={url}", "run.dir=out")
    assert command.bench("-m", "tau.cross=0.2,0.8", *more).code == 75
    for job in ("0", "1"):
        parts = [name for name in contents(f"{url}/{job}") if name.startswith("rows/")]
        assert sorted(parts) == sorted(
            f"rows/{one.name}" for one in (command.folder / "out" / job / "rows").iterdir()
        )


def test_urls_that_fail_let_the_others_go(tmp_path: Path) -> None:
    url = f"memory://{uuid4().hex}"
    places = [
        (tmp_path / "one", f"{url}/one"),
        (tmp_path / "two", "nowhere://two"),
        (tmp_path / "three", None),
    ]
    with pytest.raises(ConfigError, match="nowhere://two"), mirrored_together(places, print):
        pytest.fail("one of them cannot be used")
    assert contents(url) == {}  # no mark is left either
    with mirrored_together(places[::2], print):
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "file.txt").write_text("whole")
    assert contents(url) == {"one/file.txt": b"whole"}


def test_other_settings_there_are_refused_or_set_aside(command: Command) -> None:
    url = f"memory://{uuid4().hex}"
    more = ("run.images=0", "logger=none", f"run.output={url}")
    assert command.bench("seed=1", *more, "run.dir=one").code == 0
    before = contents(url)
    refused = command.bench("seed=2", *more, "run.dir=two")
    assert refused.code == 2
    assert "seed: 1 there, 2 here" in refused.err
    assert {name: body for name, body in contents(url).items() if name != "run.log"} == {
        name: body for name, body in before.items() if name != "run.log"
    }
    assert command.bench("seed=2", *more, "run.dir=two", "run.resume=force").code == 0
    after = contents(url)
    assert after == there(command.folder / "two")
    assert after["replaced/1/results.parquet"] == before["results.parquet"]


def test_what_cannot_be_copied_is_kept_here_and_told(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{uuid4().hex}"

    def full(*_: Any, **__: Any) -> None:
        raise OSError("the bucket is full")

    with monkeypatch.context() as patch:
        patch.setattr(type(fsspec.filesystem("memory")), "put_file", full)
        outcome = command.bench("run.images=0", "logger=none", "run.dir=out", f"run.output={url}")
    assert outcome.code == 75
    assert "not everything could be copied there (the bucket is full)" in outcome.err
    assert len(rows_of(command.folder / "out")) > 0
    assert contents(url) == {}
    assert (
        command("resume", "out").code == 2
    )  # stored settings may write elsewhere only when that is confirmed
    assert command("resume", "out", "--trust").code == 0
    assert contents(url) == there(command.folder / "out")


def test_bad_urls_stop_before_anything_is_loaded(command: Command) -> None:
    outcome = command.bench("run.output=bucket/folder")
    assert outcome.code == 2
    assert (
        "run.output: expected a URL such as s3://bucket/folder, or null, got 'bucket/folder'" in outcome.err
    )
    outcome = command.bench("run.output=nowhere://bucket", "run.dir=out")
    assert outcome.code == 2
    assert "run.output: nowhere://bucket cannot be used" in outcome.err
    assert not command.ran


def test_files_are_copied_while_the_run_goes_on(tmp_path: Path) -> None:
    url = f"memory://{uuid4().hex}"
    with mirrored(tmp_path, url, lambda line: None):
        (tmp_path / "rows").mkdir()
        (tmp_path / "rows" / ".part.tmp").write_text("half")
        (tmp_path / "rows" / "part").write_text("one")
        while "rows/part" not in contents(url):
            time.sleep(0.01)
        (tmp_path / "rows" / "part").write_text("another")
    assert contents(url) == {"rows/part": b"another"}


def test_an_unreadable_store_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(*_: Any, **__: Any) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "find", torn)
    with (
        pytest.raises(CannotWriteError, match="cannot be read"),
        mirrored(tmp_path, "memory://a", json.dumps),
    ):
        pass


def test_a_log_is_not_lost_to_that_of_another_machine(tmp_path: Path) -> None:
    far = Remote(f"memory://{uuid4().hex}", "run.output")
    for folder, told in (("one", "first\n"), ("goes on", "first\nmore\n"), ("other", "second\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run.log").write_text(told)
    Mirror(tmp_path / "one", far).push()
    for folder in ("goes on", "other"):
        Mirror(tmp_path / folder, far).pull()
    assert there(tmp_path / "goes on") == {"run.log": b"first\nmore\n"}
    assert there(tmp_path / "other") == {"run.log": b"second\n", "run-before-1.log": b"first\n"}


def test_what_is_unchanged_is_not_copied_again(tmp_path: Path) -> None:
    far = Remote(f"memory://{uuid4().hex}", "run.output")
    (tmp_path / "one").write_text("1")
    assert Mirror(tmp_path, far).push() == 1
    other = Mirror(tmp_path / "other", far)
    assert (other.pull(), other.push()) == (1, 0)
    (tmp_path / "other" / "two").write_text("2")
    assert (other.push(), other.push()) == (1, 0)


def test_a_url_that_a_run_writes_to_is_refused_to_another(tmp_path: Path) -> None:
    far = Remote(f"memory://{uuid4().hex}", "run.output")
    with mirrored(tmp_path / "one", far.url, lambda line: None):
        (tmp_path / "one").mkdir()
        ended = threading.Event()
        helper = threading.Thread(target=_keep_writing, args=(tmp_path / "one" / "run.log", ended))
        helper.start()
        try:
            with pytest.raises(ConfigError, match=f"process {os.getpid()} on .* writes to {far.url}; wait"):
                UrlLock(far, 0.2).__enter__()
        finally:
            ended.set()
            helper.join()
    assert list(contents(far.url)) == ["run.log"]


def _keep_writing(log: Path, ended: threading.Event) -> None:
    number = 0
    while not ended.wait(0.01):
        number += 1
        log.write_text(str(number))


def test_the_mark_of_a_dead_writer_is_taken_over_and_a_writer_who_lost_it_copies_nothing(
    tmp_path: Path,
) -> None:
    far = Remote(f"memory://{uuid4().hex}", "run.output")
    lost = UrlLock(far, 0.01)
    lost.__enter__()  # and then nothing more, as if its machine had stopped
    (tmp_path / "late.txt").write_text("late")
    with UrlLock(far, 0.01):
        time.sleep(0.01)
        with pytest.raises(CannotWriteError, match="another run writes to"):
            Mirror(tmp_path, far, lost).push()
        lost.__exit__(None, None, None)
        assert list(contents(far.url)) == [".writer.json"], "the mark of the other one"


def test_parts_that_two_machines_wrote_are_not_replaced(tmp_path: Path) -> None:
    far, part = Remote(f"memory://{uuid4().hex}", "run.output"), "rows/part-000001.parquet"
    for folder, body in (("one", b"here"), ("stale", b"else"), ("same", b"here"), ("forced", b"new!")):
        (tmp_path / folder / "rows").mkdir(parents=True)
        (tmp_path / folder / part).write_bytes(body)
    Mirror(tmp_path / "one", far).push()
    with pytest.raises(ConfigError, match="both hold a rows/part-000001"):
        Mirror(tmp_path / "stale", far).pull()
    assert Mirror(tmp_path / "same", far).pull() == 0
    (tmp_path / "forced" / ASIDE / "1" / "rows").mkdir(parents=True)
    (tmp_path / "forced" / ASIDE / "1" / part).write_bytes(b"here")
    mirror = Mirror(tmp_path / "forced", far)
    assert mirror.pull() == 0
    mirror.push()
    assert contents(far.url) == {part: b"new!", f"{ASIDE}/1/{part}": b"here"}
