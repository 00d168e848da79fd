"""Sets the project up: a virtual environment with everything, and the engines' wheels.

Usage: python3 tools/setup.py VENV WHEELS

Needs nothing but Python 3.11 or newer and pip. The wheels of the embedded engine, and of the one
other that is small enough for every test run, are fetched by the pins in `backends/` and checked
against their digests, so that afterwards neither `make demo` nor `make test` needs the network.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = "llamacpp-wheel"
ENGINES = (EMBEDDED, "ryzenai-llm-cpu")


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
    fetch_engines(python, wheels)
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


def fetch_engines(python: Path, wheels: Path) -> None:
    pins = {
        name: tomllib.loads((ROOT / "backends" / f"{name}.toml").read_text())["pin"]
        for name in ENGINES
    }
    digests = {file: digest for pin in pins.values() for file, digest in pin["sha256"].items()}
    wheels.mkdir(parents=True, exist_ok=True)
    for file in wheels.glob("*.whl"):
        if file.name not in digests:  # of a former pin
            file.unlink()
    for name, pin in pins.items():
        lacking = [one for one in pin["packages"] if not there(one, wheels, digests)]
        if not lacking:
            continue
        print(f"Fetching the engine {name} ...", flush=True)
        fetched = subprocess.run(
            [str(python), "-m", "pip", "download", "-q", "--disable-pip-version-check",
             "--no-deps", "--only-binary=:all:", "-d", str(wheels), *lacking],
            check=False,
        )  # fmt: skip
        if fetched.returncode and name == EMBEDDED:
            raise SystemExit(fetched.returncode)
        if fetched.returncode:
            print(f"{name} cannot be had here: its tests will fail, all else works.")
    for file in wheels.glob("*.whl"):
        if not trusted(file, digests):
            file.unlink()
            raise SystemExit(f"{file.name} is not the wheel that is pinned; it was removed.")


def there(package: str, wheels: Path, digests: dict[str, str]) -> bool:
    """Whether a trusted file of that package is in the folder."""
    start = package.replace("-", "_").replace("==", "-") + "-"
    return any(trusted(file, digests) for file in wheels.glob(f"{start}*.whl"))


def trusted(file: Path, digests: dict[str, str]) -> bool:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return digests.get(file.name) == digest


def run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    sys.exit(main())
