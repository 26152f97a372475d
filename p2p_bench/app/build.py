"""From a composed configuration to the parts of a run, with all faults listed at once.

The module itself loads no torch: what needs it is imported where it is made, so that faults of the arguments
can be told before (see `p2p_bench.app.early`).
"""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from p2p_bench.app.compose import first_line
from p2p_bench.app.editor_variants import NO_CONTROL, variants_of_editor
from p2p_bench.app.instantiate import Signatures, instantiate, node_faults
from p2p_bench.app.kinds import component_of
from p2p_bench.app.optional import leave_out
from p2p_bench.app.paths import cache_of, place_paths
from p2p_bench.app.schema import COMPONENT_GROUPS, SEVERAL
from p2p_bench.app.secrets import without_secrets
from p2p_bench.app.settings import STRATEGIES, run_faults, trainer_faults
from p2p_bench.app.spelling import restore_keys
from p2p_bench.app.trust import target_faults
from p2p_bench.errors import ConfigError, ErrorList, P2PError
from p2p_bench.tau import parse_interval, parse_tau, tau_text

if TYPE_CHECKING:
    from lightning import Trainer

    from p2p_bench.bench.directory import Resume
    from p2p_bench.bench.loggers import RunLogger
    from p2p_bench.bench.shared_pass import Execution
    from p2p_bench.bench.task import Keep, Limits, Task, Variant

RECORDED = ("model", "controller", "tau", "inversion", "editor", "dataset", "sampler", "metrics", "seed")
"""Parts of the configuration that decide the numbers."""

_NOT_RECORDED = (("sampler", "max_rows"), ("model", "offload"))
"""What says how much memory is used, and not what is computed."""
_RECORDED_OF_RUN = ("baseline", "truncate", "repair", "repair_feather")


@dataclass(frozen=True)
class Parts:
    """What a configuration describes.

    Attributes:
        task: What is measured.
        keep: What is kept besides rows.
        loggers: Further writers of the results, by name.
        trainer: Makes the trainer from callbacks.
        batch_size: Pairs edited together.
        name: Name of the run.
        processes: Processes to start, a device each.
        together: Whether processes share the run that torchrun or srun started.
        limits: When to give up.
        resume: Whether a directory that holds rows is completed.
    """

    task: "Task"
    keep: "Keep"
    loggers: "Mapping[str, RunLogger]"
    trainer: "Callable[..., Trainer]"
    batch_size: int
    name: str
    processes: int
    together: bool
    limits: "Limits"
    resume: "Resume" = True

    def execution(self) -> "Execution":
        """Who does the run; where several processes were started together they find each other here.

        Raises:
            ProcessLostError: They do not.
        """
        from p2p_bench.bench.launched import launched
        from p2p_bench.bench.shared_pass import Execution

        return Execution(self.processes, launched() if self.together else None, self.limits, self.resume)


def build(config: DictConfig, choices: Mapping[str, str], start: Path | None = None) -> Parts:
    """Builds the parts of a run. Nothing heavy is loaded.

    Args:
        config: The composed configuration, without Hydra's own node.
        choices: Chosen option per group, for names in results.
        start: Folder that relative paths start from; None takes the current one.

    Raises:
        ErrorList: Every fault of the configuration.
    """
    from p2p_bench.bench.task import Keep, Limits

    start = Path.cwd() if start is None else start
    built = _built(config, choices, COMPONENT_GROUPS, start)
    return Parts(
        task=_task(config, choices, built, start),
        keep=Keep(images=config.run.images, heatmaps=config.run.heatmaps),
        loggers=built["logger"],
        trainer=built["trainer"][0],
        batch_size=config.run.batch_size,
        name=config.run.name,
        processes=built["trainer"][1],
        together=config.trainer.get("strategy") == "ddp",
        limits=Limits(config.run.timeout, config.run.max_errors),
        resume=config.run.resume,
    )


def build_task(config: DictConfig, choices: Mapping[str, str]) -> "Task":
    """The task of a configuration alone: no trainer and no loggers, which take seconds to import.

    Args:
        config: The composed configuration, without Hydra's own node.
        choices: Chosen option per group, for names in results.

    Raises:
        ErrorList: Every fault of what the task is made of.
    """
    groups = [group for group in COMPONENT_GROUPS if group not in ("logger", "trainer")]
    return _task(config, choices, _built(config, choices, groups, Path.cwd()), Path.cwd())


