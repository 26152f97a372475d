"""Writers of a finished run besides its own files: functions of its rows and summary."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from p2p_bench.bench.rows import Key, write_atomically
from p2p_bench.errors import ConfigError
from p2p_bench.hashing import digest

COSTS = ("count", "failed", "unet_rows", "unet_rows_spent", "seconds")
"""Counts and costs of a variant, as its summary has them."""


@dataclass(frozen=True)
class FinishedRun:
    """A run whose files are complete.

    Attributes:
        dir: The run directory.
        run_id: Digest of what decided its numbers.
        name: Name of the run.
        group: Sweep it belongs to; "" for a run of its own.
        job: What sets it apart within the sweep, such as "tau.cross=0.4".
        config: The configuration, as plain values.
        summary: Contents of `summary.json`.
        rows: All rows.
        promised: Keys of the rows that the run promised; `whole.shortfall` compares them with the disk.
    """

    dir: Path
    run_id: str
    name: str
    group: str
    job: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    promised: tuple[Key, ...] = ()


@runtime_checkable
class RunLogger(Protocol):
    """Writes a finished run somewhere."""

    def write(self, run: FinishedRun) -> str:
        """Writes the run.

        Returns:
            One line that says where to find it.
        """
        ...


@dataclass(frozen=True)
class CSVLogger:
    """A row per variant with the mean and the count of every metric.

    Attributes:
        filename: Name of the file in the run directory.
    """

    filename: str = "metrics.csv"

    def write(self, run: FinishedRun) -> str:
        """Writes the table; undefined means are empty cells."""
        metrics = list(run.summary["metrics"])
        facts = ["controller", "tau_cross", "tau_self", *COSTS]
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        counted = (name for metric in metrics for name in (metric, f"{metric}_count"))
        table.writerow(["variant", *facts, *counted])
        for name, variant in run.summary["variants"].items():
            means = [variant["metrics"][metric] for metric in metrics]
            cells = [cell for mean in means for cell in (_cell(mean["mean"]), mean["count"])]
            table.writerow([name, *(variant[fact] for fact in facts), *cells])
        path = run.dir / self.filename
        write_atomically(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))
        return f"table: {path}"


@dataclass(frozen=True)
class TensorBoardLogger:
    """Scalars for TensorBoard: a run per variant, with its settings as hyperparameters.

    Needs the package `tensorboard`, an extra of this project.

    Attributes:
        folder: Name of the folder in the run directory; a folder per variant below.
    """

    folder: str = "tensorboard"

    def __post_init__(self) -> None:
        if find_spec("tensorboard") is None:
            raise ConfigError(
                "logger.tensorboard: the package tensorboard is not installed; "
                "add the extra p2p_bench[tensorboard], or leave this logger out"
            )

    def write(self, run: FinishedRun) -> str:
        """Writes the event files; undefined means are left out."""
        from torch.utils.tensorboard import SummaryWriter  # imported late: an extra

        for name, variant in run.summary["variants"].items():
            means = {metric: mean["mean"] for metric, mean in variant["metrics"].items()}
            scalars = {metric: mean for metric, mean in means.items() if not undefined(mean)}
            scalars.update({f"cost/{cost}": float(variant[cost]) for cost in COSTS})
            facts = {key: str(variant[key]) for key in ("controller", "tau_cross", "tau_self")}
            with SummaryWriter(run.dir / self.folder / digest([run.run_id, name])[:12]) as writer:
                writer.add_hparams(
                    {"run": f"{run.name} {run.job}".strip(), "variant": name, **facts},
                    scalars,
                    run_name=".",
                )
        return f"tensorboard: tensorboard --logdir {run.dir / self.folder}"


def undefined(value: float | None) -> bool:
    """Whether a mean has no value."""
    return value is None or math.isnan(value)


def fraction(text: str) -> float | None:
    """A schedule that is one fraction as a number; an interval or none is None."""
    try:
        return float(text)
    except ValueError:
        return None


def _cell(value: float | None) -> float | str:
    return "" if value is None or math.isnan(value) else value
