"""Flags of the benchmark, most of them Hydra's: what they ask for, checked before Hydra is handed them."""

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.utils import get_args_parser

from p2p_bench.errors import ConfigError

_SHELL_WORDS = ("install", "uninstall", "query")
_SHELLS = ("bash", "fish", "zsh")
_ODD = set(" ,[]{}()'\"\\=:$")
"""Characters that mean something in a list of Hydra's override grammar."""

_REFUSED = {
    "config_name": "the benchmark has one configuration; choose settings with experiment=NAME",
    "config_path": "the benchmark brings its configuration; add a folder of your own with --config-dir DIR",
    "experimental_rerun": "a run goes on with p2p-bench resume DIR",
}
"""Hydra's flags that would run something else than the benchmark, and what to do instead."""


@dataclass(frozen=True)
class Asked:
    """What the arguments of `p2p-bench run` ask for.

    Attributes:
        overrides: `KEY=VALUE` as typed, and what a flag stands for.
        multirun: A job per combination.
        shows: Hydra prints something instead of running: the flags that ask for it.
    """

    overrides: tuple[str, ...]
    multirun: bool
    shows: tuple[str, ...]

    @property
    def completes(self) -> bool:
        """Whether the overrides are words of Hydra's shell completion, no settings."""
        return "--shell-completion" in self.shows


def asked(arguments: Sequence[str]) -> Asked:
    """Reads the arguments; `--version` and unknown flags leave as argparse does.

    Raises:
        ConfigError: Flags that do not go together, or that this program does not take.
    """
    parser = get_args_parser()
    parser.prog = "p2p-bench run"
    # Intermixed: flags may stand between settings, which Hydra's own call does not allow.
    options = parser.parse_intermixed_args(list(arguments))
    for name, instead in _REFUSED.items():
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')}: {instead}")
    modes = _modes(options)
    if options.resolve and options.cfg is None and not options.help:
        raise ConfigError("--resolve goes with --cfg or --help: p2p-bench run --cfg job --resolve")
    if options.package is not None and options.cfg is None:
        raise ConfigError("--package goes with --cfg: p2p-bench run --cfg job --package tau")
    together = [*modes, *(["-m"] if options.multirun else [])]
    if len(together) > 1:
        raise ConfigError(f"{' and '.join(together)} do not go together; leave all but one away")
    overrides = [str(text) for text in options.overrides]
    if options.shell_completion:
        _check_shell(overrides)
    elif options.config_dir is not None:
        overrides.append(f"hydra.searchpath=[file://{_folder(options.config_dir)}]")
    return Asked(tuple(overrides), options.multirun, _shown(modes, options))


def completed_line(line: str) -> str:
    """The line that a shell completes without the verb, which Hydra's completion takes for a setting.

    Args:
        line: `p2p-bench [run] ...` as typed so far.
    """
    program, _, rest = line.partition(" ")
    verb, space, settings = rest.partition(" ")
    return f"{program} {settings}" if space and verb == "run" else line


def _modes(options: Namespace) -> list[str]:
    """The flags that print instead of running."""
    names = {
        "--help": options.help,
        "--hydra-help": options.hydra_help,
        "--cfg": options.cfg is not None,
        "--info": options.info is not None,
        "--shell-completion": options.shell_completion,
    }
    return [name for name, given in names.items() if given]


def _shown(modes: Sequence[str], options: Namespace) -> tuple[str, ...]:
    """The flags as Hydra is handed them, their values joined to them."""
    values = {"--cfg": options.cfg, "--info": options.info}
    flags = [f"{mode}={values[mode]}" if mode in values else mode for mode in modes]
    flags += ["--resolve"] if options.resolve else []
    flags += [f"--package={options.package}"] if options.package is not None else []
    return tuple(flags)


def _folder(text: str) -> Path:
    """The folder of `--config-dir`, in a form that the grammar of overrides takes."""
    folder = Path(text).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir: there is no folder {text}")
    if odd := sorted({character for character in str(folder) if character in _ODD}):
        raise ConfigError(f"--config-dir: {folder} has {' '.join(map(repr, odd))} in its path; rename it")
    return folder


def _check_shell(words: Sequence[str]) -> None:
    """Refuses a call of the shell completion that names no shell, and a query that no shell makes."""
    named = [word.partition("=")[::2] for word in words]
    if len(named) != 1 or named[0][0] not in _SHELL_WORDS or named[0][1] not in _SHELLS:
        raise ConfigError(
            f"--shell-completion: expected install=SHELL or uninstall=SHELL, where SHELL is one of "
            f"{', '.join(_SHELLS)}; got {' '.join(words) or 'nothing'}. For bash: "
            'eval "$(p2p-bench --shell-completion install=bash)"'
        )
    if named[0][0] == "query" and "COMP_LINE" not in os.environ:
        raise ConfigError("--shell-completion: query is for the shell's own use; write install=bash")
