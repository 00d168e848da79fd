"""What is measured, and how: one run of the load generator against one server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.programs import program
from bench.servers import Server

EDGE = 0.3
"""Seconds at both ends of a paced run during which CPU time is not counted."""


@dataclass(frozen=True)
class Figure:
    """One number of the table."""

    key: str
    title: str
    unit: str
    digits: int
    lower_is_better: bool = True


FIGURES = (
    Figure("lat1", "latency, 1 connection, p50", "us", 0),
    Figure("added1", "added latency, 1 connection, p50", "us", 0),
    Figure("rps32", "requests/s, 32 connections", "/s", 0, lower_is_better=False),
    Figure("cpu_request", "CPU per request, 32 connections", "us", 1),
    Figure("cpu_chunk_200", "CPU per chunk, 200 streams x 20/s", "us", 1),
    Figure("delay_200", "delay of a chunk, 200 streams, p50", "us", 0),
    Figure("cpu_chunk_1000", "CPU per chunk, 1000 streams x 20/s", "us", 1),
    Figure("served_1000", "streams served of 1000", "", 0, lower_is_better=False),
    Figure("delay_1000_p99", "delay of a chunk, 1000 streams, p99", "us", 0),
    Figure("ttft256", "time to first chunk, 256 connections, p50", "us", 0),
    Figure("rss_before", "memory, before the load", "MiB", 1),
    Figure("rss_1000", "memory, 1000 streams", "MiB", 1),
)

Values = dict[str, float]


def load(server: Server, seconds: float, **options: object) -> list[str]:
    """The load generator's command line."""
    argv = [str(program("loadgen")), "--host", server.host, "--port", str(server.port)]
    argv += ["--path", server.path, "--model", server.model, "--dur", str(seconds)]
    for name, value in options.items():
        argv += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return argv


def check(server: Server, result: dict[str, Any]) -> dict[str, Any]:
    """Refuse numbers of a server that did not do its work."""
    bad = {key: result[key] for key in ("errors", "not_200", "incomplete") if result[key]}
    if bad:
        print(f"  {server.name}: {bad} {result['first_error']}", flush=True)
    return result


def run(argv: list[str], server: Server) -> dict[str, Any]:
    """One run to its end."""
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=120)
    return check(server, json.loads(done.stdout))


def paced(server: Server, streams: int, seconds: float) -> tuple[dict[str, Any], Values]:
    """Streams of 20 chunks a second that never end: CPU per chunk while nothing begins or ends."""
    ramp, warm = streams / 500, 0.5
    argv = load(server, seconds, conc=streams, stream=True, n=1_000_000, i=50_000, ramp=ramp)
    argv += ["--warm", str(warm)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        time.sleep(ramp + warm + EDGE)
        before, at = server.cpu_seconds(), time.monotonic()
        time.sleep(seconds - 2 * EDGE)
        after, spent = server.cpu_seconds(), time.monotonic() - at
        memory = server.resident_mib()
        output, _ = process.communicate(timeout=60)
    result = check(server, json.loads(output))
    values: Values = {}
    if before is not None and after is not None and result["chunks_per_second"]:
        values["cpu"] = (after - before) / spent / result["chunks_per_second"] * 1e6
    if memory is not None:
        values["memory"] = memory
    return result, values


def plain(server: Server, seconds: float) -> Values:
    """Short answers in one piece: latency alone, then throughput and CPU under 32 connections."""
    values: Values = {}
    memory = server.resident_mib()
    if memory is not None:
        values["rss_before"] = memory
    result = run(load(server, seconds, conc=1, warm=0.2), server)
    values["lat1"] = result["latency_us"]["p50"]
    run(load(server, 0.3, conc=32, warm=0), server)
    before = server.cpu_seconds()
    result = run(load(server, seconds, conc=32, warm=0), server)
    after = server.cpu_seconds()
    values["rps32"] = result["requests_per_second"]
    if before is not None and after is not None and result["requests"]:
        values["cpu_request"] = (after - before) / result["requests"] * 1e6
    return values


def streams(server: Server, seconds: float) -> Values:
    """Streams at the pace of a model."""
    values: Values = {}
    result = run(load(server, seconds, conc=256, stream=True, n=20, i=20_000, warm=1), server)
    values["ttft256"] = result["first_chunk_us"]["p50"]
    result, costs = paced(server, 200, seconds)
    values["delay_200"] = result["one_way_us"]["p50"]
    if "cpu" in costs:
        values["cpu_chunk_200"] = costs["cpu"]
    result, costs = paced(server, 1000, seconds)
    values["served_1000"] = result["served"]
    values["delay_1000_p99"] = result["one_way_us"]["p99"]
    if "cpu" in costs:
        values["cpu_chunk_1000"] = costs["cpu"]
    if "memory" in costs:
        values["rss_1000"] = costs["memory"]
    return values


TESTS: tuple[Callable[[Server, float], Values], ...] = (plain, streams)
