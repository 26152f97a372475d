"""One log per job: text, or lines of JSON for programs."""

import json
import logging
import sys

from p2p_bench.app.logs import JsonLines
from tests.app.command import PAIRS

SETTINGS = ("run.images=0", "logger=none", "run.dir=out")
PAIR = {**PAIRS[0], "image": "image.png"}


def test_a_job_logs_text_or_lines_of_json(command):
    (command.folder / "image.png").write_bytes(b"damaged")
    swept = ("-m", "seed=0,1", *SETTINGS)
    assert command.bench(*swept, "hydra/job_logging=json_lines", pairs=[PAIR]).code == 1
    for job in ("0", "1"):
        for line in (command.folder / "out" / job / "run.log").read_text().splitlines():
            assert {"time", "level", "logger", "message"} <= set(json.loads(line))


def test_a_record_is_one_line_whatever_it_says():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        thrown = sys.exc_info()
    record = logging.LogRecord("p2p_bench.x", logging.ERROR, "x.py", 1, "café\n%s", ("é",), thrown)
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "p2p_bench.x", "café\né")
    assert "ValueError: two\nlines" in line["exception"]
    assert line["time"].endswith("+00:00")
