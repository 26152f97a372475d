"""A run before anything is edited: what it reads is checked, its directory held, what it lacks is known."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from p2p_bench.bench.directory import Resume, claim, locked, set_aside
from p2p_bench.bench.finished import COSTS, EDITS
from p2p_bench.bench.lint import lint, refuse_if_hopeless
from p2p_bench.bench.makers import Maker, maker_of, makers, note_maker
from p2p_bench.bench.records import RowMaker
from p2p_bench.bench.references import ReferenceWriter, open_references, reference_schema
from p2p_bench.bench.rows import Key, RowWriter, key_of, read_rows, row_columns, row_schema
from p2p_bench.bench.task import Keep, Task, Variant
from p2p_bench.controllers.blend import fixed_masks
from p2p_bench.data.base import PairDataset, all_pairs, content_checksum
from p2p_bench.errors import ConfigError, ErrorList, P2PError
from p2p_bench.hashing import digest
from p2p_bench.inversion.base import misfits, steps_guided
from p2p_bench.metrics.base import Metric, MetricColumn, all_columns, metric_checksums
from p2p_bench.models import ModelSpec
from p2p_bench.models.files import file_hash
from p2p_bench.models.timesteps import TimestepLayout
from p2p_bench.raster import shortened
from p2p_bench.sampling.sampler import check_guidance
from p2p_bench.types import EditPair

MASKS = "controller.mask"
"""Checksum of the masks that users gave with controllers."""

_WANTED = ("run_id", "status", "source_checksum")
"""What decides whether a row that is there is one of this run."""


@dataclass(frozen=True)
class Facts:
    """What a task reads before the model is loaded.

    Attributes:
        spec: Facts about the model.
        columns: The metric columns.
        pairs: The pairs of the data set.
        checksums: Of the model, the pairs, the metrics' files and those of the inversion.
    """

    spec: ModelSpec
    columns: tuple[MetricColumn, ...]
    pairs: tuple[EditPair, ...]
    checksums: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """Names of the metric columns."""
        return [column.name for column in self.columns]


@dataclass(frozen=True)
class OpenRun:
    """A run whose directory is held. The edits that cannot be made have their rows already.

    Attributes:
        maker: Makes its rows.
        writer: Writes them.
        references: Writes its references.
        subjects: Pair and variant of each of its edits, in the order of the results.
        pending: The edits to make.
        there: Number of edits that were there before.
        others: Who made some of those with other versions or code than these, see `makers`.
    """

    maker: RowMaker
    writer: RowWriter
    references: ReferenceWriter
    subjects: Mapping[Key, tuple[EditPair, Variant]]
    pending: tuple[Key, ...]
    there: int
    others: tuple[Maker, ...] = ()

    def of_process(self, process: int) -> "OpenRun":
        """The run as one of several processes needs it to write its share."""
        writer, references = self.writer.of_process(process), self.references.of_process(process)
        return replace(self, writer=writer, references=references, subjects={}, pending=())


@contextmanager
def opened(
    task: Task,
    facts: Facts,
    run_dir: Path,
    config: Mapping[str, Any],
    keep: Keep,
    number: int = 0,
    resume: Resume = True,
) -> Iterator[OpenRun]:
    """Takes the directory of a run, as long as the context lasts.

    Args:
        task: What is measured.
        facts: What it reads, by `read_facts`.
        run_dir: Directory of the results; made if need be.
        config: The configuration for `config.yaml`.
        keep: Which pictures are kept.
        number: Number of the run among those that share a pass over the data.
        resume: "force" sets rows of other settings, versions or code aside; whether rows may be there at all
            is asked earlier.

    Raises:
        P2PError: A fault of the settings; or the directory is in use, or holds rows of other settings.
    """
    with locked(run_dir):
        faults = _faults(task, facts)
        run_id = _run_id(task, facts)
        before = read_rows(run_dir, _WANTED)
        other = any(row["run_id"] != run_id for row in before)
        known, here = makers(run_dir) if before else [], maker_of(task)
        elsewhere = any(one != here for one in known)
        changed = resume == "force" and changed_sources(task.dataset, facts.pairs, before)
        if resume == "force" and (other or elsewhere or changed):
            set_aside(run_dir)
            before, known = [], []
        claim(run_dir, run_id, before, config)
        if changed := changed_sources(task.dataset, facts.pairs, before):
            raise ConfigError(_mixed(run_dir, changed))
        subjects = _subjects(task, facts)
        there = {key_of(row): row["status"] for row in before}
        pending = tuple(key for key in subjects if there.get(key) != "ok")
        if before and pending and set(row_columns(run_dir)) != set(row_schema(facts.names).names):
            raise ConfigError(
                f"{run_dir} holds rows of another version, with other columns; choose another directory with "
                "run.dir=DIR, or set it aside with run.resume=force"
            )
        maker = _maker(task, facts, run_dir, keep, number)
        writer = RowWriter(run_dir, facts.names)
        finished = {(key[0], key[2]) for key, status in there.items() if status == "ok"}
        references = open_references(run_dir, facts.names, finished, run_id)
        new_faults = [key for key in faults if key not in there]
        writer.append([maker.failed(*subjects[key], key[2], faults[key]) for key in new_faults])
        pending = tuple(key for key in pending if key not in faults)
        already = len(subjects) - len(pending) if there else 0
        if pending:
            note_maker(run_dir, known, here)
        others = tuple(one for one in known if one != here)
        yield OpenRun(maker, writer, references, subjects, pending, already, others)


def told(run: OpenRun) -> dict[str, Any]:
    """What another process needs to know of a run to help with it, as plain values."""
    pending = set(run.pending)
    return {
        "run_id": run.maker.run_id,
        "references": run.references.wanted,
        "pending": [place for place, key in enumerate(run.subjects) if key in pending],
    }


def joined(
    task: Task, facts: Facts, run_dir: Path, keep: Keep, told: Mapping[str, Any], number: int = 0
) -> OpenRun:
    """A run whose directory another process holds, which this one helps.

    Args:
        task: What is measured.
        facts: What it reads, by `read_facts`.
        run_dir: Directory of the results.
        keep: Which pictures are kept.
        told: By `told`, from the process that holds the directory.
        number: Number of the run among those that share a pass over the data.

    Raises:
        ConfigError: This process would measure something else.
    """
    if _run_id(task, facts) != told["run_id"]:
        raise ConfigError(
            f"{run_dir}: the processes of this run do not read the same; the model, the data set and the "
            "settings have to be equal on every machine"
        )
    subjects = _subjects(task, facts)
    keys = list(subjects)
    return OpenRun(
        maker=_maker(task, facts, run_dir, keep, number),
        writer=RowWriter(run_dir, facts.names),
        references=ReferenceWriter(run_dir, facts.names, wanted=told["references"], run_id=told["run_id"]),
        subjects=subjects,
        pending=tuple(keys[place] for place in told["pending"]),
        there=0,
    )


def read_facts(task: Task) -> Facts:
    """Facts, columns and pairs, once all files that the run needs are known to be there.

    Raises:
        ErrorList: All that is wrong with them.
    """
    faults: list[P2PError] = []
    spec = _tried(task.checkpoint.spec, faults)
    columns = _tried(lambda: _own_columns(task.metrics), faults)
    for name, metric in task.metrics.items():
        _tried(partial(_check_metric, name, metric), faults)
    pairs = _tried(lambda: all_pairs(task.dataset), faults)
    known = task.editor.known_variants()
    unfit = None if spec is None else task.editor.refusal(spec)
    faults += filter(None, [unfit])
    steps = None if spec is None or known else _tried(lambda: task.sampler.steps_on(spec), faults)
    if spec is not None and not known and spec.capabilities:  # none: images that were made elsewhere
        guidance = spec.guidance if task.sampler.guidance is None else task.sampler.guidance
        _tried(lambda: check_guidance(guidance, spec), faults)
    inverts = not known and unfit is None and task.editor.own_variant() is None
    has_images = pairs is not None and inverts and any(pair.has_image for pair in pairs)
    if spec is not None and has_images:
        faults += misfits(task.inversion, spec, steps, task.sampler.stepper())
    if spec is not None and steps is not None and inverts:
        method, interval = task.inversion if has_images else None, task.sampler.guidance_interval
        _tried(lambda: steps_guided(spec, steps, interval, method), faults)
    sums = None if pairs is None else _tried(lambda: task.editor.sums(task.dataset), faults)
    if spec is None or columns is None or pairs is None or sums is None or faults:
        raise ErrorList(faults)
    checksums = {"model": spec.checksum} if spec.checksum else {}
    checksums |= {"pairs": pairs_checksum(pairs), **sums}
    if has_images and task.inversion.files():
        checksums["inversion"] = digest([file_hash(path) for path in task.inversion.files()])
    return Facts(spec, columns, tuple(pairs), checksums | metric_checksums(task.metrics))


def all_checksums(task: Task, facts: Facts) -> dict[str, str]:
    """Of what runs that share a pass read alike, and of the masks that this one's variants bring."""
    return {**facts.checksums, **_mask_checksum(task.variants)}


