"""Writers of a finished run besides its own files: functions of its rows and summary."""

import csv
import io
import math
import netrc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import wandb

from p2p_bench.bench.rows import IMAGE_COLUMNS, write_atomically
from p2p_bench.hashing import digest

_COSTS = ("count", "failed", "unet_rows", "unet_rows_spent", "seconds")
_TEXTS = ("sample_id", "variant", "target_index", "category", "source_prompt", "target_prompt", "status")


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
    """

    dir: Path
    run_id: str
    name: str
    group: str
    job: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]


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
        facts = ["controller", "tau_cross", "tau_self", *_COSTS]
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
class WandbLogger:
    """A Weights & Biases run per job: configuration, metrics of every variant, table of pictures.

    Offline, into the run directory, unless a key is present; a failing connection ends offline too.
    Metrics are logged once per variant, in order, under their plain names, and all together in the
    run's summary as `<variant>/<metric>`.

    Attributes:
        project: Project of the run.
        entity: User or team; None is the key's own.
        max_table_rows: Edits in the table of pictures; only those with pictures on disk.
    """

    project: str = "p2p_bench"
    entity: str | None = None
    max_table_rows: int = 256

    def write(self, run: FinishedRun) -> str:
        """Writes the run and closes it, whatever happens."""
        with _staging(run.dir / "wandb"):
            try:
                active, note = self._start(run)
                self._log(active, run)
                where = active.settings.sync_dir if active.offline else active.url
            finally:
                wandb.finish()
        return f"wandb: {where}{note}"

    def _start(self, run: FinishedRun) -> tuple[wandb.Run, str]:
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb_key_present() else "offline")
        try:
            return self._init(run, mode), ""
        except wandb.Error as error:
            if mode != "online":
                raise
            wandb.finish(exit_code=1)
            return self._init(run, "offline"), f" (offline: {str(error).splitlines()[0]})"

    def _init(self, run: FinishedRun, mode: str) -> wandb.Run:
        return wandb.init(
            project=self.project,
            entity=self.entity,
            dir=run.dir,
            mode=mode,  # type: ignore[arg-type]  # read from the environment
            id=digest([run.run_id, run.group, run.job, str(run.dir.resolve())])[:16],
            resume="allow" if mode == "online" else None,
            name=f"{run.name} {run.job}".strip(),
            group=run.group or None,
            config=dict(run.config),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, init_timeout=60),
        )

    def _log(self, active: wandb.Run, run: FinishedRun) -> None:
        for name, variant in run.summary["variants"].items():
            means = {metric: mean["mean"] for metric, mean in variant["metrics"].items()}
            defined = {metric: mean for metric, mean in means.items() if not _undefined(mean)}
            costs = {cost: variant[cost] for cost in _COSTS}
            active.log({"variant": name, **defined, **costs})
            active.summary.update({f"{name}/{key}": value for key, value in {**defined, **costs}.items()})
        active.summary.update({f"totals/{key}": value for key, value in run.summary["totals"].items()})
        active.log({"edits": self._table(run)})

    def _table(self, run: FinishedRun) -> wandb.Table:
        metrics = list(run.summary["metrics"])
        shown = [row for row in run.rows if any(row[column] for column in IMAGE_COLUMNS)]
        return wandb.Table(
            columns=[*_TEXTS, *IMAGE_COLUMNS, *metrics],
            data=[
                [
                    *(row[name] for name in _TEXTS),
                    *(wandb.Image(str(run.dir / row[name])) if row[name] else None for name in IMAGE_COLUMNS),
                    *(None if _undefined(row[name]) else row[name] for name in metrics),
                ]
                for row in shown[: self.max_table_rows]
            ],
        )


def wandb_key_present() -> bool:
    """Whether a Weights & Biases key is known on this machine; the key itself is never shown."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for path in (os.environ.get("NETRC"), Path.home() / ".netrc", Path.home() / "_netrc"):
        try:
            if path and netrc.netrc(str(path)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


@contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """Keeps the files that wandb stages for an upload beside the run, not in the user's home."""
    before = os.environ.get("WANDB_DATA_DIR")
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]
        else:
            os.environ["WANDB_DATA_DIR"] = before


def _undefined(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _cell(value: float | None) -> float | str:
    return "" if value is None or math.isnan(value) else value
