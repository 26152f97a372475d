"""What scoring adds to a run's time, as a ratio within the run, and how often networks are asked for it.

python experiments/metrics_speed/measure.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from p2p_bench.app.main import run_verb
from p2p_bench.bench import callbacks, records
from p2p_bench.bench.module import EditModule

FOLDER = Path(__file__).resolve().parent
COMMAND = (
    "run",
    "experiment=demo",
    "logger=none",
    "run.images=0",
    "run.cache=false",
    "trainer.accelerator=cpu",
)


class Meter:
    """Seconds of editing and of scoring, and passes through networks while something is scored."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.passes: Counter[str] = Counter()
        self.images: Counter[str] = Counter()
        self._depth = 0
        self._scoring = False

    def timed(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time added to a kind's."""

        def measured(*arguments: Any, **named: Any) -> Any:
            started, before = time.perf_counter(), self._scoring
            self._scoring = kind == "scoring"
            try:
                return call(*arguments, **named)
            finally:
                self._scoring = before
                self.seconds[kind] += time.perf_counter() - started

        return measured

    def enter(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        """Counts a pass where no module is around this one."""
        whole = any(True for _ in module.children()) and any(True for _ in module.parameters())
        if self._scoring and not self._depth and whole:  # no layer that is called by itself
            name = type(module).__name__
            self.passes[name] += 1
            self.images[name] += next((len(one) for one in arguments if isinstance(one, torch.Tensor)), 0)
        self._depth += 1

    def leave(self, module: torch.nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        """The end of a pass."""
        self._depth -= 1


@contextmanager
def measuring(meter: Meter) -> Iterator[None]:
    """Measures every run within."""
    places = ((EditModule, "test_step", "editing"), (records, "score", "scoring"))
    places += ((callbacks, "score_references", "scoring"),)
    kept = [getattr(where, name) for where, name, _ in places]
    hooks = torch.nn.modules.module
    handles = (
        hooks.register_module_forward_pre_hook(meter.enter),
        hooks.register_module_forward_hook(meter.leave, always_call=True),
    )
    for (where, name, kind), call in zip(places, kept, strict=True):
        setattr(where, name, meter.timed(kind, call))
    try:
        yield
    finally:
        for (where, name, _), call in zip(places, kept, strict=True):
            setattr(where, name, call)
        for handle in handles:
            handle.remove()


def measured(overrides: list[str]) -> dict[str, Any]:
    """One run of the demo in a folder of its own."""
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder, measuring(meter):
        code = run_verb([*COMMAND, f"run.dir={folder}/out", *overrides], False)
        assert code == 0, f"the run left with {code}"
        totals = json.loads(Path(folder, "out", "summary.json").read_text(encoding="utf-8"))["totals"]
    return {
        "edits": totals["edits"], "samples": totals["samples"], "seconds": dict(meter.seconds),
        "passes": dict(meter.passes), "images": dict(meter.images),
    }  # fmt: skip


def table(rounds: list[dict[str, Any]]) -> str:
    """What was measured, as Markdown."""
    ratios = [one["seconds"]["scoring"] / one["seconds"]["editing"] for one in rounds]
    rates = [one["edits"] / one["seconds"]["scoring"] for one in rounds]
    last = rounds[-1]
    images = last["images"]
    lines = [
        f"{last['edits']} edits of {last['samples']} pairs, {len(rounds)} rounds, "
        f"PyTorch {torch.__version__} on {torch.get_num_threads()} threads.",
        "", "| | median | least | most |", "|---|---|---|---|",
        f"| scoring over editing | {statistics.median(ratios):.1%} | {min(ratios):.1%} | {max(ratios):.1%} |",
        f"| edits scored a second, references included | {statistics.median(rates):.0f} | {min(rates):.0f} | "
        f"{max(rates):.0f} |",
        "", "| network | passes | images or prompts |", "|---|---|---|",
        *(f"| `{name}` | {count} | {images[name]} |" for name, count in sorted(last["passes"].items())),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures what rounds are missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=FOLDER, help="where results.jsonl and results.md go")
    parser.add_argument("--one", type=Path, help="measure one round in this process, into this file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the demo")
    options = parser.parse_args()
    if options.one is not None:
        options.one.write_text(json.dumps(measured(options.overrides)), encoding="utf-8")
        return
    path = options.out / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rounds = [json.loads(line) for line in lines]
    while len(rounds) < options.rounds:
        with tempfile.TemporaryDirectory() as folder:  # a process each: networks remember what they have seen
            one = Path(folder, "one.json")
            subprocess.run([sys.executable, __file__, "--one", str(one), *options.overrides], check=True)
            rounds.append(json.loads(one.read_text(encoding="utf-8")))
        path.write_text("".join(json.dumps(one) + "\n" for one in rounds), encoding="utf-8")
    (options.out / "results.md").write_text(table(rounds), encoding="utf-8")
    print(table(rounds))


if __name__ == "__main__":
    main()