def _own_columns(metrics: Mapping[str, Metric]) -> tuple[MetricColumn, ...]:
    """The columns of the metrics, none of which a row, a reference or a dashboard has besides.

    Raises:
        ConfigError: One is called as something that each has.
    """
    taken = {*row_schema([]).names, *reference_schema([]).names, *COSTS, EDITS}
    for name, metric in metrics.items():
        for column in all_columns({name: metric}):
            if column.name in taken:
                raise ConfigError(
                    f"metrics.{name}: every row has a column {column.name!r} of its own, or every dashboard; "
                    f"call it otherwise, such as {name}_{column.name}"
                )
    return all_columns(metrics)


def _check_metric(name: str, metric: Metric) -> None:
    """Raises what is wrong with the files of a metric, with its name where the error does not say it."""
    try:
        metric.check()
    except P2PError:
        raise
    except Exception as error:
        raise ConfigError(f"metrics.{name}: its check failed ({type(error).__name__}: {error})") from error


def pairs_checksum(pairs: Sequence[EditPair]) -> str:
    """Checksum of what some pairs say, without where their files lie."""
    contents = []
    for pair in pairs:
        content = asdict(pair)
        content.update(image=pair.image and pair.image.name, mask=pair.mask and pair.mask.name)
        if pair.instruction is None:  # as in directories of runs that knew of none
            del content["instruction"]
        contents.append(content)
    return digest(contents)


