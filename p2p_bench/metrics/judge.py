"""A vision-language model as a judge, behind an OpenAI-compatible endpoint such as vLLM or llama.cpp serve.

What is asked follows VIEScore (Ku et al. 2024, arXiv 2312.14867), as EditScore and GEdit-Bench do: does the
edit follow the request, does it keep the rest, is the picture good, each from 0 to 10.
"""

import base64
import io
import json
import math
import os
import statistics
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from PIL import Image
from torch import Tensor

from p2p_bench.errors import ConfigError, MissingWeightsError
from p2p_bench.fields import Above, AtLeast, check_fields
from p2p_bench.hashing import digest
from p2p_bench.metrics.base import EditView, MetricColumn, Role, Undefined

PROMPT = """\
You compare two pictures. The first is a source picture, described as: "{source}". The second is an edit of
it, which was to be described as: "{target}". Judge the edit, not the source, with numbers from 0 to 10:
"follows": is what the new description asks for there, and complete? 0: not at all, 10: fully.
"keeps": is everything that the request does not concern as in the first picture? 0: another picture,
10: unchanged.
"quality": is the second picture free of artefacts, and natural in its own style? 0: broken, 10: flawless.
Answer with one JSON object and nothing else, such as {{"follows": 5, "keeps": 5, "quality": 5}}."""
"""What the judge is told; `{source}` and `{target}` are the prompts."""

