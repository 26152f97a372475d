"""Weights & Biases: a run per variant, written from a finished run."""

import netrc
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Annotated, Any
from urllib.parse import urlsplit

import wandb

from p2p_bench.bench.finished import (
    COSTS,
    EDITS,
    FinishedRun,
    choices_of,
    figures_of,
    rows_of,
    settings_of,
    undefined,
)
from p2p_bench.bench.rows import IMAGE_COLUMNS
from p2p_bench.fields import AtLeast, check_fields
from p2p_bench.hashing import digest

_TEXTS = ("sample_id", "variant", "target_index", "category", "source_prompt", "target_prompt", "status")
_CLOUD, _CLOUD_DOMAINS = "api.wandb.ai", (".wandb.ai", ".coreweave.com")
"""Host that keys of the public service are kept under, whatever name it answers to."""
PROJECT = "p2p_bench"
"""Project of runs that name none."""
_TAGGED = ("model", "dataset", "inversion", "controller")
_LONGEST_TAG = 64
_SECONDS_TO_CONNECT = 5.0
_SECONDS_TO_START = 30.0
_SECONDS_TO_FINISH = 120


@dataclass(frozen=True)
class WandbLogger:
    """A Weights & Biases run per variant: configuration, metrics, table of pictures; the report as artifact.

    Runs are written in the order of the variants, after the rows are on the disk, so they say what the
    rows say. Offline, into the run directory, unless a key is present and the server answers; a
    connection that fails later ends offline too, and nothing waits for an upload longer than two minutes
    (what is left is on the disk for `wandb sync`). The runs of a sweep, or of the variants of one run,
    share a `group`.

    The configuration of a run is that of its variant, and so are its figures: see `settings_of` and
    `figures_of`. A metric's direction is told by what its summary keeps, `min` or `max`.

    The environment is honoured as wandb documents it, so that `wandb agent` can drive runs:
    `WANDB_PROJECT` and `WANDB_ENTITY` where the attributes are None, `WANDB_RUN_ID` and `WANDB_NAME` (with
    a suffix for each job of a sweep and each of several variants), `WANDB_RUN_GROUP`, `WANDB_TAGS`,
    `WANDB_SWEEP_ID`, `WANDB_MODE`, `WANDB_DIR`.

    Attributes:
        project: Project of the runs; None is `p2p_bench`.
        entity: User or team; None is the key's own.
        max_table_rows: Edits in a variant's table of pictures; only those with pictures on disk.
        tags: Tags besides the names of model, data set, inversion and controller.
    """

    project: str | None = None
    entity: str | None = None
    max_table_rows: Annotated[int, AtLeast(0)] = 256
    tags: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: One is of the wrong type or out of range.
        """
        check_fields(self, "logger.wandb.")

    def write(self, run: FinishedRun) -> str:
        """Writes the runs and closes them, whatever happens."""
        mode, note = _mode()
        if mode == "disabled":
            return "wandb: disabled by WANDB_MODE"
        places: list[str] = []
        with _staging(_root(run) / "wandb"):
            for variant in run.summary["variants"]:
                try:
                    active, failure = self._start(run, variant, mode)
                    if failure:
                        mode, note = "offline", failure
                    self._log(active, run, variant)
                    if not places:
                        _add_report(active, run)
                    places.append(str(active.settings.sync_dir if active.offline else active.url))
                finally:
                    wandb.finish()
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        return f"wandb: {places[0]}{more}{f' (offline: {note})' if note else ''}"

    def _start(self, run: FinishedRun, variant: str, mode: str) -> tuple[wandb.Run, str]:
        """The open run, and why it is offline where it should not be."""
        try:
            return self._init(run, variant, mode), ""
        except wandb.Error as error:
            if mode != "online":
                raise
            wandb.finish(exit_code=1)
            return self._init(run, variant, "offline"), _without_key(str(error).splitlines()[0])

    def _init(self, run: FinishedRun, variant: str, mode: str) -> wandb.Run:
        several = len(run.summary["variants"]) > 1
        run_id = _run_id(run, variant)
        if mode == "offline":
            _forget_unsent(_root(run), run_id)
        names = (os.environ.get("WANDB_NAME") or run.name, run.job, variant if several else "")
        return wandb.init(
            project=self.project or os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=self.entity or os.environ.get("WANDB_ENTITY"),
            dir=_root(run),
            mode=mode,  # type: ignore[arg-type]  # read from the environment
            id=run_id,
            resume="allow" if mode == "online" else None,
            name=" ".join(filter(None, names)),
            group=os.environ.get("WANDB_RUN_GROUP")
            or run.group
            or (f"{run.name} {run.run_id}" if several else None),
            job_type=run.summary["variants"][variant]["controller"],
            tags=self._tags(run, variant),
            config=settings_of(run, variant),
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                init_timeout=_SECONDS_TO_START,
                finish_timeout=_SECONDS_TO_FINISH,
            ),
        )

    def _tags(self, run: FinishedRun, variant: str) -> list[str]:
        chosen = choices_of(run, variant)
        named = (chosen.get(f"choice/{group}", "") for group in _TAGGED)
        asked = (tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(","))
        return [tag[:_LONGEST_TAG] for tag in dict.fromkeys([*named, *self.tags, *asked]) if tag]

    def _log(self, active: wandb.Run, run: FinishedRun, variant: str) -> None:
        for name, about in run.summary["metrics"].items():
            active.define_metric(name, summary=_kept(about["higher_is_better"]))
        for cost in COSTS:
            active.define_metric(cost, summary="last")
        figures = figures_of(run, variant)
        plotted = ("tau_cross", "tau_self", *COSTS, *run.summary["metrics"])
        active.log({"variant": variant, **{name: figures[name] for name in plotted if name in figures}})
        active.summary.update(figures)
        active.log({EDITS: self._table(run, rows_of(run, variant))})

    def _table(self, run: FinishedRun, rows: Iterable[Mapping[str, Any]]) -> wandb.Table:
        metrics = list(run.summary["metrics"])
        shown = (row for row in rows if any(row[column] for column in IMAGE_COLUMNS))
        return wandb.Table(
            columns=[*_TEXTS, *IMAGE_COLUMNS, *metrics],
            data=[
                [
                    *(row[name] for name in _TEXTS),
                    *(wandb.Image(str(run.dir / row[name])) if row[name] else None for name in IMAGE_COLUMNS),
                    *(None if undefined(row[name]) else row[name] for name in metrics),
                ]
                for row in islice(shown, self.max_table_rows)
            ],
        )


def wandb_key_present() -> bool:
    """Whether a Weights & Biases key is known on this machine; the key itself is never shown."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = _server()[0]
    hosts = {host, _CLOUD} if host.endswith(_CLOUD_DOMAINS) else {host}
    for path in (os.environ.get("NETRC"), Path.home() / ".netrc", Path.home() / "_netrc"):
        try:
            if path and any(map(netrc.netrc(str(path)).authenticators, hosts)):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _root(run: FinishedRun) -> Path:
    """Folder in which wandb makes its own."""
    return Path(os.environ.get("WANDB_DIR") or run.dir)


