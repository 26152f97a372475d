"""The page of `p2p-bench studio`, driven over HTTP."""

import base64
import http.client
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import p2p_bench as p2p
from p2p_bench.app.studio import MOST_BYTES, Studio, offered
from p2p_bench.app.studio_server import TOKEN, StudioServer
from p2p_bench.report.studio_page import studio_page
from tests.app.command import Command

RED, BLUE = "a red circle on grass", "a blue circle on grass"
FORM: dict[str, Any] = {
    "source": RED, "target": BLUE, "controller": "replace", "sampler": "ddim", "cross": 0.5,
    "self_attn": 0.25, "seed": 3, "steps": 2, "guidance": 2.5, "more": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[StudioServer]:
    studio = Studio(["trainer.accelerator=cpu", "tau.cross=0.6", "controller=refine"])
    studio.check()
    studio.load()
    with StudioServer(0) as server:
        server.studio = studio
        server.page = studio_page(studio.spec, studio.first, offered(), server.token, MOST_BYTES)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: StudioServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and answer; headers whose value is empty are left out."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    own = {"Host": f"127.0.0.1:{server.server_port}", TOKEN: server.token, "Content-Type": "application/json"}
    named = {**own, **{key.replace("_", "-"): value for key, value in headers.items()}}
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        connection.request(method, path, content, {key: value for key, value in named.items() if value})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    kind = answer.headers.get_content_type()
    return answer.status, json.loads(text) if kind == "application/json" else text


def finished(server: StudioServer, **changes: Any) -> tuple[int, Any]:
    """What came of a form, asked for again as the page does."""
    status, answer = ask(server, "POST", "/edit", {**FORM, **changes})
    while status == 202:
        status, answer = ask(server, "GET", f"/edit?job={answer['job']}")
    return status, answer


def edit(server: StudioServer, **changes: Any) -> dict[str, Any]:
    status, answer = finished(server, **changes)
    assert status == 200, answer
    return dict(answer)


def refused(server: StudioServer, **changes: Any) -> str:
    status, answer = finished(server, **changes)
    assert status == 400, answer
    return str(answer["error"])


def pixels(source: str | Path) -> np.ndarray:
    data: Any = source
    if isinstance(source, str):
        data = io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))
    with Image.open(data) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def by_name(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    return {one["name"]: pixels(one["src"]) for one in answer["pictures"]}


def photo() -> bytes:
    buffer = io.BytesIO()
    picture = (np.indices((40, 64)).sum(0) * 2).astype(np.uint8)
    Image.fromarray(np.stack([picture, picture[::-1], picture], -1)).save(buffer, "PNG")
    return buffer.getvalue()


def upload(data: bytes, name: str = "my photo.png") -> dict[str, str]:
    return {"name": name, "data": base64.b64encode(data).decode()}


def near(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max() <= 1)


def test_the_page_and_what_it_begins_with(server: StudioServer) -> None:
    status, page = ask(server, "GET", f"/?token={server.token}")
    assert status == 200
    assert '<option value="refine" selected>' in page
    assert 'id="cross" type="range" min="0" max="1" step="0.05" value="0.6"' in page
    assert f">{BLUE}</textarea>" in page
    assert "connect-src &#39;self&#39;" in page
    assert "https://" not in page


@pytest.mark.parametrize("image", [None, upload(photo())], ids=["noise", "image"])
def test_the_command_and_the_lines_make_the_same_picture(
    server: StudioServer, command: Command, image: Any
) -> None:
    more = "controller.align=false" if image is None else "inversion.decay=0.001"
    chosen = {} if image is None else {"image": image, "inversion": "null_text", "fit": "pad"}
    answer = edit(server, more=more, **chosen)
    there = by_name(answer)
    expected = {"source", "plain", "edit"} | ({"image"} if image else set())
    assert there.keys() == expected
    assert not near(there["edit"], there["plain"])
    assert not near(there["edit"], there["source"])
    assert "UNet" not in answer["command"]
    (command.folder / "my photo.png").write_bytes(photo())
    program, *words = shlex.split(answer["command"])
    assert program == "p2p-bench"
    made = command(*words, "--out", "out", "trainer.accelerator=cpu")
    assert made.code == 0, made.err
    assert near(pixels(command.folder / "out/target_1.png"), there["edit"])
    assert f"{answer['rows']} UNet rows" in made.out
    exec(answer["python"], {})  # what the page shows for people to run
    assert near(pixels(command.folder / "pictures/target_1.png"), there["edit"])
    assert near(pixels(command.folder / "pictures/source.png"), there["source"])


def test_the_plain_target_is_that_without_control(server: StudioServer, world: p2p.DiffusionModel) -> None:
    there = by_name(edit(server))
    plain = p2p.edit(world, RED, BLUE, seed=3, steps=2, guidance=2.5)
    assert near((plain.images[1] * 255).round().permute(1, 2, 0).numpy().astype(int), there["plain"])
    assert by_name(edit(server, controller="none")).keys() == {"source", "edit"}


def test_heatmaps_of_all_words_with_those_that_change_first(server: StudioServer) -> None:
    heatmaps = edit(server)["heatmaps"]
    words = [(one["role"], one["word"]) for one in heatmaps if one["changed"]]
    assert words == [("source", "red"), ("edit", "blue")]
    assert [one["word"] for one in heatmaps if one["role"] == "edit"] == [
        "blue",
        "a",
        "circle",
        "on",
        "grass",
    ]
    assert pixels(heatmaps[0]["src"]).shape == (64, 64, 3)


def test_what_an_edit_says(server: StudioServer) -> None:
    answer = edit(server, target="a <b>purple</b> circle on grass", controller="refine")
    assert any("was never trained on" in text for text in answer["messages"])
    assert edit(server)["messages"] == []
    told = {"source": "a red circle", "target": "a dotted red circle", "controller": "reweight"}
    (note,) = edit(server, **told, more="'controller.weights={dotted: 2.0}'")["notes"]
    assert "in other columns" in note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": " "}, "source: write a prompt"),
        ({"target": "x" * 2001}, "target: expected at most 2000 letters, got 2001"),
        ({"target": "a circle"}, "equally many words"),
        ({"controller": "replce"}, "controller: there is no 'replce'. Did you mean 'replace'?"),
        ({"controller": "../model/world"}, "controller: there is no"),
        ({"controller": "reweight"}, "controller.weights"),
        ({"cross": 1.5}, "tau.cross: expected values in [0, 1]"),
        ({"steps": 0}, "steps: expected"),
        ({"seed": "1 +x=2"}, "seed: expected a number"),
        ({"seed": True}, "seed: expected a number"),
        ({"more": "run.trust=true"}, "the page takes settings of what it shows"),
        ({"more": "controller._target_=os.system"}, "the page takes settings of what it shows"),
        ({"more": "sampler.steps=9"}, "set it by its control above"),
        ({"more": "controller.algn=true"}, "Did you mean 'align'?"),
        ({"image": upload(b"no picture"), "inversion": "ddim"}, "error"),
        ({"image": upload(photo()), "inversion": "none"}, "inversion=none would draw another picture"),
        ({"image": upload(photo()), "inversion": "ddim", "fit": "error"}, "the image is 64 x 40 pixels"),
        ({"image": {"name": "a", "data": "%"}, "inversion": "ddim"}, "image: the page sent no file"),
        ({"image": upload(photo()), "inversion": "ddim", "fit": "shrink"}, "fit: expected one of"),
    ],
)
def test_faults_are_a_sentence(server: StudioServer, changes: dict[str, Any], message: str) -> None:
    said = refused(server, **changes)
    if changes.get("image") == upload(b"no picture"):
        assert said.startswith("my photo.png: ")
    else:
        assert message in said
    assert "Traceback" not in said
    assert "/tmp" not in said


