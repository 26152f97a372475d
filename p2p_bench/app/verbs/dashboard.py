"""`p2p-bench dashboard DIR ...`: a Weights & Biases workspace over logged runs."""

import argparse
import os
from pathlib import Path

from p2p_bench.app.console import result_console
from p2p_bench.errors import ConfigError, P2PError


def main(arguments: list[str], debug: bool) -> int:
    """Makes the workspace and saves it on the server.

    Args:
        arguments: Run directories, `--project`, `--entity` and `--name`.
        debug: Unused; errors are shown by the caller.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench dashboard",
        description="Saves a Weights & Biases workspace for runs that were logged with logger=wandb: "
        "trade-off, curves over tau, categories, gallery, costs.",
    )
    parser.add_argument("dir", nargs="+", type=Path, help="directory of a run, or of a sweep")
    project, entity = (os.environ.get(name) for name in ("WANDB_PROJECT", "WANDB_ENTITY"))
    parser.add_argument("--project", default=project or "p2p_bench", help="project of the runs (%(default)s)")
    parser.add_argument("--entity", default=entity, help="user or team; the key's own where not given")
    parser.add_argument("--name", default="p2p_bench", help="name of the workspace (%(default)s)")
    options = parser.parse_args(arguments)

    from p2p_bench.bench.wandb_logger import wandb_key_present
    from p2p_bench.report.workspace import make_workspace

    # Made before the key is asked for, so that a fault in the directories is found without one.
    workspace = make_workspace(options.dir, options.project, options.entity or "-", options.name)
    if not wandb_key_present():
        raise ConfigError("a workspace is saved on the W&B server, and no key is known; run: wandb login")
    import wandb

    try:
        if not options.entity:
            workspace.entity = str(wandb.Api(timeout=20).default_entity)
        workspace.save()
    except (wandb.Error, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise P2PError(f"the W&B server did not take the workspace: {reason}") from error
    result_console().print(f"dashboard: {workspace.url}", markup=False)
    return 0