def _run_id(run: FinishedRun, variant: str) -> str:
    """Equal whenever a run is written again; the one that `wandb agent` gives, where it gives one."""
    given = os.environ.get("WANDB_RUN_ID")
    if not given:
        return digest([run.run_id, run.group, run.job, str(run.dir.resolve()), variant])[:16]
    variants = list(run.summary["variants"])
    parts = [given, run.dir.name if run.group else "", variants.index(variant) if len(variants) > 1 else ""]
    return "-".join(str(part) for part in parts if part != "")


def _forget_unsent(root: Path, run_id: str) -> None:
    """Deletes what an earlier writing of a run left offline, unless it has been synced."""
    for folder in (root / "wandb").glob(f"offline-run-*-{run_id}"):
        _, _, _, its_id = folder.name.split("-", 3)  # offline-run-<time>-<id>
        if its_id == run_id and not any(folder.glob("*.synced")):
            rmtree(folder)


def _mode() -> tuple[str, str]:
    """The mode to start in, and why it is offline although a key is there."""
    asked = os.environ.get("WANDB_MODE")
    if asked:
        return asked, ""
    if not wandb_key_present():
        return "offline", ""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return "online", ""  # the proxy reaches what this machine may not
    host, port = _server()
    try:
        with socket.create_connection((host, port), timeout=_SECONDS_TO_CONNECT):
            return "online", ""
    except OSError as error:
        return "offline", f"{host} does not answer: {error}"


def _server() -> tuple[str, int]:
    """Host and port that runs are sent to."""
    address = urlsplit(os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url)
    return address.hostname or "", address.port or (80 if address.scheme == "http" else 443)


def _without_key(message: str) -> str:
    key = os.environ.get("WANDB_API_KEY")
    return message.replace(key, "…") if key else message


def _kept(higher_is_better: bool | None) -> str:
    return {True: "max", False: "min", None: "last"}[higher_is_better]


def _add_report(active: wandb.Run, run: FinishedRun) -> None:
    """Attaches the report of the run, where one was written; it covers all variants."""
    page = run.dir / "report.html"
    if page.is_file():
        artifact = wandb.Artifact(f"report-{active.id}", type="report", description=run.name)
        artifact.add_file(str(page))
        active.log_artifact(artifact)


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
