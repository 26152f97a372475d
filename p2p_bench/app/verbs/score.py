"""`p2p-bench score FOLDER|RUN KEY=VALUE ...`: scores images that exist already; nothing is generated."""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from p2p_bench.app.build import build_task, chosen_options, without_hydra
from p2p_bench.app.compose import checked_overrides, composed, composing, group_options
from p2p_bench.app.console import status_console
from p2p_bench.app.early import refuse_early
from p2p_bench.app.paths import place_paths, user_path
from p2p_bench.app.spelling import quoted
from p2p_bench.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from p2p_bench.bench.task import Task
    from p2p_bench.editors.folder import FolderOfImages
    from p2p_bench.editors.found import Found, Key

SETTINGS = {
    "pattern": "editor.pattern",
    "panels": "editor.panels",
    "panel": "editor.panel",
    "reconstruction": "editor.reconstruction",
    "fit": "editor.fit",
    "size": "model.size",
    "name": "model.name",
}
"""What `score.KEY` sets."""

_FREE = ("dataset", "metrics", "logger", "trainer", "run", "seed", "hydra")
"""What else may be set."""

_OF_EDITS = (
    "baseline", "truncate", "repair", "repair_feather", "heatmaps", "cache", "cache_gb", "timeout", "plan",
)  # fmt: skip
"""Settings under `run` that say how edits are made: results would say so of pictures that were not."""

_BASE = (
    "model=given", "controller=none", "inversion=none", "run.name=score", "run.heatmaps=false",
)  # fmt: skip


