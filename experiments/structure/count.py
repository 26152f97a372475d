"""Counts the functions of the project that a run and an edit enter, and the longest of them.

    python experiments/structure/count.py

Prints a table and writes it to results.md beside this file. A function counts once, however often it is
entered; those that Python makes (of a dataclass, of a comprehension) do not count. The run is one pair of a
JSONL file on the embedded model with the default controller, inversion and metrics, from `run_benchmark` to
`results.parquet`; the edit is one call of `p2p.edit` on the loaded model.
"""

import ast
import json
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FrameType

import p2p_bench as p2p

HERE = Path(__file__).resolve().parent
PACKAGE = str(Path(p2p.__file__).resolve().parent)
PAIR = {"id": "a", "source": "a red circle on grass", "target": "a blue circle on grass"}
MOST_LINES, MOST_FILE = 60, 400


def main() -> None:
    """Counts, prints and writes the table."""
    from p2p_bench.app.build import build, chosen_options, without_hydra
    from p2p_bench.app.compose import checked_overrides, compose
    from p2p_bench.bench.run import run_benchmark

    model = p2p.load_model("world")
    edit = entered(partial(p2p.edit, model, PAIR["source"], PAIR["target"], p2p.Replace(0.8, 0.4), steps=2))
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder, "pairs.jsonl")
        pairs.write_text(json.dumps(PAIR) + "\n", encoding="utf-8")
        overrides = ["dataset=jsonl", f"dataset.path={pairs}", "sampler.steps=2", "logger=none"]
        config = compose(checked_overrides([*overrides, "trainer.accelerator=cpu"]), keep_hydra=True)
        parts = build(without_hydra(config), chosen_options(config.hydra))
        run = entered(
            partial(run_benchmark, parts.task, Path(folder, "run"), trainer=parts.trainer, keep=parts.keep)
        )
    lines = [
        "| from | to | functions entered |",
        "|---|---|---|",
        f"| a JSONL line | its row in `results.parquet` | {len(run)} |",
        f"| `p2p.edit` | pixels | {len(edit)} |",
        "",
        *by_room(run, edit),
        "",
        f"Functions over {MOST_LINES} lines: {', '.join(long_functions()) or 'none'}.",
        f"Files over {MOST_FILE} lines: {', '.join(long_files()) or 'none'}.",
    ]
    print("\n".join(lines))
    (HERE / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if "--names" in sys.argv:
        for code in sorted(run, key=lambda code: (code.co_filename, code.co_firstlineno)):
            print(f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_firstlineno} {code.co_qualname}")


def by_room(run: set[CodeType], edit: set[CodeType]) -> Iterator[str]:
    """The same by room of the package, the largest first."""
    rooms = [
        Counter(Path(code.co_filename).relative_to(PACKAGE).parts[0] for code in one) for one in (run, edit)
    ]
    yield from ("| room | run | edit |", "|---|---|---|")
    for room, _ in (rooms[0] + rooms[1]).most_common():
        yield f"| `{room}` | {rooms[0][room]} | {rooms[1][room]} |"


def entered(call: Callable[[], object]) -> set[CodeType]:
    """The project's functions that a call enters, in all threads."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("<"):
            seen.add(code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return seen


def long_functions() -> Iterator[str]:
    """Functions that are longer than a screen, their docstrings apart."""
    for path in sorted(Path(PACKAGE).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (count := lines_of(node)) > MOST_LINES:
                yield f"`{path.relative_to(PACKAGE)}` {node.name} ({count})"


def lines_of(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    count = (node.end_lineno or 0) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        count -= (first.end_lineno or 0) - first.lineno + 1
    return count


def long_files() -> Iterator[str]:
    """Files that hold too much for one thing."""
    for path in sorted(Path(PACKAGE).rglob("*.py")):
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MOST_FILE:
            yield f"`{path.relative_to(PACKAGE)}` ({count})"


if __name__ == "__main__":
    main()
