"""The command `p2p-bench`: finds the verb, and turns every outcome into a message and an exit code."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version

from p2p_bench.app.console import quiet_libraries, show_error, status_console
from p2p_bench.app.streams import make_patient
from p2p_bench.errors import ConfigError, P2PError, nearest
from p2p_bench.signals import interrupting, nothing_interrupts

USAGE = """\
usage: p2p-bench [VERB] ...

  [run] KEY=VALUE ... [-m]                                 the benchmark; -m runs a job per combination
  edit --source S --target T [--image F] [KEY=VALUE ...]   one edit, as pictures
  generate --prompt P [--count N] [KEY=VALUE ...]          pictures of prompts, or of a data set's sources
  studio [--port N] [--no-browser] [KEY=VALUE ...]         edits tried on a page of this machine
  check [--page FILE] [--decode] [KEY=VALUE ...]           what is wrong with a data set, without weights
  score FOLDER|RUN [KEY=VALUE ...]                         images made elsewhere, or other metrics
  report DIR ...                                           a page over a run, a folder over many
  resume DIR                                               finish a run or a sweep
  watch DIR                                                how far a run or a sweep is
  ls [GROUP]                                               every option, and what goes with what
  cache list|verify|clear                                  the inversions that are kept
  dashboard DIR ...                                        a W&B workspace for logged runs
  doctor                                                   versions, devices, checkpoints at hand
  convert DIR NEW_DIR                                      a pickled checkpoint, as safetensors
  train-world [KEY=VALUE ...]                              train the embedded world anew

  p2p-bench VERB --help tells more; --version tells the version; --debug shows stack traces.
  run --cfg job KEY=VALUE ... prints the configuration; run --shell-completion install=bash completes it.
  Exit codes: 0 all well; 1 some samples or jobs failed; 2 wrong usage, config or data;
  3 a model or weights missing; 75 interrupted, `resume` goes on.

  p2p-bench experiment=demo        the demo: table, report and pictures in minutes
"""
VERBS = {
    "run": "p2p_bench.app.verbs.run",
    "edit": "p2p_bench.app.verbs.edit",
    "generate": "p2p_bench.app.verbs.generate",
    "studio": "p2p_bench.app.verbs.studio",
    "check": "p2p_bench.app.verbs.check",
    "score": "p2p_bench.app.verbs.score",
    "report": "p2p_bench.app.verbs.report",
    "resume": "p2p_bench.app.verbs.resume",
    "watch": "p2p_bench.app.verbs.watch",
    "dashboard": "p2p_bench.app.verbs.dashboard",
    "cache": "p2p_bench.app.verbs.cache",
    "doctor": "p2p_bench.app.verbs.doctor",
    "ls": "p2p_bench.app.verbs.ls",
    "convert": "p2p_bench.app.verbs.convert",
    "train-world": "p2p_bench.app.verbs.train_world",
}
INTERRUPTED = 75


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves the process with its exit code.

    Args:
        argv: Arguments without the program's name; None takes the process's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    make_patient()
    sys.exit(run_verb([argument for argument in arguments if argument != "--debug"], debug))


def run_verb(arguments: Sequence[str], debug: bool = False) -> int:
    """Runs one verb.

    Args:
        arguments: Arguments without the program's name and `--debug`.
        debug: Show stack traces.

    Returns:
        The exit code.
    """
    with interrupting():
        return _ended(list(arguments), debug)


def _ended(arguments: list[str], debug: bool) -> int:
    """The exit code of a verb, once the user was told why it is not 0."""
    try:
        with quiet_libraries():
            return _dispatch(arguments, debug)
    except P2PError as error:
        show_error(error, debug)
        return error.exit_code
    except KeyboardInterrupt:
        nothing_interrupts()
        status_console().print("interrupted", style="yellow")
        return INTERRUPTED
    except SystemExit as error:  # argparse leaves so
        return error.code if isinstance(error.code, int) else 2
    except Exception as error:  # noqa: BLE001  # the last line of defence: a message, never a stack trace
        show_error(error, debug)
        return 1


def _dispatch(arguments: list[str], debug: bool) -> int:
    if arguments in (["--help"], ["-h"], ["help"]):
        print(USAGE, end="")
        return 0
    if arguments in (["--version"], ["version"], ["run", "--version"]):
        print(f"p2p_bench {version('p2p_bench')}")
        return 0
    verb = arguments[0] if arguments else "run"
    if verb in VERBS:
        arguments = arguments[1:]
    elif verb.startswith(("-", "~", "+")) or "=" in verb or not verb:
        verb = "run"
    else:
        raise ConfigError(
            f"{verb!r} is neither a verb nor KEY=VALUE.{nearest(verb, VERBS)} Verbs: {', '.join(VERBS)}; "
            "see p2p-bench --help"
        )
    function: Callable[[list[str], bool], int] = import_module(VERBS[verb]).main
    return function(arguments, debug)


if __name__ == "__main__":
    main()