def main(arguments: list[str], debug: bool) -> int:
    """Scores a folder of images, or the pictures that a finished run kept.

    Args:
        arguments: The folder, and overrides.
        debug: Show stack traces.

    Returns:
        The exit code of the run that scores.

    Raises:
        ConfigError: The settings do not go with scoring, or no image belongs to any pair.
        DataError: The folder or the run cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench score",
        usage="p2p-bench score FOLDER|RUN [KEY=VALUE ...]",
        description="Scores images that any tool made (FOLDER, with dataset=... and score.pattern=...), or "
        "the pictures that a finished run kept (RUN, with metrics=...). What it leaves is what a run leaves.",
    )
    parser.add_argument("folder", type=user_path, help="folder of images, or directory of a finished run")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_intermixed_args(arguments)
    folder = options.folder.absolute()
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    _refuse_unwritable([str(folder)])
    typed = list(_translated(options.overrides))
    if _is_run(folder):
        return _score_run(folder, typed, debug)
    if (folder / "multirun.yaml").is_file():
        raise DataError(f"{folder}: the directory of a sweep; give that of one of its jobs")
    return _score_folder(folder, typed, debug)


def _is_run(folder: Path) -> bool:
    """Whether a folder is the directory of a run, finished or not: other tools write a `config.yaml` too."""
    begun = (folder / "config.yaml").is_file() and (folder / "rows").is_dir()
    return begun or (folder / "results.parquet").is_file()


def _refuse_unwritable(names: Iterable[str]) -> None:
    """Refuses names of folders that a configuration cannot hold as they are.

    Raises:
        ConfigError: There is one.
    """
    from p2p_bench.raster import shortened

    for name in names:
        if "${" in name:
            raise ConfigError(
                f"{name}: a name with '${{' would be read as a reference to a setting; rename the folder"
            )
        try:
            name.encode()
        except UnicodeEncodeError as error:
            told = f"{shortened(name)}: the name is no text ({error.reason}); rename the folder"
            raise ConfigError(told) from error


def _translated(overrides: Sequence[str]) -> Iterator[str]:
    """Overrides with `score.KEY` as the key that it stands for.

    Raises:
        ConfigError: A key has no meaning here.
    """
    for text in overrides:
        key, equal, value = text.partition("=")
        bare = key.lstrip("+~")
        group, _, rest = bare.partition(".")
        if group == "score":
            if rest not in SETTINGS:
                raise ConfigError(
                    f"{text}: unknown key.{nearest(rest, SETTINGS)} Known: "
                    f"{', '.join(f'score.{name}' for name in SETTINGS)}"
                )
            yield f"{SETTINGS[rest]}={quoted(value) if rest in ('pattern', 'name') else value}"
        elif group.partition("/")[0] not in _FREE or (group == "run" and rest in _OF_EDITS):
            raise ConfigError(
                f"{text}: score makes no edits, so it has no meaning; what may be set: score.KEY, "
                f"{', '.join(_FREE[:-1])}"
            )
        else:
            yield key + equal + value


def _score_folder(folder: Path, typed: Sequence[str], debug: bool) -> int:
    from p2p_bench.editors.folder import FolderOfImages
    from p2p_bench.editors.found import common_size, most_common_size
    from p2p_bench.metrics.base import all_columns

    base = [*_BASE, "editor=folder", f"editor.path={quoted(str(folder))}"]
    with_size = any(text.startswith("model.size=") for text in typed)
    task = _task([*base, *([] if with_size else ["model.size=[1,1]"]), *typed])
    editor = task.editor
    assert isinstance(editor, FolderOfImages)
    columns = all_columns(task.metrics)
    if not any(pair.has_image for pair in task.dataset.pairs()) and all(one.needs_source for one in columns):
        raise ConfigError(
            "metrics: all of these compare with the source image, and the data set has none; add clip, which "
            "scores pictures against prompts"
        )
    editor = replace(editor, variants=editor.variants_there(task.dataset))
    found = editor.places(task.dataset)
    _refuse_unwritable(editor.variants)
    if editor.variants:
        base.append(f"editor.variants=[{','.join(map(quoted, editor.variants))}]")
    sizes = common_size(found, editor.panels)
    if not sizes:
        raise ConfigError(f"{folder}: none of its pictures can be read or divided into {editor.panels}")
    if not with_size:
        height, width = most_common_size(sizes)
        base.append(f"model.size=[{height},{width}]")
        _tell_sizes(sizes, editor.panels, editor.fit)
    _tell_left_out(editor, found)
    if hasattr(task.dataset, "fit") and not any(text.startswith("dataset.fit=") for text in typed):
        base.append("dataset.fit=error")  # nothing is resized without a word
    return _run([*base, *typed], debug)


def _score_run(folder: Path, typed: Sequence[str], debug: bool) -> int:
    from p2p_bench.bench.open_run import changed_sources, pairs_checksum
    from p2p_bench.editors.finished import FinishedRunImages
    from p2p_bench.editors.found import common_size, most_common_size

    keys = {text.partition("=")[0].lstrip("+~") for text in typed}
    if not any(key.partition(".")[0] == "metrics" for key in keys):
        raise ConfigError(f"{folder}: a finished run; say what it is to be scored by, with metrics=...")
    if wrong := [key for key in keys if key.partition(".")[0] in ("dataset", "seed", "editor", "model")]:
        typed_as = {key: f"score.{name}" for name, key in SETTINGS.items()}.get(wrong[0], wrong[0])
        raise ConfigError(f"{typed_as}: pairs and pictures are those of the run in {folder}; leave it out")
    editor = FinishedRunImages(folder)
    summary, rows, found = editor.summary(), editor.rows(), editor.places()
    sizes = common_size(found, 1)
    if not sizes:
        raise ConfigError(f"{folder}: none of its pictures can be read")
    height, width = most_common_size(sizes)
    base = [
        *_BASE, "editor=finished", f"editor.path={quoted(str(folder))}", f"model.size=[{height},{width}]",
        f"model.name={quoted(str(rows[0]['model']))}", *_dataset_of(folder),
    ]  # fmt: skip
    task = _task([*base, *typed])
    pairs = task.dataset.pairs()
    other = pairs_checksum(pairs) != summary["checksums"].get("pairs")
    if other or (changed := changed_sources(task.dataset, pairs, rows)):
        what = "its data set" if other else f"the image or the mask of {changed[0]!r}"
        raise DataError(
            f"{folder}: {what} has changed since the run, so the pictures may be of other pairs; "
            "bring the data set back, or run again"
        )
    return _run([*base, *typed], debug)


def _dataset_of(folder: Path) -> Iterator[str]:
    """The overrides that make the data set of a run, and its seed.

    Raises:
        DataError: What the run left does not say, or it is none of those that are shipped.
    """
    from p2p_bench.app.jobs import STARTED
    from p2p_bench.bench.directory import read_config

    config = read_config(folder)
    node, started = config.get("dataset"), config.get(STARTED) or {}
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise DataError(f"{folder}: its config.yaml does not say of which data set it is")
    options = [
        option
        for option in group_options("dataset")
        if OmegaConf.select(composed((f"dataset={option}",)), "dataset._target_") == node["_target_"]
    ]
    if not options:
        raise DataError(f"{folder}: its data set is none that is shipped, {node['_target_']}")
    placed = OmegaConf.create(dict(node))
    place_paths(placed, Path(str(started.get("cwd", Path.cwd()))))
    yield f"dataset={options[0]}"
    stated = composed((f"dataset={options[0]}",)).dataset
    plain: Any = OmegaConf.to_container(placed)
    for key, value in plain.items():
        there = key in stated
        if key == "_target_" or (there and not OmegaConf.is_missing(stated, key) and stated[key] == value):
            continue
        yield f"{'' if there else '+'}dataset.{key}={_value(value)}"
    yield f"seed={config.get('seed', 0)}"


def _value(value: Any) -> str:
    """A plain value as Hydra reads it."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_value, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return quoted(value) if isinstance(value, str) else repr(value)


