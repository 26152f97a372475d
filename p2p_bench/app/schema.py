"""Schema of the root configuration: unknown keys and wrong types are refused when a run is composed."""

import os
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

COMPONENT_GROUPS = (
    "model", "controller", "inversion", "editor", "dataset", "sampler", "metrics", "logger", "trainer",
)  # fmt: skip
"""Groups whose nodes name a class by `_target_` (`metrics` and `logger` hold several such nodes)."""

SEVERAL = ("metrics", "logger")
"""Groups of these whose node maps names to components."""


@dataclass
class TauPoint:
    """One schedule of a sweep.

    Attributes:
        cross: Part of the steps in which cross-attention is edited: a number in [0, 1], counted from
            the first step, or an interval `[start, end]`.
        self_attn: The same for self-attention.
    """

    cross: Any = 0.8
    self_attn: Any = 0.4


@dataclass
class TauNode(TauPoint):
    """The schedule of a run.

    Attributes:
        sweep: Schedules that are measured in one run, a variant each; they replace `cross` and
            `self_attn`. None measures the one schedule.
    """

    sweep: list[TauPoint] | None = None


@dataclass
class RunNode:
    """What is run, and what is kept of it.

    Attributes:
        name: Folder of the results under `outputs/`.
        dir: Directory of the results; None makes a new one under `outputs/<name>/`. A directory that
            holds a run with the same settings is completed.
        output: URL that fsspec knows, such as `s3://bucket/folder`; all that the run leaves is copied there
            as it comes, and a run whose directory lacks what is there fetches it first. Each job of a sweep
            has a folder of its own there.
        batch_size: Pairs that are edited together.
        baseline: Adds the variant `none`, the target prompt sampled without control.
        images: Number of pairs whose pictures are kept; None keeps all.
        heatmaps: Keeps pictures of the attention of the changed words.
        truncate: Cuts prompts that are too long for the model instead of refusing them.
        repair: Puts the source's pixels back outside the edit: "words" by the attention to the words that
            change, "mask" by the pair's mask; "none" leaves edits as they are.
        repair_feather: Softens the edge of that mask; a standard deviation in pixels.
        cache: Inversions are kept and found again, in the directory that is named; true is
            `$P2P_BENCH_CACHE`, else `p2p_bench` in `$XDG_CACHE_HOME` or `~/.cache`; false always inverts.
            With a URL they are kept here and there, and found by every machine that names it.
        cache_gb: Gigabytes that the cache may take; the least recently used entries make room.
        resume: A directory that holds a run with the same settings is completed; false refuses one that holds
            any run, "force" moves a run with other settings, versions or code into `replaced/` and starts
            anew.
        timeout: Seconds that a pair may take, looked at between steps; one that takes longer is an error.
            None lets it take its time.
        max_errors: Number of edits that may fail before the run ends, each process for itself; a run that was
            ended so can be resumed. None ends at none.
        plan: Shows what would be computed, and what it would cost, instead of running.
        objectives: Metric columns whose means a job returns to a sweeper that searches.
        trust: Takes components from anywhere, which runs their code; else those of this package alone.
        optional: Keys, such as `inversion.learning_rate`, that are left out where the chosen option does not
            have them. A sweep over options fills it in.
    """

    name: str = "run"
    dir: str | None = None
    output: str | None = None
    batch_size: int = 8
    baseline: bool = False
    images: int | None = 64
    heatmaps: bool = True
    truncate: bool = False
    repair: str = "none"
    repair_feather: float = 0.0
    cache: Any = True
    cache_gb: float = 4.0
    resume: Any = True
    timeout: float | None = None
    max_errors: int | None = None
    plan: bool = False
    objectives: list[str] = field(default_factory=list)
    trust: bool = False
    optional: list[str] = field(default_factory=list)


@dataclass
class RootConfig:
    """Root of the configuration; component groups are plain nodes checked against their class."""

    model: Any = MISSING
    controller: Any = MISSING
    tau: TauNode = field(default_factory=TauNode)
    inversion: Any = MISSING
    editor: Any = MISSING
    dataset: Any = MISSING
    sampler: Any = MISSING
    metrics: Any = MISSING
    logger: Any = MISSING
    trainer: Any = MISSING
    run: RunNode = field(default_factory=RunNode)
    seed: int = 0


def register_schema() -> None:
    """Makes the schema known to Hydra, and two resolvers.

    `${either:a,b}` is the first value that is not null, `${home:path}` a path with `~` resolved.
    """
    ConfigStore.instance().store("root_schema", RootConfig)
    OmegaConf.register_new_resolver("either", _either, replace=True)
    OmegaConf.register_new_resolver("home", os.path.expanduser, replace=True)


def _either(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
