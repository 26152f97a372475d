"""Writers of a finished run besides its own files: functions of its rows and summary."""

import csv
import io
import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

from p2p_bench.bench.finished import COSTS, FinishedRun, figures_of, flat, settings_of
from p2p_bench.bench.rows import write_atomically
from p2p_bench.errors import ConfigError
from p2p_bench.hashing import digest


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
        """Writes the table; undefined means and unknown costs are empty cells."""
        metrics = list(run.summary["metrics"])
        facts = ["controller", "tau_cross", "tau_self", *COSTS]
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        counted = (name for metric in metrics for name in (metric, f"{metric}_count"))
        table.writerow(["variant", *facts, *counted])
        for name, variant in run.summary["variants"].items():
            means = [variant["metrics"][metric] for metric in metrics]
            cells = [cell for mean in means for cell in (_cell(mean["mean"]), mean["count"])]
            table.writerow([name, *(_cell(variant[fact]) for fact in facts), *cells])
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
        """Writes the event files; figures without a value are left out."""
        from torch.utils.tensorboard import SummaryWriter  # imported late: an extra

        for variant in run.summary["variants"]:
            with SummaryWriter(run.dir / self.folder / digest([run.run_id, variant])[:12]) as writer:
                writer.add_hparams(*hyperparameters(run, variant), run_name=".")
        return f"tensorboard: tensorboard --logdir {run.dir / self.folder}"


def hyperparameters(run: FinishedRun, variant: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Settings of a variant as TensorBoard takes them, numbers as numbers, and its figures as scalars."""
    leaves = dict(flat({"run_name": f"{run.name} {run.job}".strip(), **settings_of(run, variant)}))
    plain = (bool, int, float, str)
    settings = {
        key: value if isinstance(value, plain) else str(value)
        for key, value in leaves.items()
        if value is not None
    }
    scalars = {
        f"cost/{name}" if name in COSTS else name: float(value)
        for name, value in figures_of(run, variant).items()
    }
    return settings, scalars


def _cell(value: float | int | str | None) -> float | int | str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