def changed_sources(
    dataset: PairDataset, pairs: Sequence[EditPair], rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Ids of pairs whose image or mask holds other bytes than when their edits were made.

    Only pairs of finished rows are read. One whose files are gone is none of them: nothing else took their
    place.

    Args:
        dataset: The data set.
        pairs: Its pairs.
        rows: Rows that were made of them earlier.
    """
    known = {row["sample_id"]: row.get("source_checksum") for row in rows if row["status"] == "ok"}
    changed: list[str] = []
    for pair in pairs:
        if checksum := known.get(pair.id):
            try:
                now = content_checksum(dataset, pair)
            except P2PError:
                continue
            if now != checksum:
                changed.append(pair.id)
    return changed


def _mixed(run_dir: Path, changed: Sequence[str]) -> str:
    shown = ", ".join(repr(shortened(name)) for name in changed[:_SHOWN])
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return (
        f"{run_dir} holds rows of pictures that have been replaced since: the image or the mask of "
        f"{shown}{more}; bring them back to finish that run, choose another directory with run.dir=DIR, or "
        "set it aside with run.resume=force"
    )


_SHOWN = 5


def _mask_checksum(variants: Sequence[Variant]) -> dict[str, str]:
    """Of the masks that users gave with controllers, whose settings hold the names of their files alone."""
    masks = [mask for variant in variants for mask in fixed_masks(variant.controller)]
    held = [[mask.height, mask.width, hashlib.sha256(mask.data).hexdigest()] for mask in masks]
    return {MASKS: digest(held)} if held else {}


def _run_id(task: Task, facts: Facts) -> str:
    """Of all that decides the numbers, and of what the columns mean where that was changed once."""
    meant = {column.name: column.version for column in facts.columns if column.version != 1}
    moved = _moved_spacing(task, facts.spec)
    once = {key: value for key, value in {"meant": meant, "spacing": moved}.items() if value}
    return digest({"settings": task.settings, "checksums": all_checksums(task, facts), **once})[:12]


def _moved_spacing(task: Task, spec: ModelSpec) -> str | None:
    """The spacing that is the sampler's own, since nothing names one, where it was another in earlier rows.

    There it was "leading" whatever the sampler, in InstructPix2Pix that of the checkpoint's scheduler.
    """
    own = spec.timesteps
    if not isinstance(own, TimestepLayout) or own.spacing is not None or task.sampler.spacing is not None:
        return None
    layout = own.laid_out(task.sampler.stepper().levels)
    if layout.kind in ("karras", "consistency"):  # whose levels have no spacing
        return None
    return None if layout.spaced == ("linspace" if spec.family == "ip2p" else "leading") else layout.spaced


def _subjects(task: Task, facts: Facts) -> dict[Key, tuple[EditPair, Variant]]:
    return {
        (pair.id, variant.name, index): (pair, variant)
        for pair in facts.pairs
        for variant in task.variants
        for index in range(len(pair.target_prompts))
    }


def _maker(task: Task, facts: Facts, run_dir: Path, keep: Keep, number: int) -> RowMaker:
    pictured = frozenset(pair.id for pair in facts.pairs[: keep.images])
    return RowMaker(task, facts.spec, _run_id(task, facts), run_dir, pictured, keep.heatmaps, number)


def _tried(check: Callable[[], Any], faults: list[P2PError]) -> Any:
    """What a check returns; its faults are added to the list."""
    try:
        return check()
    except ErrorList as error:
        faults += error.errors
    except P2PError as error:
        faults.append(error)
    return None


def _faults(task: Task, facts: Facts) -> dict[Key, str]:
    faults = lint(task, facts.pairs, facts.spec)
    if not task.editor.known_variants():
        refuse_if_hopeless(facts.pairs, task.variants, faults)
    return faults
