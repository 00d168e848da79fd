"""A process that holds the lease on a version until its input ends: ROOT VERSION.

Prints `held`, or `gone`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lemonade.installer import Bundles, lease
from tests.installer.releases import backend_of
from tests.installer.setting import wanted


def main(root: str, version: str) -> int:
    bundles = Bundles(Path(root), os.environ)
    bundle = bundles.find(wanted(backend_of()), version)
    held = lease(bundle) if bundle is not None else None
    print("gone" if held is None else "held", flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
