"""`progress.json`: what a run is about to do and how it ended, for whoever watches it from outside.

It is written when a run starts and when it ends; what is finished in between stands in the parts alone.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from p2p_bench.bench.directory import STATUS
from p2p_bench.bench.open_run import Facts, OpenRun
from p2p_bench.bench.rows import ROWS, next_part, write_atomically
from p2p_bench.errors import CannotWriteError, exit_code_of

RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"


@contextmanager
def telling(run_dir: Path, name: str, run: OpenRun, facts: Facts) -> Iterator[None]:
    """Says that a run is going on as long as the context lasts, and then how it ended.

    Args:
        run_dir: A locked directory.
        name: Name of the run.
        run: The run.
        facts: What it reads.
    """
    told = {
        "schema_version": 1,
        "experiment": name,
        "started": time.time(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "promised": len(run.subjects),
        "there": len(run.subjects) - len(run.pending),
        "first_part": next_part(run_dir / ROWS),
        "variants": list(dict.fromkeys(variant.name for _, variant in run.subjects.values())),
        "metrics": {
            column.name: {key: value for key, value in asdict(column).items() if key != "name"}
            for column in facts.columns
        },
    }
    _write(run_dir, {**told, "state": RUNNING})
    state = FAILED
    try:
        yield
        state = FINISHED
    except BaseException as error:
        state = INTERRUPTED if exit_code_of(error) == CannotWriteError.exit_code else FAILED
        raise
    finally:
        with suppress(OSError):  # what cannot be written is told by whoever wrote first
            _write(run_dir, {**told, "state": state, "ended": time.time()})


def _write(run_dir: Path, status: Mapping[str, Any]) -> None:
    text = json.dumps(status, ensure_ascii=False, indent=1) + "\n"
    write_atomically(run_dir / STATUS, lambda temporary: temporary.write_text(text, encoding="utf-8"))