def _built(
    config: DictConfig, choices: Mapping[str, str], groups: Collection[str], start: Path
) -> dict[str, Any]:
    """The components of the groups."""
    faults: list[P2PError] = list(run_faults(config))
    if not has_nodes(config):
        raise ErrorList(faults)
    placed = copy.deepcopy(config)  # what is recorded says what was typed
    built: dict[str, Any] = {}
    for group in groups:
        found = list(group_faults(config, group))
        faults += found
        try:
            if not found:
                place_paths(placed[group], start)
                built[group] = _built_group(placed, group, choices)
        except ErrorList as error:
            faults += error.errors
        except P2PError as error:
            faults.append(error)
    if faults:
        raise ErrorList(faults)
    return built


def has_nodes(config: DictConfig) -> bool:
    """Whether the nodes that the groups refer to are there; `run_faults` says which are not."""
    return all(key in config and isinstance(config[key], DictConfig) for key in ("run", "tau"))


def _task(config: DictConfig, choices: Mapping[str, str], built: Mapping[str, Any], start: Path) -> "Task":
    from p2p_bench.bench.repairs import RepairRule
    from p2p_bench.bench.task import Task

    return Task(
        checkpoint=built["model"],
        dataset=built["dataset"],
        variants=variants_of_editor(config, built) or built["controller"],
        inversion=built["inversion"],
        inversion_name=choices.get("inversion", ""),
        editor=built["editor"],
        sampler=built["sampler"],
        metrics=built["metrics"],
        seed=config.seed,
        truncate=config.run.truncate,
        repair=RepairRule(config.run.repair, config.run.repair_feather),
        cache=cache_of(config.run, start),
        settings=recorded_settings(config),
    )


def without_hydra(config: DictConfig) -> DictConfig:
    """The configuration as components see it, without Hydra's own node.

    Its keys are as they were typed, and what `run.optional` leaves out is left out.
    """
    settled = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    leave_out(settled)
    restore_keys(settled)
    return settled


def chosen_options(hydra: DictConfig | HydraConf) -> dict[str, str]:
    """The chosen option of each group, from Hydra's own node; several are joined by a comma."""
    choices = hydra.runtime.choices
    return {str(group): str(choices[group]) for group in choices if choices[group] is not None}


