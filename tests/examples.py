"""The values that the YAML of an option shows in its first lines, for tests of what needs them."""

import itertools
import re
import shlex

from p2p_bench.resources import resource_path

SOURCE, TARGET = "a red circle on grass", "a blue circle on grass"
"""The edit that examples are written for."""


def example(group: str, option: str) -> list[str]:
    """What follows `GROUP=OPTION` where the comment at the top of an option's YAML first shows it.

    Args:
        group: Such as "controller".
        option: Such as "reweight".

    Returns:
        Overrides of the option's own values, such as `controller.weights={blue: 3.0}`; none if it shows none.
    """
    text = resource_path("conf", group, f"{option}.yaml").read_text(encoding="utf-8")
    head = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    comment = " ".join(" ".join(head).replace("#", " ").split())
    shown = re.search(rf"\b{group}={option}((?: '{group}\.[^']*'| {group}\.\S+)+)", comment)
    return shlex.split(shown[1]) if shown else []
