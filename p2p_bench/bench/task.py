"""What one run measures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from p2p_bench.bench.repairs import RepairRule
from p2p_bench.cache import Cache
from p2p_bench.controllers import Controller
from p2p_bench.data.base import PairDataset
from p2p_bench.editors import ControlledSampling, EditorSettings
from p2p_bench.metrics.base import Metric
from p2p_bench.models import Checkpoint


@dataclass(frozen=True)
class Variant:
    """One way to edit every pair.

    Attributes:
        name: Unique within the run.
        controller: Edits the attention; adapted to each pair by its `for_pair`.
        controller_name: Name of the controller in results.
        cross: Cross-attention schedule as text, "" where there is none.
        self_attn: Self-attention schedule as text, "" where there is none.
        settings: The parts of the configuration that are this variant's own, as plain values.
    """

    name: str
    controller: Controller
    controller_name: str
    cross: str = ""
    self_attn: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Everything that decides the numbers of a run.

    Attributes:
        checkpoint: The model.
        dataset: The pairs.
        variants: At least one, with different names.
        inversion: How images become start latents.
        inversion_name: Name of the inversion in results.
        sampler: Steps, guidance and step function.
        metrics: Metric by the name it has in the configuration.
        seed: Seed of the run.
        truncate: Cut prompts that are too long instead of refusing them.
        repair: What becomes of the pixels that an edit should not touch.
        cache: Where inversions are looked for and kept; None always inverts. Decides no number but costs.
        editor: Who makes the edits.
        settings: The same as plain values, for the record; a directory with rows takes only a run of
            equal settings.
    """

    checkpoint: Checkpoint
    dataset: PairDataset
    variants: tuple[Variant, ...]
    inversion: Any
    inversion_name: str
    sampler: Any
    metrics: Mapping[str, Metric]
    seed: int = 0
    truncate: bool = False
    repair: RepairRule = field(default_factory=RepairRule)
    cache: Cache | None = None
    editor: EditorSettings = field(default_factory=ControlledSampling)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Keep:
    """What a run keeps besides rows.

    Attributes:
        images: Number of pairs whose pictures are kept; None keeps all.
        heatmaps: Whether attention of the changed words is recorded and kept.
    """

    images: int | None = 64
    heatmaps: bool = True


@dataclass(frozen=True)
class Limits:
    """When a run gives up.

    Attributes:
        timeout: Seconds that a pair may take, looked at between steps; None is any time.
        max_errors: Number of edits that may fail before the run ends; None is any number.
    """

    timeout: float | None = None
    max_errors: int | None = None