SCORES = ("follows", "keeps", "quality")
_RETRIED = (408, 409, 429, 500, 502, 503, 504)
_MOST_BYTES = 1_000_000


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Whoever is told to go elsewhere would take pictures and key along."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Refuses, so that the answer is an error."""


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True)
class Judge:
    """Scores of a vision-language model: means of several passes, their spread, and the calls that failed.

    `judge_overall` of a pass is the root of min(follows, keeps) times quality. A pass fails where the
    endpoint gives no answer, or one without three numbers from 0 to 10; it is left out and counted in
    `judge_failed`. An edit of which every pass failed is undefined. Passes differ by their seed.

    Attributes:
        url: Where the endpoint is, such as "http://localhost:8000/v1". Pictures and prompts are sent there,
            and nowhere else: a redirection is a failed call.
        model: Name of the model there.
        checksum: What pins the model: a commit, or a digest of its weights; part of the columns' backbone.
        passes: How often each edit is judged; at least 1.
        temperature: Of the answers; at 0 passes are alike as a rule.
        prompt: What the judge is told instead of `PROMPT`, with `{source}` and `{target}`.
        key: Name of the environment variable that holds the endpoint's key; None: it wants none. The key
            itself is in no setting, log or report.
        timeout: Seconds that a call may take.
        retries: How often a call that was turned away for a while is made again.
        parallel: Calls at once.
    """

    url: str
    model: str
    checksum: str
    passes: Annotated[int, AtLeast(1)] = 3
    temperature: Annotated[float, AtLeast(0)] = 0.7
    prompt: str | None = None
    key: str | None = None
    timeout: Annotated[float, Above(0)] = 120.0
    retries: Annotated[int, AtLeast(0)] = 2
    parallel: Annotated[int, AtLeast(1)] = 4

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is out of range, `url` is not one, or `prompt` has other places than the two.
        """
        check_fields(self, "metrics.judge.")
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
            shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            raise ConfigError(
                "metrics.judge.url: expected the address of an OpenAI-compatible endpoint without a name or "
                f"key in it, such as http://localhost:8000/v1, got one for {shown!r}"
            )
        self._text("", "")

    @property
    def columns(self) -> tuple[MetricColumn, ...]:
        """Three scores, their combination, the spread over passes, and the calls that failed."""
        backbone = f"{self.model}@{self.checksum}"
        note = (
            f"mean of {self.passes} passes at temperature {self.temperature:g}; prompt "
            f"{digest(self.prompt or PROMPT)[:12]}; a judge's scores are not repeatable to the digit"
        )
        rows: tuple[tuple[str, bool, str, Role, tuple[float, float]], ...] = (
            ("judge_follows", True, "judge: follows the request", "editability", (0, 10)),
            ("judge_keeps", True, "judge: keeps the rest", "fidelity", (0, 10)),
            ("judge_quality", True, "judge: quality", "other", (0, 10)),
            ("judge_overall", True, "judge: overall", "other", (0, 10)),
            (
                "judge_spread",
                False,
                "judge: standard deviation of the overall score over passes",
                "other",
                (0, 10),
            ),
            ("judge_failed", False, "judge: failed calls of an edit", "other", (0, self.passes)),
        )
        return tuple(
            MetricColumn(name, higher, "", label, 1, backbone, role, note=note, range=bounds)
            for name, higher, label, role, bounds in rows
        )

    def check(self) -> None:
        """Asks the endpoint for its models.

        Raises:
            MissingWeightsError: It does not answer, or does not have the model.
            ConfigError: The environment variable of the key is not set.
        """
        self._headers()
        try:
            known = [one["id"] for one in self._call("/models", None)["data"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MissingWeightsError(
                f"metrics.judge: {self.url} does not answer as an OpenAI-compatible endpoint "
                f"({_said(error)}); start one, such as `vllm serve MODEL`, or leave the judge out with "
                "~metrics.judge"
            ) from error
        if self.model not in known:
            raise MissingWeightsError(
                f"metrics.judge.model: {self.url} does not serve {self.model!r}, it serves {', '.join(known)}"
            )

    def __call__(self, views: Sequence[EditView]) -> list[dict[str, float]]:
        """Scores each view; see the class."""
        calls = [(view, number) for view in views for number in range(self.passes)]
        with ThreadPoolExecutor(self.parallel) as pool:
            scores = list(pool.map(lambda call: self._judged(*call), calls))
        return [
            self._summary(scores[place * self.passes : (place + 1) * self.passes])
            for place in range(len(views))
        ]

    def _text(self, source: str, target: str) -> str:
        """What the judge is told of a pair."""
        prompt = PROMPT if self.prompt is None else self.prompt
        try:
            return prompt.format(source=source, target=target)
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                "metrics.judge.prompt: expected a text with {source} and {target}, and {{ }} for other "
                f"braces; got {prompt[:200]!r}"
            ) from error

    def _summary(self, passes: Sequence[dict[str, float] | None]) -> dict[str, float]:
        given = [one for one in passes if one is not None]
        failed = float(len(passes) - len(given))
        if not given:
            none = Undefined(f"the judge gave no score in any of {len(passes)} passes")
            return {**{column.name: none for column in self.columns}, "judge_failed": failed}
        overall = [math.sqrt(min(one["follows"], one["keeps"]) * one["quality"]) for one in given]
        means = {f"judge_{name}": statistics.fmean(one[name] for one in given) for name in SCORES}
        alone = Undefined("the spread of fewer than two passes of the judge")
        spread = statistics.stdev(overall) if len(overall) > 1 else alone
        both = {"judge_overall": statistics.fmean(overall), "judge_spread": spread}
        return {**means, **both, "judge_failed": failed}

    def _judged(self, view: EditView, number: int) -> dict[str, float] | None:
        """The scores of a pass; None where it failed."""
        text = self._text(view.source_prompt, view.target_prompt)
        pictures = [
            {"type": "image_url", "image_url": {"url": _picture(image)}}
            for image in (view.source, view.edited)
        ]
        asked = {
            "model": self.model,
            "messages": [{"role": "user", "content": [{"type": "text", "text": text}, *pictures]}],
            "temperature": self.temperature,
            "seed": number,
            "max_tokens": 512,
        }
        try:
            answer = self._call("/chat/completions", asked)
            return scores_in(str(answer["choices"][0]["message"]["content"]))
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            return None

    def _call(self, path: str, body: Any) -> Any:
        """What the endpoint answers, as JSON; tried again where it is busy."""
        data = None if body is None else json.dumps(body).encode()
        for left in reversed(range(self.retries + 1)):
            request = urllib.request.Request(self.url + path, data, self._headers())
            try:
                with _OPENER.open(request, timeout=self.timeout) as answer:
                    return json.loads(answer.read(_MOST_BYTES))
            except urllib.error.HTTPError as error:
                if error.code not in _RETRIED or not left:
                    raise
            except OSError:
                if not left:
                    raise
            time.sleep(0.5 * 2 ** (self.retries - left))
        raise AssertionError("the last try returned or raised")

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            value = os.environ.get(self.key)
            if not value:
                raise ConfigError(
                    f"metrics.judge.key: the environment variable {self.key!r} is not set; it holds the "
                    "endpoint's key, or set metrics.judge.key=null where it wants none"
                )
            headers["Authorization"] = f"Bearer {value}"
        return headers


def scores_in(answer: str) -> dict[str, float]:
    """The scores in an answer: the first JSON object that holds all three.

    Raises:
        ValueError: There is none, or a score is no number from 0 to 10.
    """
    decoder = json.JSONDecoder()
    for place in (index for index, letter in enumerate(answer) if letter == "{"):
        try:
            found, _ = decoder.raw_decode(answer, place)
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict) and set(SCORES) <= set(found):
            scores = {name: found[name] for name in SCORES}
            for name, value in scores.items():
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
                    raise ValueError(f"{name} is {value!r}, expected a number from 0 to 10")
            return {name: float(value) for name, value in scores.items()}
    raise ValueError("there is no JSON object with the three scores")


def _picture(image: Tensor) -> str:
    """A picture as the address of its PNG."""
    pixels = (
        (image.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _said(error: Exception) -> str:
    """An error in a few words."""
    return f"{type(error).__name__}: {str(error)[:200]}"
