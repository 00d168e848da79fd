"""What the server costs while a model is loaded and nobody asks for anything.

    python -m bench.idle [--seconds N]

CPU time of the server's threads, how often each was woken, and the same of its engine, which is
the fake one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench.goals import GOALS
from bench.servers import Server, whole_server

SETTLES = 5.0
"""Seconds for the load of the model to be over, before anything is counted."""


def wakes(pid: int) -> dict[str, int]:
    """How often each thread has given up the CPU to wait, by name and number."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                name = (task / "comm").read_text().strip()
                found[f"{name} {task.name}"] = int(line.split()[1])
    return found


def measure(server: Server, seconds: float) -> float:
    """Per cent of a core, after having printed what it is made of."""
    assert server.pid is not None
    before, woken, at = server.cpu_seconds(), wakes(server.pid), time.monotonic()
    time.sleep(seconds)
    after, then = server.cpu_seconds(), wakes(server.pid)
    spent = time.monotonic() - at
    assert before is not None
    assert after is not None
    for name, count in then.items():
        if count > woken.get(name, 0):
            print(f"  {name}: woken {(count - woken.get(name, 0)) / spent:.2f} times a second")
    return (after - before) / spent * 100


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with whole_server() as server:
        time.sleep(SETTLES)
        percent = measure(server, options.seconds)
        memory = server.resident_mib()
    print(f"{percent:.3f} % of a core over {options.seconds:g} s, {memory:.1f} MiB")
    print(GOALS["idle"].verdict(percent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
