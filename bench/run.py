"""`make bench`: what the relay costs, against no relay at all and against nginx.

    python -m bench.run [--quick] [--rounds N] [--json FILE] [--url NAME=URL [--pid NAME=PID]]...

Everything runs on this machine over the loopback, and shares its cores. So the servers are
measured in turn, several times, and ratios are taken within a round. CPU time per unit is worth
more than requests per second.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.goals import GOALS
from bench.measure import FIGURES, TESTS, Figure, Values
from bench.servers import Server, all_servers, running

WHOLE = "lemonade"
"""The server that has goals."""

Rounds = list[dict[str, Values]]
"""For each round, for each server, its values."""


def measure(servers: list[Server], rounds: int, seconds: float) -> Rounds:
    """All tests on all servers in turn, so often."""
    results: Rounds = []
    for number in range(rounds):
        found: dict[str, Values] = {server.name: {} for server in servers}
        for test in TESTS:
            for server in servers:
                print(f"round {number + 1}/{rounds}: {test.__name__} {server.name}", flush=True)
                found[server.name].update(test(server, seconds))
                time.sleep(0.5)
        for name, values in found.items():
            if name != "direct":
                values["added1"] = values["lat1"] - found["direct"]["lat1"]
        results.append(found)
    return results


def values_of(results: Rounds, server: str, figure: Figure) -> list[float]:
    """One figure of one server, round by round."""
    return [found[server][figure.key] for found in results if figure.key in found[server]]


def ratio(results: Rounds, server: str, reference: str, figure: Figure) -> float | None:
    """The median of the rounds' ratios."""
    ratios = [
        found[server][figure.key] / found[reference][figure.key]
        for found in results
        if found.get(reference, {}).get(figure.key) and figure.key in found[server]
    ]
    return statistics.median(ratios) if ratios else None


def table(results: Rounds) -> str:
    """Markdown: medians, their spread, and ratios to direct (xD) and to nginx (xN)."""
    names = list(results[0])
    lines = [
        "| figure | " + " | ".join(names) + f" | goal of {WHOLE} |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for figure in FIGURES:
        cells = [f"{figure.title}{f', {figure.unit}' if figure.unit else ''}"]
        for name in names:
            values = values_of(results, name, figure)
            if not values:
                cells.append("-")
                continue
            text = f"{statistics.median(values):.{figure.digits}f}"
            if len(values) > 1 and max(values) > min(values):
                text += f" ({min(values):.{figure.digits}f}-{max(values):.{figure.digits}f})"
            for mark, reference in (("xD", "direct"), ("xN", "nginx")):
                share = ratio(results, name, reference, figure)
                if name not in {"direct", reference} and share is not None:
                    text += f" {share:.2f}{mark}"
            cells.append(text)
        cells.append(verdict(results, figure))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(results: Rounds, figure: Figure) -> str:
    """The goal of a figure, if it has one, and whether the whole server reaches it."""
    goal = GOALS.get(figure.key)
    if goal is None:
        return ""
    if goal.reference:
        return goal.verdict(ratio(results, WHOLE, goal.reference, figure))
    values = values_of(results, WHOLE, figure)
    return goal.verdict(statistics.median(values) if values else None)


def machine() -> dict[str, str]:
    """What it was measured with."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "uvloop": version("uvloop"),
    }
    if shutil.which("nginx"):
        shown = subprocess.run(["nginx", "-v"], check=False, capture_output=True, text=True)
        about["nginx"] = shown.stderr.strip().rpartition("/")[2]
    return about


def more_files() -> None:
    """A thousand streams need more descriptors than many shells allow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def pair(text: str) -> tuple[str, str]:
    """`NAME=VALUE`, for argparse to convert with."""
    name, equals, value = text.partition("=")
    if not (name and equals and value) or "/" in name:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE.")
    return name, value


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run")
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument(
        "--url",
        type=pair,
        action="append",
        default=[],
        metavar="NAME=URL",
        help="measure this server too, e.g. other=http://127.0.0.1:8080/v1; repeatable",
    )
    parser.add_argument("--model", default="fake", help="the model to ask of --url")
    parser.add_argument(
        "--pid",
        type=pair,
        action="append",
        default=[],
        metavar="NAME=PID",
        help="the process of a --url, if it runs here: its CPU time and memory are measured",
    )
    parser.add_argument("--workers", type=int, default=0, help="measure the server with so many")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.5
    more_files()
    pids = {name: int(pid) for name, pid in options.pid}
    others = [running(name, url, options.model, pids.get(name)) for name, url in options.url]
    with all_servers(others, options.workers) as servers:
        results = measure(servers, options.rounds, options.seconds)
    about: dict[str, Any] = machine()
    print("\n" + table(results) + "\n")
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{options.rounds} rounds of {options.seconds:g} s; median (least-most).")
    if options.json:
        options.json.write_text(json.dumps({"about": about, "rounds": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
