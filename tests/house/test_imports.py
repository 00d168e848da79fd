"""Every module can be imported first, by itself, without a warning.

A fresh interpreter for each would take minutes, since most of the time goes into the libraries.
So one interpreter imports those, and forks for each module of ours.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.house.tree import CHECKOUT, module_name, python_files

LIBRARIES = (
    "aiohttp.web",
    "asyncio",
    "click",
    "huggingface_hub",
    "msgspec",
    "prometheus_client",
    "psutil",
    "pydantic",
    "requests",
    "rich.console",
)

IMPORT_EACH = """
import importlib, os, sys, traceback, warnings

libraries, modules = sys.argv[1].split(","), sys.argv[2].split(",")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs are not ours to repair
    for library in libraries:
        importlib.import_module(library)
failed = 0
for module in modules:
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            importlib.import_module(module)
            status = 0
        except BaseException:
            print(f"---- {module}", file=sys.stderr)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    failed += os.waitpid(child, 0)[1] != 0
sys.exit(bool(failed))
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_module_imports_alone_and_in_silence() -> None:
    modules = [module_name(path) for path in python_files("lemonade")]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EACH, ",".join(LIBRARIES), ",".join(modules)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=170,  # 15 s on an idle machine; modules and load both grow
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "", "something prints when it is imported"
