"""How long the page over 200 runs with 10,000 edits takes to write and to show.

    python experiments/report_speed/measure.py [--sweep outputs/report_speed]

Makes the sweep where it is not there yet (200 cross taus, 50 pairs), writes its page, opens it in headless
Chromium, each time with a new profile, and writes results.md beside this file.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
JOBS = "tau.cross=" + ",".join(f"{tau / 200:g}" for tau in range(200))
SETTINGS = ("dataset=world_pairs", "dataset.limit=50", "logger=none", "inversion=none")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,1400")
LOADS = 9


def main() -> None:
    """Makes what is missing, measures and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweep", type=Path, default=Path("outputs/report_speed"))
    sweep = parser.parse_args().sweep
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"needs one of {', '.join(BROWSERS)}")
    if not (sweep / "199" / "summary.json").exists():
        p2p_bench("run", "-m", JOBS, *SETTINGS, f"run.dir={sweep}")
    started = time.perf_counter()
    p2p_bench("report", str(sweep))
    written = time.perf_counter() - started
    page = sweep / "report"
    ready = [first_view(browser, page / "index.html") for _ in range(LOADS)]
    sizes = {
        "what the first view reads": [page / "index.html", *page.glob("assets/*"), page / "data/summary.js"],
        "rows, read after it": list(page.glob("data/rows-*.js")),
        "small pictures, read when scrolled to": list(page.glob("thumbs/*")),
    }
    runs = len(list(sweep.glob("*/summary.json")))
    text = [
        f"{runs} runs. First view, ms, of {LOADS} loads with new profiles: median "
        f"{statistics.median(ready):.0f}, most {max(ready):.0f}. Written in {written:.0f} s.",
        "",
        "| part of the page | files | MB |",
        "|---|---|---|",
        *(
            f"| {part} | {len(files)} | {sum(file.stat().st_size for file in files) / 1e6:.1f} |"
            for part, files in sizes.items()
        ),
    ]
    (HERE / "results.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


def p2p_bench(*arguments: str) -> None:
    """The command line in a process of its own."""
    subprocess.run([sys.executable, "-m", "p2p_bench", *arguments], check=True)


def first_view(browser: str, page: Path) -> float:
    """Milliseconds from the start of the navigation until the overview was drawn, by the page's own clock."""
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r'data-ready="(\d+)"', done.stdout)
    if found is None:
        sys.exit(f"{page} was not drawn: {done.stderr[-500:]}")
    return float(found[1])


if __name__ == "__main__":
    main()