def test_only_its_own_page_may_ask(server: StudioServer) -> None:
    port = server.server_port
    assert ask(server, "GET", "/")[0] == 403
    assert ask(server, "GET", "/?token=x")[0] == 403
    assert ask(server, "GET", f"/?token={server.token}", Host=f"evil.example:{port}")[0] == 403
    assert ask(server, "GET", f"/?token={server.token}", Host=f"localhost:{port}")[0] == 200
    assert ask(server, "GET", "/progress", **{TOKEN: ""})[0] == 403
    assert ask(server, "GET", "/progress") == (200, {"step": 0, "steps": 0}) or server.studio.progress[1]
    assert ask(server, "GET", "/etc/passwd")[0] == 404
    assert ask(server, "POST", "/nowhere", {})[0] == 404
    for headers, status in (
        ({TOKEN: "x"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Length": "99999999999"}, 413),
        ({"Content-Length": "-1"}, 411),
    ):
        assert ask(server, "POST", "/edit", FORM, **headers)[0] == status, headers
    assert ask(server, "POST", "/edit", b"{")[0] == 400
    assert ask(server, "POST", "/edit", [1])[0] == 400
    assert ask(server, "POST", "/edit", b"[" * 100_000)[0] == 400
    origin = f"http://127.0.0.1:{port}"
    assert ask(server, "POST", "/edit", {**FORM, "source": ""}, Origin=origin)[0] == 400  # it was read


def test_one_edit_at_a_time_which_can_be_stopped(
    server: StudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "patience", 0.05)
    status, answer = ask(server, "POST", "/edit", {**FORM, "steps": 200})
    assert status == 202
    begun = answer["job"]
    monkeypatch.undo()
    while server.studio.progress[1] != 200:
        assert ask(server, "GET", "/progress")[0] == 200
    status, answer = ask(server, "POST", "/edit", FORM)
    assert (status, answer["error"]) == (409, "another edit is being made; wait for it, or stop it")
    assert ask(server, "POST", "/stop", {})[0] == 200
    while (ended := ask(server, "GET", f"/edit?job={begun}"))[0] == 202:
        pass
    assert ended == (409, {"error": "the edit was stopped"})
    assert ask(server, "GET", "/edit?job=unknown")[0] == 404
    assert len(edit(server)["pictures"]) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--port", "70000"], 2, "--port: expected 0 to 65535"),
        (["--port", "PORT"], 2, "cannot be used"),
        (["--nonsense"], 2, "unknown option --nonsense"),
        (["dataset=world_demo"], 2, "studio has no use for it"),
        (["controller.align=true"], 2, "controllers' own settings are for the page"),
        (["tau.cross=2.0"], 2, "tau.cross: expected values in [0, 1]"),
        (["tau.cross=[0,0.5]"], 2, "the page has a slider for a number"),
        (["model=local", "model.path=nowhere"], 3, "nowhere"),
        (["trainer.accelerator=abacus"], 2, "expected auto, cpu, cuda or mps"),
    ],
)
def test_bad_arguments_are_told_before_weights_are_read(
    server: StudioServer, command: Command, arguments: list[str], code: int, message: str
) -> None:
    words = [str(server.server_port) if word == "PORT" else word for word in arguments]
    outcome = command("studio", "--no-browser", *words)
    assert outcome.code == code
    assert message in outcome.err
    assert "loading" not in outcome.err


def test_it_ends_cleanly_by_an_interrupt(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "p2p_bench", "studio", "--no-browser", "--port", "0"]
    with subprocess.Popen(
        words, cwd=tmp_path, env={**os.environ, "COLUMNS": "200"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("studio: http://127.0.0.1:"), line
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert said.endswith("the studio is closed\n")
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
