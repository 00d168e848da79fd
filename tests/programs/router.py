"""A server in miniature: a supervisor with one fake engine, to be killed by a test.

    python router.py LEDGER MARK [--guarded] [switches of fake_engine ...]

Prints one JSON line when the child is ready and its descendants are in the ledger, then waits for
SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from lemonade.core.bus import Bus
from lemonade.supervisor import Supervisor
from tests.processes.conftest import Bench


async def main(ledger: Path, mark: str, switches: list[str]) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    bench = Bench(ledger.parent, mark)
    guarded = "--guarded" in switches
    switches = [switch for switch in switches if switch != "--guarded"]
    async with Supervisor(
        ledger_dir=ledger, bus=Bus(), notice_interval=0.02, guarded=guarded
    ) as supervisor:
        child = await bench.ready(supervisor, *switches)
        wanted = switches.count("--spawn-engine")
        while len(child.descendants) < wanted:
            await asyncio.sleep(0.01)
        [record] = ledger.glob(f"{child.id}.json")
        while len(json.loads(record.read_text())["descendants"]) < wanted:
            await asyncio.sleep(0.01)
        said = {"child": child.pid, "id": child.id, "descendants": child.descendants}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
