"""`p2p-bench doctor`: what is installed, what it can run on, which checkpoints are at hand."""

import argparse
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.table import Table
from rich.text import Text

from p2p_bench.app.compose import compose, config_dir, group_options
from p2p_bench.app.console import result_console
from p2p_bench.cache import default_directory
from p2p_bench.errors import MissingWeightsError, P2PError
from p2p_bench.hashing import sha256_file
from p2p_bench.resources import resource_path

Finding = tuple[str, str, bool]
"""What was looked at, what was found, whether all is well."""

_MANIFEST = "MANIFEST.json"


def main(arguments: list[str], debug: bool) -> int:
    """Prints what there is.

    Args:
        arguments: None but `--help`.
        debug: Unused; errors are shown by the caller.

    Returns:
        0; 3 if the embedded world's weights are absent or damaged.
    """
    argparse.ArgumentParser(
        prog="p2p-bench doctor",
        description="Shows versions, devices, caches and checkpoints. Changes nothing, needs no network.",
    ).parse_args(arguments)
    console = result_console()
    sections = {
        "versions": _versions,
        "devices": _devices,
        "caches and keys": _places,
        "models": _models,
        "metrics": _metrics,
        "inversions": _inversions,
    }
    for title, findings in sections.items():
        console.print(_table(title, findings()))
    world = list(_world_weights())
    console.print(_table("embedded world", iter(world)))
    return 0 if all(good for _, _, good in world) else MissingWeightsError.exit_code


def _table(title: str, findings: Iterator[Finding]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    for name, found, good in findings:
        table.add_row(Text(name), Text(found, style="" if good else "yellow"))
    return table


def _versions() -> Iterator[Finding]:
    from p2p_bench.bench.provenance import git_state, package_versions

    yield from ((name, found or "not installed", bool(found)) for name, found in package_versions().items())
    git = git_state()
    if git["commit"]:
        yield "git", f"{git['commit']}{' with changes' if git['changed'] else ''}", True


def _devices() -> Iterator[Finding]:
    import torch

    yield "system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", True
    yield "torch threads", str(torch.get_num_threads()), True
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB", True
    else:
        yield "cuda", "none", True
    yield "mps", "available" if torch.backends.mps.is_available() else "none", True


def _places() -> Iterator[Finding]:
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from p2p_bench.bench.wandb_logger import wandb_key_present

    caches = {
        "Hugging Face": Path(HF_HUB_CACHE),
        "torch": Path(torch.hub.get_dir()) / "checkpoints",
        "inversion": default_directory(),
    }
    for name, path in caches.items():
        yield f"{name} cache", f"{path}{'' if path.is_dir() else ' (empty)'}", True
    yield "W&B key", "present" if wandb_key_present() else "absent: runs are logged offline", True
    yield "configuration", str(config_dir()), True


def _models() -> Iterator[Finding]:
    from p2p_bench.app.instantiate import instantiate

    for option in group_options("model"):
        node = OmegaConf.load(config_dir() / "model" / f"{option}.yaml")
        if wanted := _wanted(node, "model"):
            yield option, wanted, True
            continue
        try:
            spec = instantiate(node, "model").spec()
        except P2PError as error:
            yield option, f"absent: {error}", False
        else:
            height, width = spec.image_size
            stage = "" if spec.upscaler is None else f", enlarged from {spec.latent_size[1]} by an upscaler"
            yield (
                option,
                f"at hand: {width} x {height} pixels{stage}, checksum {spec.checksum[:12]}",
                True,
            )


def _metrics() -> Iterator[Finding]:
    """Each network that some option of `metrics` needs: at hand, or how to get it."""
    from p2p_bench.app.instantiate import instantiate

    seen: set[str] = set()
    for option in group_options("metrics"):
        nodes = OmegaConf.load(config_dir() / "metrics" / f"{option}.yaml")
        for key, node in nodes.items():
            name = str(key)
            if wanted := _wanted(node, f"metrics.{name}"):
                yield f"{option}: {name}", wanted, True
                continue
            metric = instantiate(node, "metrics")
            try:
                metric.check()
                found, good = ", ".join(str(file) for file in getattr(metric, "files", tuple)()), True
            except P2PError as error:
                found, good = f"absent: {error}", False
            if found and found not in seen:
                seen.add(found)
                yield f"{option}: {name}", found if not good else f"at hand: {found}", good


def _inversions() -> Iterator[Finding]:
    """The weights that an experiment's inversion reads besides the model's: at hand, or how to get them."""
    from p2p_bench.app.instantiate import instantiate

    for name in group_options("experiment"):
        own = OmegaConf.select(OmegaConf.load(config_dir() / "experiment" / f"{name}.yaml"), "inversion")
        if own is None:
            continue
        label = f"{name}: inversion"
        try:
            files = instantiate(compose([f"experiment={name}"]).inversion, "inversion").files()
        except P2PError as error:
            yield label, f"absent: {error}", False
        else:
            if files:
                yield label, f"at hand: {', '.join(str(file) for file in files)}", True


def _wanted(node: Any, label: str) -> str:
    """What an option leaves for the user to say; "" for nothing."""
    keys = sorted(f"{label}.{key.rpartition('.')[2]}=..." for key in OmegaConf.missing_keys(node))
    return f"needs {', '.join(keys)}" if keys else ""


def _world_weights() -> Iterator[Finding]:
    """Every file of the manifest, compared with its checksum."""
    try:
        folder = resource_path("p2p_bench", "world", "weights")
        files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
    except (P2PError, OSError, ValueError, KeyError) as error:
        yield _MANIFEST, f"cannot be read: {error}", False
        return
    for name, checksum in sorted(files.items()):
        path = folder / name
        if not path.is_file():
            yield name, "missing; install the package again or run p2p-bench train-world", False
        elif sha256_file(path) != checksum:
            yield name, "damaged: its checksum differs; install the package again", False
        else:
            yield name, f"good, {path.stat().st_size / 1e6:.1f} MB", True
