"""A server in miniature: a supervisor with one fake engine, to be killed by a test.

    python router.py LEDGER MARK [--guarded] [--unnoticed] [switches of fake_engine ...]

Prints one JSON line when the child is ready and its descendants are in the ledger, then waits for
SIGTERM. With `--unnoticed` it does not look for descendants again before one is started.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from urllib.request import Request, urlopen

from lemonade.core.bus import Bus
from lemonade.supervisor import Child, Supervisor
from tests.processes.conftest import Bench


async def main(ledger: Path, mark: str, switches: list[str]) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    bench = Bench(ledger.parent, mark)
    guarded = "--guarded" in switches
    unnoticed = "--unnoticed" in switches
    switches = [switch for switch in switches if switch not in ("--guarded", "--unnoticed")]
    interval = 3600.0 if unnoticed else 0.02
    async with Supervisor(
        ledger_dir=ledger, bus=Bus(), notice_interval=interval, guarded=guarded
    ) as supervisor:
        child = await bench.ready(supervisor, *switches)
        if unnoticed:
            core = await spawned_now(child)
            tell({"child": child.pid, "id": child.id, "descendants": [core]})
            await stopped.wait()
            return
        wanted = switches.count("--spawn-engine")
        while len(child.descendants) < wanted:
            await asyncio.sleep(0.01)
        [record] = ledger.glob(f"{child.id}.json")
        while len(json.loads(record.read_text())["descendants"]) < wanted:
            await asyncio.sleep(0.01)
        tell({"child": child.pid, "id": child.id, "descendants": child.descendants})
        await stopped.wait()


async def spawned_now(child: Child) -> int:
    """Have the engine start its core; the pid of that."""
    request = Request(f"{child.spec.endpoint.url}/fake/spawn", method="POST")
    await asyncio.to_thread(urlopen, request)
    while not (found := [line for line in child.tail(9) if line.startswith("engine-core ")]):
        await asyncio.sleep(0.01)
    return int(found[0].split()[1])


def tell(said: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
