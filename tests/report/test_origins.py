"""The report over many runs says where they were made by different software."""

import json
from pathlib import Path
from typing import Any

from p2p_bench.report.gather import gather
from p2p_bench.report.origins import origin_notices
from tests.report.fake_run import fake_run


def notices(root: Path, *origins: dict[str, Any]) -> list[str]:
    for number, origin in enumerate(origins):
        path = fake_run(root / str(number), samples=1, pictures=False) / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | origin))
    return origin_notices(gather([root]).runs)


def test_other_versions_and_commits_are_told(tmp_path: Path) -> None:
    old = {"versions": {"torch": "2.9.0", "lpips": "0.1.4"}, "git": {"commit": "a" * 40, "changed": False}}
    new = {"versions": {"torch": "2.10.0", "lpips": "0.1.4"}, "git": {"commit": "a" * 40, "changed": True}}
    assert notices(tmp_path, old, new, new) == [
        "Not all runs were made by the same software, which can move numbers: "
        "torch 2.9.0 (1 run) and 2.10.0 (2 runs), "
        "the source's commit aaaaaaaaaa (1 run) and aaaaaaaaaa with changes (2 runs)"
    ]


def test_equal_software_and_what_is_not_noted_tell_nothing(tmp_path: Path) -> None:
    known = {"versions": {"torch": "2.9.0", "lpips": ""}, "git": {"commit": "", "changed": False}}
    more = {"versions": {"torch": "2.9.0", "lpips": "0.1.4"}, "git": ""}
    assert notices(tmp_path, known, known, more) == []
