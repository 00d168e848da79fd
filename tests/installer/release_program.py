"""A process that installs `tiny:engine` from a release and kills itself on the way.

ROOT VERSION again|once POINT: at the POINTth operation on the file system, or of starting a
program, it is gone as by `kill -9`. With the point 0 it prints how many of them there are.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from pathlib import Path

from lemonade.core.bus import Bus
from lemonade.installer import Bundles, Installer
from lemonade.planning import plan_install, select
from tests.installer.releases import backend_of
from tests.installer.setting import MACHINE

OPERATIONS = ("open", "os.", "shutil.", "subprocess.", "fcntl.", "socket.connect")


async def main(root: str, version: str, force: str, point: str) -> int:
    spec = backend_of(version)
    bundles = Bundles(Path(root), os.environ)
    plan = plan_install(select(spec, MACHINE), MACHINE, bundles.present(spec), bundles.root)
    async with Installer(bundles, Bus(), os.environ) as installer:
        counted = itertools.count(1)

        def watch(event: str, _: tuple[object, ...]) -> None:
            if event.startswith(OPERATIONS) and next(counted) == int(point):
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        bundle = await installer.install(plan, lambda _: None, force=force == "again")
    print(next(counted) - 1 if point == "0" else f"installed {bundle.version}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
