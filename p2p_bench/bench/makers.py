"""Who made the rows of a run: `made_by.json`, versions and code of each start that made some.

A run that is resumed after an update goes on, as it may have taken days, but not without a word.
"""

import functools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from p2p_bench.bench.provenance import package_versions
from p2p_bench.bench.rows import write_atomically
from p2p_bench.bench.task import Task
from p2p_bench.hashing import digest, sha256_file

MAKERS = "made_by.json"
CODE = "code"
"""Key of the digest of this package's files, and of those of components from elsewhere."""

Maker = Mapping[str, str]

_PACKAGE = Path(__file__).resolve().parents[1]
_DIGITS = 12


def maker_of(task: Task) -> Maker:
    """Versions of packages, and a digest of the code that would make rows of a task here."""
    variants = [variant.controller for variant in task.variants]
    parts = [task.checkpoint, task.dataset, task.inversion, task.editor, *task.metrics.values(), *variants]
    foreign = sorted({path for part in parts for path in _files_of(part) if _PACKAGE not in path.parents})
    code = [_own_code(), *(sha256_file(path) for path in foreign)]
    return {**package_versions(), CODE: digest(code)[:_DIGITS]}


def makers(run_dir: Path) -> list[Maker]:
    """Who made the rows of a directory that holds some, the first one first; at least one."""
    try:
        told = json.loads((run_dir / MAKERS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        told = []
    found: list[Maker] = [one for one in told if isinstance(one, Mapping)] if isinstance(told, list) else []
    return found or [{CODE: "not known"}]


def note_maker(run_dir: Path, known: Sequence[Maker], maker: Maker) -> None:
    """Writes that one more makes rows, if it is another than those that did.

    Args:
        run_dir: A locked directory.
        known: By `makers`, of the rows that are there.
        maker: Who makes rows now.
    """
    if maker in known:
        return
    text = json.dumps([*known, maker], indent=1) + "\n"
    write_atomically(run_dir / MAKERS, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def differences(makers: Iterable[Maker], here: Maker) -> str:
    """In which packages some makers differ from another, in words."""
    texts: dict[str, None] = {}
    for one in makers:
        for name, there in one.items():
            if there != here.get(name):
                texts[
                    "other code"
                    if name == CODE
                    else f"{name} {there or 'none'}, now {here.get(name) or 'none'}"
                ] = None
    return ", ".join(texts)


def _files_of(part: object) -> list[Path]:
    file = getattr(sys.modules.get(type(part).__module__), "__file__", None)
    path = None if file is None else Path(file).resolve()
    return [path] if path is not None and path.is_file() else []


@functools.cache
def _own_code() -> str:
    files = sorted(_PACKAGE.rglob("*.py"))
    return digest({path.relative_to(_PACKAGE).as_posix(): sha256_file(path) for path in files})