def recorded_settings(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """The settings that decide the numbers, as plain values; interpolations as they stand if not resolved."""
    plain = OmegaConf.to_container(config, resolve=resolve)
    if resolve:
        plain = without_secrets(plain, OmegaConf.to_container(config))
    assert isinstance(plain, dict)
    settings = {str(key): plain[key] for key in RECORDED}
    for group, key in _NOT_RECORDED:
        settings[group] = {name: value for name, value in plain[group].items() if name != key}
    settings["run"] = {key: plain["run"][key] for key in _RECORDED_OF_RUN}
    return settings


def group_faults(
    config: DictConfig, group: str, signature: Signatures | None = None
) -> Iterator[ConfigError]:
    """What the nodes of a group have that their classes do not take, or lack.

    Args:
        config: The composed configuration.
        group: The group.
        signature: See `node_faults`; with it no class is imported, and what it may be is not asked.
    """
    node = None if group not in config or OmegaConf.is_missing(config, group) else config[group]
    if not isinstance(node, DictConfig):
        yield ConfigError(f"{group}: expected an option's node, got {node!r}; choose one with {group}=OPTION")
        return
    try:
        plain = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        yield ConfigError(f"{group}: {first_line(error)}")
        return
    assert isinstance(plain, dict)
    trusted = bool(OmegaConf.select(config, "run.trust", throw_on_resolution_failure=False))
    refused = [] if signature else list(target_faults(plain, group, group, trusted))
    if refused:
        yield from refused
        return
    if group == "trainer":
        yield from trainer_faults({str(key): value for key, value in plain.items()})
    for where, component, supplied in _components(node, group):
        if not isinstance(component, DictConfig) or "_target_" not in component:
            yield ConfigError(f"{where}: expected a name with a `_target_` below it, got {component!r}")
        else:
            yield from node_faults(component, where, supplied, signature, elsewhere="tau")


def _components(node: DictConfig, group: str) -> Iterator[tuple[str, Any, Sequence[str]]]:
    if group in SEVERAL:
        yield from ((f"{group}.{name!s}", node[name], ()) for name in node)
    else:
        yield group, node, ()


def _built_group(config: DictConfig, group: str, choices: Mapping[str, str]) -> Any:
    if group == "controller":
        return build_variants(config, choices.get("controller", "controller"))
    if group == "trainer":
        return _built_trainer(config)
    if group in SEVERAL:
        return {str(name): component_of(one, group, f"{group}.{name}") for name, one in config[group].items()}
    return component_of(config[group], group, group)


def _built_trainer(config: DictConfig) -> "tuple[Callable[..., Trainer], int]":
    """What makes the trainer of one process, and the number of processes to start.

    Raises:
        ConfigError: The trainer refuses its settings, or the processes it is for are not there.
    """
    from p2p_bench.bench.devices import device_count, on_device
    from p2p_bench.bench.launched import started_together
    from p2p_bench.bench.work import make_trainer

    make, strategy = instantiate(config.trainer, "trainer"), config.trainer.get("strategy")
    together, number = started_together(), 1
    if strategy == "ddp" and not together:
        raise ConfigError(
            "trainer.strategy: ddp is for processes that torchrun or srun started, and neither did; "
            "trainer=ddp starts processes on this machine"
        )
    if strategy != "ddp" and together > 1:
        raise ConfigError(
            f"trainer: {together} processes were started together; they share a run with trainer=torchrun or "
            "trainer=slurm"
        )
    if strategy == "ddp_spawn":
        number = device_count(str(config.trainer.get("accelerator", "auto")), _plain(config.trainer.devices))
    one = on_device(make, 0) if strategy in STRATEGIES else make
    make_trainer(one, [])  # what it refuses is told before anything is loaded
    return (one if number == 1 and strategy == "ddp_spawn" else make), number


def build_variants(config: DictConfig, controller_name: str) -> "tuple[Variant, ...]":
    """The variants of a run: one per schedule, equal ones once, and `none` if the run has a baseline.

    Args:
        config: The composed configuration.
        controller_name: Name of the controller in results.

    Raises:
        ErrorList: Schedules or the controller refuse their values; each fault once.
    """
    from p2p_bench.bench.task import Variant
    from p2p_bench.controllers import NoControl

    points = _tau_points(config)
    variants: list[Variant] = []
    faults: dict[str, P2PError] = {}
    if config.run.baseline:
        variants.append(Variant("none", NoControl(), "none", settings=NO_CONTROL))
    for where, point in points:
        try:
            _check_point(where, point)
            variant = _variant(config, point, controller_name, single=len(points) == 1)
        except P2PError as error:
            faults.setdefault(str(error), error)
            continue
        if all(variant.controller != other.controller for other in variants):
            variants.append(variant)
    if faults:
        raise ErrorList(list(faults.values()))
    return tuple(variants)


def tau_faults(config: DictConfig) -> Iterator[P2PError]:
    """What is wrong with the schedules of a run, whatever its controller makes of them."""
    try:
        points = _tau_points(config)
    except ConfigError as error:
        yield error
        return
    for where, point in points:
        try:
            _check_point(where, point)
        except P2PError as error:
            yield error


def _check_point(where: str, point: DictConfig) -> None:
    parse_tau(_plain(point.cross), f"{where}.cross")
    parse_interval(_plain(point.self_attn), f"{where}.self_attn")


def _tau_points(config: DictConfig) -> list[tuple[str, DictConfig]]:
    """The schedules of a run, each with its key."""
    if config.tau.sweep is None:
        return [("tau", config.tau)]
    if not config.tau.sweep:
        raise ConfigError(
            "tau.sweep: expected at least one schedule, or null for tau.cross and tau.self_attn"
        )
    return [(f"tau.sweep[{index}]", point) for index, point in enumerate(config.tau.sweep)]


def _variant(config: DictConfig, point: DictConfig, controller_name: str, single: bool) -> "Variant":
    from p2p_bench.bench.task import Variant
    from p2p_bench.controllers import NoControl

    at_point = OmegaConf.merge(config, {"tau": {"cross": point.cross, "self_attn": point.self_attn}})
    controller = component_of(at_point.controller, "controller", "controller")
    if isinstance(controller, NoControl):
        return Variant("none", controller, controller_name, settings=NO_CONTROL)
    cross = tau_text(_plain(_schedule(at_point.controller, "cross")))
    self_attn = tau_text(_plain(_schedule(at_point.controller, "self_attn")))
    name = controller_name if single else f"{controller_name} {cross}/{self_attn}"
    # These nodes alone: another group's fault is told as that group's.
    nodes = at_point.controller, at_point.tau
    own, schedule = (OmegaConf.to_container(node, resolve=True) for node in nodes)
    assert isinstance(schedule, dict)
    settings = {"controller": own, "tau": {key: schedule[key] for key in ("cross", "self_attn")}}
    return Variant(name, controller, controller_name, cross, self_attn, settings)


def _schedule(controller: DictConfig, key: str) -> Any:
    """A schedule of a controller, or else of the controller inside it."""
    while key not in controller and isinstance(controller.get("inner"), DictConfig):
        controller = controller.inner
    return controller.get(key)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
