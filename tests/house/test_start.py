"""What `lemonade serve` does not do before it answers: import what only some servers ever need.

How long it takes is measured by `python -m bench.start`; here is what keeps it so.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import CHECKOUT
from tests.serving import environment

NOT_YET = (
    "difflib",
    "huggingface_hub",
    "lemonade.client",
    "lemonade.doctor",
    "numpy",
    "prometheus_client",
    "psutil",
    "requests",
    "rich",
    "tarfile",
    "unittest",
    "xml",
)

START = """
import os, sys
from lemonade.cli.main import root
from lemonade.cli.serve import run_foreground

def told(text, **_):
    print(*sorted(sys.modules), flush=True)
    os._exit(0)  # nothing has been started yet that would stay

import click
click.echo = told
run_foreground(host="127.0.0.1", port=0, log_level="error")
"""

CERTIFICATES = """
import os
from lemonade.cli.serve import run_foreground

try:
    run_foreground(host="no such host", port=0, log_level="error")
finally:
    from aiohttp import connector
    counts = connector._SSL_CONTEXT_VERIFIED.cert_store_stats()
    print(os.environ.get("SSL_CERT_FILE"), counts)
"""


def run(program: str, home: Path, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        env={**environment(home), **more},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_server_that_answers_has_not_imported_what_it_may_never_need(tmp_path: Path) -> None:
    loaded = run(START, tmp_path).split()
    assert "lemonade.gateway.application" in loaded
    assert not {name for name in NOT_YET if name in loaded}


@pytest.mark.slow
@pytest.mark.parametrize("given", [None, "/etc/hostname"])
def test_no_certificates_are_read_and_the_variable_is_as_before(
    tmp_path: Path, given: str | None
) -> None:
    said = run(CERTIFICATES, tmp_path, **({} if given is None else {"SSL_CERT_FILE": given}))
    variable, counts = said.split(" ", 1)
    assert variable == str(given)
    assert "'x509': 0" in counts
