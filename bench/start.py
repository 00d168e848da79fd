"""How long `lemonade serve` takes until `/live` answers, beside what Python alone takes.

    python -m bench.start [--times N] [--cold]

In turn: Python doing nothing, Python importing `aiohttp.web` (no server of ours can be quicker),
and the server with empty directories. Where others use the cores too, CPU time says more than the
clock. `--cold` takes the files out of the page cache before every start (root only).
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.goals import GOALS
from bench.servers import ROOT, Server, free_port

PLAIN = {"python -c pass": "pass", "python -c 'import aiohttp.web'": "import aiohttp.web"}
SERVER = "lemonade serve to /live"
ASKED = b"GET /live HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"

Seconds = tuple[float, float]
"""By the clock, and of CPU."""


def plain(code: str) -> Seconds:
    """One Python from its start to its end."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{code!r} ended with status {process.returncode}.")
    return wall, used.ru_utime + used.ru_stime


def live(port: int) -> bool:
    """Whether the server answers as one that lives."""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(ASKED)
            return connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def server() -> tuple[Seconds, float]:
    """One start up to the first 200, and the memory in MiB at that moment."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-start-") as home:
        argv = [sys.executable, "-m", "lemonade", "serve", "--port", str(port)]
        environment = {
            **os.environ,
            "LEMONADE_CACHE_DIR": f"{home}/cache",
            "LEMONADE_CONFIG_DIR": f"{home}/config",
            "XDG_RUNTIME_DIR": home,
        }
        began = time.monotonic()
        process = subprocess.Popen(
            [*argv, "--host", "127.0.0.1", "--log-level", "error"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        try:
            while not live(port):
                if process.poll() is not None or time.monotonic() - began > 60:
                    raise SystemExit("The server does not answer.")
                time.sleep(0.002)
            wall = time.monotonic() - began
            seen = Server("lemonade", "127.0.0.1", port, pid=process.pid)
            cpu, memory = seen.cpu_seconds(), seen.resident_mib()
        finally:
            process.terminate()
            process.wait(30)
    assert cpu is not None
    assert memory is not None
    return (wall, cpu), memory


def forget_files() -> None:
    """Empty the page cache."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--times", type=int, default=10, help="starts of each")
    parser.add_argument("--cold", action="store_true", help="read everything from the disk")
    options = parser.parse_args()
    if sys.dont_write_bytecode:
        print("PYTHONDONTWRITEBYTECODE is set: every start may compile all modules anew.")
    server()  # the first one compiles
    found: dict[str, list[Seconds]] = {name: [] for name in (*PLAIN, SERVER)}
    memories = []
    for _ in range(options.times):
        for name, code in PLAIN.items():
            if options.cold:
                forget_files()
            found[name].append(plain(code))
        if options.cold:
            forget_files()
        seconds, memory = server()
        found[SERVER].append(seconds)
        memories.append(memory)
    print("| what | clock, s | CPU, s |\n|---|---|---|")
    for name, rows in found.items():
        print(f"| {name} | {spread(rows, 0)} | {spread(rows, 1)} |")
    best = min(wall for wall, _ in found[SERVER])
    cpu = statistics.median(cpu for _, cpu in found[SERVER])
    print(f"\nMemory when it answers: {statistics.median(memories):.1f} MiB")
    print(f"Goal by the clock on an idle core, {GOALS['start'].verdict(best)} (quickest start)")
    print(f"The same of CPU time, {GOALS['start'].verdict(cpu)} (median)")
    print(f"{options.times} starts of each in turn; load average {os.getloadavg()[0]:.1f}")
    return 0


def spread(rows: list[Seconds], which: int) -> str:
    """Median (least-most)."""
    values = [row[which] for row in rows]
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


if __name__ == "__main__":
    sys.exit(main())