def _task(overrides: Sequence[str]) -> "Task":
    with composing():
        config: DictConfig = composed(tuple(checked_overrides(overrides)))
    refuse_early([without_hydra(config)], overrides)
    return build_task(without_hydra(config), chosen_options(config.hydra))


def _run(overrides: Sequence[str], debug: bool) -> int:
    from p2p_bench.app.verbs.run import main as run

    return run(list(overrides), debug)


def _tell_left_out(editor: "FolderOfImages", found: "Mapping[Key, Found | str]") -> None:
    """Says which pictures are no edit's: where edits lack one, of no known variant, or behind links."""
    from p2p_bench.raster import shortened

    unused = editor.unused(found)
    lacking = sum(isinstance(one, str) for one in found.values())
    if unused and lacking:
        said = (
            f"warning: {lacking} of {len(found)} edits have no picture, and {len(unused)} pictures are no "
            f"edit's, such as {shortened(unused[-1])!r}; see that score.pattern gives each edit its own"
        )
        status_console().print(said, markup=False)
    for variant, names in editor.left_out(unused).items():
        said = (
            f"warning: {shortened(variant)!r} is left out: none of its {len(names)} pictures is an edit's by "
            f"score.pattern, such as {shortened(names[0])!r}"
        )
        status_console().print(said, markup=False)
    if links := editor.linked_folders():
        named = ", ".join(repr(shortened(link)) for link in links)
        said = f"warning: links to folders are not entered: {named}; copy them if their pictures count"
        status_console().print(said, markup=False)


def _tell_sizes(sizes: Mapping[tuple[int, int], int], panels: int, fit: str) -> None:
    """Says which size is taken, and what else there is."""
    from p2p_bench.editors.found import most_common_size

    height, width = most_common_size(sizes)
    others = sum(sizes.values()) - sizes[height, width]
    said = f"pictures of {width} x {height} pixels"
    if others:
        told = "are errors, unless score.fit says to resize them" if fit == "error" else "are brought to that"
        said += f"; {others} of another size {told}"
    if panels == 1 and width == 4 * height:
        said += "; four side by side, as the files of PnPInversion? then set score.panels=4"
    status_console().print(said, markup=False)
