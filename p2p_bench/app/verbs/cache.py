"""`p2p-bench cache list|verify|clear`: the inversions that are kept."""

import argparse
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from p2p_bench.app.console import result_console
from p2p_bench.app.paths import user_path
from p2p_bench.cache import Cache, DamagedEntryError, Entry, default_directory, read_entry

_FAILED = 1
_WIDTH = 150


def main(arguments: list[str], debug: bool) -> int:
    """Shows, checks or removes what the cache holds.

    Args:
        arguments: What to do, and `--dir`.
        debug: Unused; errors are shown by the caller.

    Returns:
        0; 1 if `verify` finds damage.
    """
    parser = argparse.ArgumentParser(
        prog="p2p-bench cache",
        description="The inversions of real images that runs have kept. A damaged one is computed again.",
    )
    parser.add_argument("what", choices=("list", "verify", "clear"))
    parser.add_argument(
        "--dir", type=user_path, help="directory of the cache; that of run.cache=true if not given"
    )
    options = parser.parse_args(arguments)
    cache = Cache(options.dir or default_directory())
    return {"list": _list, "verify": _verify, "clear": _clear}[options.what](cache)


def _list(cache: Cache) -> int:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("method", "model"):
        table.add_column(name, no_wrap=True)
    for name in ("steps", "UNet rows", "size", "last used", "key"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("prompt", max_width=_WIDTH // 3, no_wrap=True)
    entries = cache.entries()
    for entry in reversed(entries):
        about, fault = _about(entry)
        method = "damaged" if fault else about.get("method", "")
        said = [about.get(name, "") for name in ("model", "steps", "unet_rows")]
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        cells = (method, *said, _bytes(entry.size), used, entry.key[:12], about.get("prompt", ""))
        table.add_row(*(Text(str(cell)) for cell in cells))
    console = result_console()
    if entries:
        # Columns squeezed to a narrow terminal cannot be read; its lines break instead.
        console.width = max(console.width, _WIDTH)
        console.print(table)
    console.print(_total(entries, cache), markup=False)
    return 0


def _verify(cache: Cache) -> int:
    entries = cache.entries()
    faults = [fault for _, fault in map(_about, entries) if fault]
    console = result_console()
    for fault in faults:
        console.print(fault, markup=False, style="yellow")
    console.print(
        f"{len(entries) - len(faults)} of {len(entries)} entries in {cache.directory} are whole", markup=False
    )
    return _FAILED if faults else 0


def _clear(cache: Cache) -> int:
    result_console().print(f"removed {_total(cache.clear(), cache)}", markup=False)
    return 0


def _about(entry: Entry) -> tuple[dict[str, Any], str]:
    """What an entry says about itself, and what is wrong with it, "" if nothing is."""
    try:
        return read_entry(entry.path)[0], ""
    except (DamagedEntryError, OSError) as error:
        return {}, str(error)


def _total(entries: list[Entry], cache: Cache) -> str:
    count = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    return f"{count}, {_bytes(sum(entry.size for entry in entries))}, in {cache.directory}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
