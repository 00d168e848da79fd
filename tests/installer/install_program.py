"""A process that installs `tiny:engine`: FOLDER_OF_WHEEL VERSION ROOT [LIMIT_OF_FILE_SIZE].

Prints `installed VERSION`, or the error's code. Pip's settings come from its environment.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from pathlib import Path

from lemonade.core.bus import Bus
from lemonade.core.errors import LemonadeError
from lemonade.installer import Bundles, Installer
from lemonade.planning import plan_install, select
from tests.installer.setting import MACHINE
from tests.installer.wheels import Wheel, backend_of


async def main(folder: str, version: str, root: str, *limit: str) -> int:
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit[0]), int(limit[0])))
    spec = backend_of(Wheel(Path(folder) / f"tinyengine-{version}-py3-none-any.whl", version))
    bundles = Bundles(Path(root), os.environ)
    plan = plan_install(select(spec, MACHINE), MACHINE, bundles.present(spec), bundles.root)
    try:
        async with Installer(bundles, Bus(), os.environ) as installer:
            bundle = await installer.install(plan, lambda _: None)
    except LemonadeError as error:
        print(error.code, flush=True)
        return 1
    print("installed", bundle.version, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
