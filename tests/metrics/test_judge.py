"""The judge, before an endpoint that the test plays."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.metrics.base import EditView, Undefined, all_columns, evaluate
from p2p_bench.metrics.judge import PROMPT, Judge, scores_in
from tests.app.command import Command

GOOD = {"follows": 8, "keeps": 6, "quality": 6}


class Endpoint:
    """An OpenAI-compatible endpoint. `answer` gives status and text for a request; `asked` holds them."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[dict[str, Any]], tuple[int, str]] = lambda asked: (200, json.dumps(GOOD))
        self.url = ""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    played = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def _send(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{played.url}/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            played.headers.append(dict(self.headers))
            self._send(200 if self.path == "/v1/models" else 404, {"data": [{"id": "small-judge"}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            played.asked.append(asked)
            played.headers.append(dict(self.headers))
            status, text = played.answer(asked)
            self._send(status, {"choices": [{"message": {"content": text}}]})

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    played.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield played
    server.shutdown()
    server.server_close()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capsys)


def judge(endpoint: Endpoint, **settings: Any) -> Judge:
    return Judge(endpoint.url, "small-judge", "abc123", **{"retries": 0, "timeout": 10.0, **settings})


def views(count: int = 1) -> list[EditView]:
    source, edited = torch.zeros(3, 8, 8), torch.ones(3, 8, 8)
    return [EditView(source, edited, "a {red} circle", f"blue circle {number}") for number in range(count)]


def test_scores_are_means_over_passes_with_their_spread(endpoint: Endpoint) -> None:
    endpoint.answer = lambda asked: (200, json.dumps({"follows": 9, "keeps": asked["seed"], "quality": 4}))
    (row,) = judge(endpoint, passes=3)(views())
    overall = [math.sqrt(number * 4) for number in range(3)]
    mean = sum(overall) / 3
    assert row["judge_follows"] == 9
    assert row["judge_keeps"] == 1
    assert row["judge_overall"] == pytest.approx(mean)
    assert row["judge_spread"] == pytest.approx(math.sqrt(sum((one - mean) ** 2 for one in overall) / 2))
    assert row["judge_failed"] == 0


def test_each_edit_is_asked_for_with_its_own_pictures_and_prompts(endpoint: Endpoint) -> None:
    judge(endpoint, passes=2)(views(3))
    texts = sorted(asked["messages"][0]["content"][0]["text"] for asked in endpoint.asked)
    prompts = [PROMPT.format(source="a {red} circle", target=f"blue circle {number}") for number in range(3)]
    assert texts == sorted(prompts * 2)
    (_, source, edited) = endpoint.asked[0]["messages"][0]["content"]
    assert source["image_url"]["url"].startswith("data:image/png;base64,")
    assert source != edited


def test_failed_calls_are_left_out_and_counted(endpoint: Endpoint) -> None:
    answers = {0: (200, "no idea"), 1: (500, ""), 2: (200, f"Here: {json.dumps(GOOD)} Bye {{}}")}
    endpoint.answer = lambda asked: answers[asked["seed"]]
    (row,) = judge(endpoint, passes=3)(views())
    assert row["judge_failed"] == 2
    assert row["judge_follows"] == 8
    assert isinstance(row["judge_spread"], Undefined)


def test_an_edit_that_was_never_judged_has_no_score(endpoint: Endpoint) -> None:
    endpoint.answer = lambda asked: (200, json.dumps({**GOOD, "keeps": 11}))
    (row,) = evaluate({"judge": judge(endpoint)}, views())
    assert row["judge_failed"] == 3
    overall = row["judge_overall"]
    assert isinstance(overall, Undefined)
    assert "gave no score in any of 3 passes" in overall.reason


def test_a_busy_endpoint_is_asked_again(endpoint: Endpoint) -> None:
    endpoint.answer = lambda asked: (429, "") if len(endpoint.asked) == 1 else (200, json.dumps(GOOD))
    (row,) = judge(endpoint, passes=1, retries=1)(views())
    assert row["judge_failed"] == 0
    assert len(endpoint.asked) == 2


def test_nobody_is_followed_elsewhere(endpoint: Endpoint) -> None:
    endpoint.answer = lambda asked: (302, "")
    (row,) = judge(endpoint, passes=1)(views())
    assert row["judge_failed"] == 1
    assert len(endpoint.asked) == 1


def test_the_key_is_read_from_the_environment_and_told_to_nobody_else(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="environment variable 'JUDGE_KEY' is not set"):
        judge(endpoint, key="JUDGE_KEY").check()
    monkeypatch.setenv("JUDGE_KEY", "secret")
    metric = judge(endpoint, key="JUDGE_KEY")
    metric.check()
    assert endpoint.headers[-1]["Authorization"] == "Bearer secret"
    assert "secret" not in repr(metric) + repr(metric.columns)


def test_what_is_absent_is_said(endpoint: Endpoint) -> None:
    with pytest.raises(MissingWeightsError, match=r"does not serve 'other', it serves small-judge"):
        Judge(endpoint.url, "other", "x", retries=0).check()
    with pytest.raises(MissingWeightsError, match=r"does not answer.*vllm serve.*~metrics.judge"):
        Judge("http://127.0.0.1:9/v1", "other", "x", retries=0, timeout=2.0).check()
    with pytest.raises(ConfigError, match=r"metrics.judge.url: expected the address"):
        Judge("http://name:key@localhost/v1", "other", "x")
    with pytest.raises(ConfigError, match=r"metrics.judge.prompt: expected a text with"):
        Judge(endpoint.url, "other", "x", prompt="{instruction}")


@pytest.mark.parametrize("answer", ["", "{", '{"follows": 1}', '{"follows": "8", "keeps": 1, "quality": 1}'])
def test_answers_without_three_numbers_are_none(answer: str) -> None:
    with pytest.raises(ValueError, match=r"no JSON object|expected a number"):
        scores_in(answer)


def test_columns_name_model_prompt_and_passes(endpoint: Endpoint) -> None:
    columns = all_columns({"judge": judge(endpoint)})
    assert {column.backbone for column in columns} == {"small-judge@abc123"}
    other = judge(endpoint, prompt="{source} to {target}?").columns[0].note
    assert other != columns[0].note
    assert "mean of 3 passes" in other


def test_a_run_is_judged(command: Command, endpoint: Endpoint) -> None:
    done = command(
        "dataset=world_pairs", "dataset.limit=2", "sampler.steps=2", "metrics=judge", "run.dir=judged",
        f"metrics.judge.url={endpoint.url}", "metrics.judge.model=small-judge", "metrics.judge.checksum=abc",
    )  # fmt: skip
    assert done.code == 0, done.err
    summary = json.loads((command.folder / "judged" / "summary.json").read_text())
    (variant,) = summary["variants"].values()
    assert variant["metrics"]["judge_follows"]["mean"] == 8
    assert variant["metrics"]["judge_failed"]["mean"] == 0
