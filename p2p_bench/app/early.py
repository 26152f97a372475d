"""Faults of the arguments that can be told before torch is imported, which takes seconds.

A fault is told at once unless something else was typed whose value no annotation judges, so that its class
has to: all faults are listed together. Files that are missing are told once there are no other faults, as
in a run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from p2p_bench.app.build import group_faults, has_nodes, tau_faults
from p2p_bench.app.paths import placed, user_path
from p2p_bench.app.schema import COMPONENT_GROUPS
from p2p_bench.app.settings import run_faults
from p2p_bench.app.signatures import source_name, source_signature
from p2p_bench.errors import ConfigError, ErrorList, MissingWeightsError, P2PError

if TYPE_CHECKING:
    from p2p_bench.models.timesteps import LevelKind

_JSONL = "p2p_bench.data.jsonl.JsonlPairs"
_SHIPPED = {
    "p2p_bench.models.world.world_checkpoint": "pipeline",
    "p2p_bench.models.world_flow.world_flow_checkpoint": "pipeline_flow",
}
"""Checkpoints that are shipped, where no path is given; with their folder among the world's weights."""
_CHECKPOINTS = (
    "p2p_bench.models.checkpoint.UNetCheckpoint",
    "p2p_bench.models.deepfloyd_checkpoint.DeepFloydCheckpoint",
    "p2p_bench.models.flux_checkpoint.FluxCheckpoint",
    "p2p_bench.models.local.LocalCheckpoint",
    "p2p_bench.models.sd3_checkpoint.SD3Checkpoint",
    *_SHIPPED,
)
_LEVELS: "Mapping[str, LevelKind]" = {
    "DDIMSampler": "ddim",
    "EulerSampler": "euler",
    "DPMSolverSampler": "multistep",
}
"""Whose noise levels samplers take, by their class; others say themselves what number of steps they serve."""
_GOOD = (*(f"trainer.accelerator={name}" for name in ("auto", "cpu", "gpu", "mps")), "trainer.devices=1")
"""What is often typed, known to be good, and of a class that its annotations say little of."""


def refuse_early(configs: Sequence[DictConfig], overrides: Sequence[str], pairs: bool = True) -> None:
    """Stops at faults that need no class to be seen.

    Args:
        configs: Composed configurations, one or one per choice of a sweep.
        overrides: What was typed for them.
        pairs: Whether the data set is going to be read.

    Raises:
        ErrorList: There are such faults, and none that only a class could add.
    """
    faults = _all(configs, _setting_faults)
    faults = faults or _all(configs, lambda config: _file_faults(config, pairs))
    if faults and not any(_needs_class(configs, text, faults) for text in overrides):
        raise ErrorList(list(faults.values()))


def _all(
    configs: Sequence[DictConfig], find: Callable[[DictConfig], Iterator[P2PError]]
) -> dict[str, P2PError]:
    """The faults of several configurations, each once, by its message."""
    return {str(fault): fault for config in configs for fault in find(config)}


def _setting_faults(config: DictConfig) -> Iterator[P2PError]:
    yield from run_faults(config)
    if not has_nodes(config):
        return
    yield from tau_faults(config)
    for group in COMPONENT_GROUPS:
        yield from group_faults(config, group, source_signature)


def _needs_class(configs: Sequence[DictConfig], override: str, faults: dict[str, P2PError]) -> bool:
    """Whether an override sets a value that only a class can find wrong, and that is not known to be."""
    key = override.partition("=")[0].lstrip("+~")
    group, _, rest = key.partition(".")
    if group not in COMPONENT_GROUPS or not rest or override in _GOOD:
        return False
    if any(text.startswith(f"{key}:") for text in faults):
        return False
    return any(not _is_judged(config, key) for config in configs)


def _is_judged(config: DictConfig, key: str) -> bool:
    """Whether the annotation of the argument that a key sets, or is part of, says all that it may be."""
    if isinstance(OmegaConf.select(config, key, throw_on_resolution_failure=False), bool):
        return True
    node, argument = key, ""
    while node:
        node, _, argument = node.rpartition(".")
        component = OmegaConf.select(config, node, throw_on_resolution_failure=False) if node else None
        if isinstance(component, DictConfig) and "_target_" in component:
            read = source_signature(component["_target_"])
            known = None if read is None else read.parameters.get(argument)
            return known is not None and "typing.Any" not in str(known.annotation)
    return False


def _file_faults(config: DictConfig, pairs: bool) -> Iterator[P2PError]:
    """What is wrong with the files that a configuration names; no weights and no images are read."""
    for check in (_check_model, _check_pairs) if pairs else (_check_model,):
        try:
            check(config)
        except P2PError as error:
            yield error


def _check_model(config: DictConfig) -> None:
    """See that a checkpoint is there and whole, and trained on enough timesteps for the run.

    Raises:
        MissingWeightsError: It is not there.
        ConfigError: It serves no run of so many steps.
    """
    from p2p_bench.models.files import (
        check_complete,
        checkpoint_directory,
        read_json,
        read_layout,
        upscaler_directory,
    )
    from p2p_bench.models.flow_levels import flow_layout
    from p2p_bench.models.timesteps import layout_from_config
    from p2p_bench.resources import resource_path

    model = _arguments(config.model)
    if source_name(config.model["_target_"]) not in _CHECKPOINTS:
        return
    shipped = _SHIPPED.get(source_name(config.model["_target_"])) if model["path"] is None else None
    path = resource_path("p2p_bench", "world", "weights", shipped) if shipped else _placed(model["path"])
    directory = checkpoint_directory(path, model["name"], model.get("revision"))
    check_complete(directory, model["name"], model.get("variant"), model.get("t5") is not False)
    file = directory / "scheduler" / "scheduler_config.json"
    try:
        family = read_layout(directory, model["name"])
        read = read_json(file, model["name"])
        # The number of steps that a flow can be asked for does not depend on the size of the image.
        layout = flow_layout(read, 1) if family.flow else layout_from_config(read, family.steps_offset)
    except ConfigError as error:
        raise MissingWeightsError(f"model {model['name']!r} in {file.parent}: {error}") from error
    if family.family == "if" and model.get("upscaler") is not None:
        upscaler = _placed(model["upscaler"])
        upscaler_directory(upscaler, model["name"], model["variant"], model["upscaler_revision"])
    kind = _LEVELS.get(source_name(config.sampler["_target_"]).removeprefix("p2p_bench.sampling.sampler."))
    sampler = _arguments(config.sampler)
    if kind is None or sampler.get("karras"):
        return
    steps = next(one for one in (sampler["steps"], model["steps"], family.steps) if one is not None)
    layout.laid_out(kind, sampler["spacing"]).check(steps)


def _check_pairs(config: DictConfig) -> None:
    """See that a file of pairs and the folder of its images are there.

    Raises:
        DataError: One is not.
    """
    if source_name(config.dataset["_target_"]) == _JSONL:
        from p2p_bench.data.places import image_folder

        dataset = _arguments(config.dataset)
        root = None if dataset["root"] is None else user_path(_placed(dataset["root"]))
        image_folder(user_path(_placed(dataset["path"])), root)


def _placed(text: Any) -> str:
    return placed(str(text), Path.cwd())


def _arguments(node: DictConfig) -> dict[str, Any]:
    """The arguments of a component, defaults included."""
    read = source_signature(node["_target_"])
    defaults = {} if read is None else {name: one.default for name, one in read.parameters.items()}
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return {**defaults, **{str(key): value for key, value in plain.items()}}
