"""A run is copied to a local S3 server and goes on from there."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.app.command import Command
from tests.app.test_run import assert_same_rows, rows_of

pytest.importorskip("s3fs", reason="the extra p2p_bench[s3]")
server = pytest.importorskip("moto.server", reason="a local S3 server")

import fsspec  # noqa: E402  (after what may skip the file)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, str]]:
    """A file system and the name of an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the server's lines would end in the run's log
    running = server.ThreadedMotoServer("127.0.0.1", 0)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "not-to-be-told",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    name = f"bench-{uuid4().hex}"  # the server's memory outlives it
    files.mkdir(name)
    try:
        yield files, name
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        running.stop()


def test_a_run_on_s3(command: Command, bucket: tuple[Any, str], tmp_path: Path) -> None:
    files, name = bucket
    settings = ("run.images=1", "logger=none", f"run.output=s3://{name}/runs/one")
    assert command.bench(*settings, "run.dir=here").code == 0
    here = {
        path.relative_to(tmp_path / "here").as_posix(): path.read_bytes()
        for path in (tmp_path / "here").rglob("[!.]*")
        if path.is_file()
    }
    files.invalidate_cache()
    there = {path.removeprefix(f"{name}/runs/one/"): files.cat_file(path) for path in files.find(name)}
    assert there.keys() == here.keys()
    assert all(there[path] == here[path] for path in here if path != "run.log")  # it tells of the copying too
    assert not any(b"not-to-be-told" in body for body in there.values())
    again = command.bench(*settings, "run.dir=elsewhere")
    assert again.code == 0, again.err
    assert "loading" not in again.err
    assert_same_rows(rows_of(tmp_path / "here"), rows_of(tmp_path / "elsewhere"))


def test_a_bucket_that_is_not_there(command: Command, bucket: tuple[Any, str]) -> None:
    files, _ = bucket
    outcome = command.bench("run.output=s3://nobody/run", "run.dir=out")
    assert outcome.code == 2
    assert "run.output: s3://nobody/run cannot be used" in outcome.err
    assert not files.exists("nobody")
    assert not command.ran
