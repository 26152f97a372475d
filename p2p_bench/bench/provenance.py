"""Where results come from: versions, the state of the source, the machine."""

import functools
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "p2p_bench", "torch", "torchvision", "diffusers", "transformers", "tokenizers", "lightning", "hydra-core",
    "torchmetrics", "open_clip_torch", "lpips", "wandb", "numpy", "scipy", "pillow", "pyarrow",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Version of Python and of every package that can change a number; "" where not installed."""
    return dict(_versions())


@functools.cache
def _versions() -> Mapping[str, str]:
    """Read once: what a process has imported stays."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    return versions


def git_state() -> dict[str, str | bool]:
    """Commit of the checkout that this package runs from, and whether files differ from it.

    Returns:
        `commit` is "" and `changed` False where the package is not in a git checkout of its own.
    """
    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists():
        return {"commit": "", "changed": False}
    try:
        commit = _git(top, "rev-parse", "HEAD")
        changed = bool(_git(top, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {"commit": "", "changed": False}
    return {"commit": commit, "changed": changed}


def _git(top: Path, *arguments: str) -> str:
    command = ["git", "-C", str(top), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
