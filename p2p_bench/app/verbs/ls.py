"""`p2p-bench ls [GROUP]`: every option of the configuration in a line."""

import argparse
import re
from itertools import takewhile

from rich.table import Table
from rich.text import Text

from p2p_bench.app.compose import config_dir, group_options
from p2p_bench.app.console import result_console
from p2p_bench.errors import ConfigError, nearest

GROUPS = {
    "model": "goes with the controllers and inversions whose needs it meets, see there; instruct_pix2pix "
    "with editor=instruct alone",
    "controller": "goes with every model and inversion, but plug_and_play with U-Nets alone and pix2pix_zero "
    "with Stable Diffusion 1, 2, XL and Latent Diffusion; `auto` picks one for each pair",
    "tau": "read by controllers, as ${tau.cross} and ${tau.self_attn}",
    "inversion": "for pairs with an image; any controller may follow it",
    "editor": "`controlled` is attention control; another takes its place, with controller=none",
    "dataset": "goes with every model; images are brought to its size",
    "sampler": "goes with every controller; which inversions may precede it says each option",
    "metrics": "several: metrics=[default,clip_openai]; masks and answers are used where pairs have them",
    "logger": "where summaries go besides the run's own folder",
    "trainer": "devices of a run",
    "experiment": "a whole command by one name",
}
"""Config groups, and what goes with what."""


_SENTENCE = re.compile(r"(?<=\.)(?<!al\.) ")
"""Where a sentence ends, which "et al." does not."""


def main(arguments: list[str], debug: bool) -> int:
    """Lists options.

    Args:
        arguments: Groups, in the singular or the plural; none: all of them.
        debug: Unused; errors are shown by the caller.

    Returns:
        0.

    Raises:
        ConfigError: There is no such group.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench ls", description="Lists the options of config groups, and what goes with what."
    )
    parser.add_argument("group", nargs="*", help=f"some of {', '.join(GROUPS)}; models does for model")
    asked = [_group(name) for name in parser.parse_args(arguments).group]
    console = result_console()
    for group in asked or GROUPS:
        table = Table(title=f"{group}=...", title_justify="left", show_header=False, box=None, padding=(0, 2))
        table.caption, table.caption_justify = Text(f"{GROUPS[group]}\n"), "left"
        for option in group_options(group):
            table.add_row(Text(option, style="bold"), Text(purpose(group, option)))
        console.print(table)
    return 0


def purpose(group: str, option: str) -> str:
    """What an option is for: the first sentence of the comment at the top of its file."""
    text = config_dir().joinpath(group, f"{option}.yaml").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("# @package"))
    comment = " ".join(line.removeprefix("#").strip() for line in takewhile(_is_comment, lines))
    return (
        _SENTENCE.split(comment, maxsplit=1)[0]
        or "(no comment on the first line of its YAML says what it is for)"
    )


def _is_comment(line: str) -> bool:
    return line.startswith("#")


def _group(name: str) -> str:
    for group in GROUPS:
        if name in (group, f"{group}s"):
            return group
    raise ConfigError(f"ls: no group {name!r}, expected some of {', '.join(GROUPS)}.{nearest(name, GROUPS)}")
