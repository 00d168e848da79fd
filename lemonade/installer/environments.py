"""Private Python environments, and the check that what is in one starts.

The one file of this room that starts programs: `venv`, `pip` and the engine's `--version`. Each
runs in a session of its own, is killed with all it started when its caller is cancelled, and is
interrupted by the kernel when the server dies.
Nobody's Python settings reach them except pip's own, which say how packages are had on this
machine: index, proxy and certificates are pip's business and stay in pip's configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from lemonade.core.errors import NoSpace, SetupFailed
from lemonade.core.progress import ProgressListener
from lemonade.installer.pip_output import PipReader, explain
from lemonade.installer.python import find_python, wheels_in
from lemonade.installer.receipts import Package
from lemonade.planning.install import InstallPlan

_PR_SET_PDEATHSIG: Final = 1
_LAST_LINES: Final = 30
_MOST_LINES: Final = 20_000
_LINE_LIMIT: Final = 1 << 20
_SMOKE_WITHIN: Final = 60.0
_CREATE_WITHIN: Final = 300.0
_RAW_PROGRESS: Final = (24, 1)
"""The first version of pip that can print its progress for programs."""

_FOR_US: Final = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "VIRTUAL_ENV",
    "PIP_REQUIRE_VIRTUALENV",
)
"""Variables that were meant for the Python we run in."""

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

_MISSING: Final = re.compile(r"error while loading shared libraries: ([^:\s]+)")
_FOR_CHECKS: Final = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH"})


async def create_environment(
    venv: Path, environ: Mapping[str, str], pythons: Sequence[str] = ()
) -> tuple[str, ...]:
    """Make an environment without packages; returns the command that is its pip.

    The pip of the Python we run in installs into it, which is quicker and newer; if there is none,
    the environment gets its own. It is an environment of the same Python, unless `pythons` names
    others (`3.11`): then of the first of these that is on PATH.

    Raises:
        SetupFailed, NoSpace: it cannot be made.
    """
    python = find_python(pythons, environ)
    own_pip = importlib.util.find_spec("pip") is not None
    options = ("--without-pip",) if own_pip else ()
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    command = (python, "-I", "-m", "venv", *options, str(venv))
    status = await _run(command, _own(environ), lines.append, within=_CREATE_WITHIN)
    if status != 0:
        text = "\n".join(lines)
        facts = {"last_lines": list(lines), "exit_status": status}
        if "No space left" in text or "quota exceeded" in text:
            raise NoSpace(
                "There is no space left for a Python environment.",
                remedy="Free some space, or move the cache with LEMONADE_CACHE_DIR.",
                facts=facts,
            )
        raise SetupFailed(
            f"A Python environment could not be made with {python}.",
            remedy="Install the package that has Python's venv module (python3-venv on Debian).",
            facts=facts,
        )
    if own_pip:
        return (sys.executable, "-m", "pip", "--python", str(venv))
    return (str(venv / "bin" / "python"), "-m", "pip")


async def install_packages(
    pip: Sequence[str],
    plan: InstallPlan,
    scratch: Path,
    environ: Mapping[str, str],
    reader: PipReader,
    listen: ProgressListener,
) -> tuple[Package, ...]:
    """Have pip install the plan's packages; returns what it took, with digests.

    `pip` is what `create_environment` returned; `scratch` a folder for what pip puts down in
    between, for the caller to remove; `reader` makes frames of what pip prints. In `environ`,
    `LEMONADE_WHEELS` is a folder that is looked into first and `LEMONADE_PYPI_URL` the index to
    use; without it pip's configuration decides. `LEMONADE_PYPI_EXTRA_URL`
    names further indexes.

    Raises:
        ChecksumMismatch, DownloadFailed, NoSpace, SetupFailed: pip failed; `facts["last_lines"]`.
    """
    report = scratch / "report.json"
    options = await asyncio.to_thread(_prepare, plan, scratch, environ)
    command = (*pip, "install", *_progress_option(pip), f"--report={report}", *options)
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    listen(reader.looking())

    def follow(line: str) -> None:
        if (progress := reader.read(line)) is not None:
            listen(progress)
        if not line.startswith("Progress "):
            lines.append(line)

    status = await _run(command, {**_own(environ), "TMPDIR": str(scratch)}, follow)
    if status != 0:
        raise explain(f"{plan.backend} {plan.version}", tuple(lines), status)
    try:
        return tuple(await asyncio.to_thread(_reported, report))
    except (ValueError, KeyError, TypeError) as error:
        raise SetupFailed(
            f"pip's report on {plan.backend} {plan.version} cannot be read: {error!r}.",
            remedy="Try a newer pip.",
            facts={"last_lines": list(lines)},
        ) from error


async def check(
    argv: Sequence[str],
    environ: Mapping[str, str],
    declared: Mapping[str, str] | None = None,
    *,
    within: float = _SMOKE_WITHIN,
) -> str:
    """Run a program that shall print its version and end; returns what it printed.

    `declared` are variables it is given besides; after `within` seconds it is killed.

    Raises:
        SetupFailed: it did not start, or did not end well in time.
    """
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    env = {name: value for name, value in environ.items() if name in _FOR_CHECKS}
    env |= declared or {}
    shown = " ".join(argv)
    try:
        status = await _run(argv, env, lines.append, within=within)
    except OSError as error:
        raise SetupFailed(
            f"`{shown}` cannot be started: {error.strerror or error}.",
            remedy="What was installed does not fit this machine.",
        ) from error
    if status != 0:
        end = f"exit status {status}" if status > 0 else signal.Signals(-status).name
        if match := next(filter(None, map(_MISSING.search, lines)), None):
            raise SetupFailed(
                f"`{shown}` needs the library {match[1]}, which this machine does not have.",
                remedy=f"Install the package that has {match[1]}, and try again.",
                facts={"last_lines": list(lines), "exit_status": status},
            )
        raise SetupFailed(
            f"`{shown}` ended with {end}.",
            remedy="What was installed does not start on this machine; its last lines say why.",
            facts={"last_lines": list(lines), "exit_status": status},
        )
    return "\n".join(lines)


async def printed(argv: Sequence[str], env: Mapping[str, str], *, within: float) -> str:
    """What a program prints that shall explain itself and end; empty if it fails, or takes longer.

    `env` is its whole environment.
    """
    lines: deque[str] = deque(maxlen=_MOST_LINES)
    try:
        status = await _run(argv, env, lines.append, within=within)
    except (OSError, ValueError):
        return ""
    return "\n".join(lines) if status == 0 else ""


async def _run(
    command: Sequence[str],
    env: Mapping[str, str],
    hear: Callable[[str], None],
    *,
    within: float | None = None,
) -> int:
    """Run to the end; a negative status is a signal. Its whole session dies with us."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env),
        start_new_session=True,
        limit=_LINE_LIMIT,
        preexec_fn=_interrupted_with_us(),
    )
    assert process.stdout is not None
    ended = False
    try:
        async with asyncio.timeout(within):
            async for raw in process.stdout:
                hear(raw.decode(errors="replace").rstrip())
            status = await process.wait()
        ended = True
        return status
    except TimeoutError:
        hear(f"It did not end within {within:.0f} s.")
        return -signal.SIGKILL
    finally:
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it leads its session
            await process.wait()


def _interrupted_with_us() -> Callable[[], None] | None:
    """What a program does before it starts, so that it does not outlive a killed server.

    It is interrupted, not killed: pip runs itself a second time, and a pip that is interrupted
    takes that one with it.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # it may be ignored, as in the background
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)
        if os.getppid() != parent:  # it died before the arrangement stood
            os._exit(1)

    return arrange


def _own(environ: Mapping[str, str]) -> dict[str, str]:
    env = {name: value for name, value in environ.items() if name not in _FOR_US}
    # An index on this machine is not asked for through a proxy, whoever forgot to say so.
    spared = env.get("no_proxy") or env.get("NO_PROXY") or ""
    if spared != "*":
        spared = ",".join(filter(None, (spared, *_LOOPBACK)))
    env |= {"no_proxy": spared, "NO_PROXY": spared}
    # Lines as they come, nothing imported from the working directory, messages in English.
    return {**env, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "LC_ALL": "C.UTF-8"}


def _progress_option(pip: Sequence[str]) -> tuple[str, ...]:
    if "--python" not in pip:
        return ()  # the one that came with Python may be old
    version = importlib.metadata.version("pip").split(".")
    numbers = tuple(int(part) for part in version[:2] if part.isdigit())
    return ("--progress-bar=raw",) if numbers >= _RAW_PROGRESS else ()


def _prepare(plan: InstallPlan, scratch: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Write the requirements; returns pip's options. Only wheels, only pinned ones, no others."""
    scratch.mkdir()
    requirements = scratch / "requirements.txt"
    requirements.write_text(plan.requirements())
    return (
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--retries=3",  # with none at all pip would not say that nobody answers
        *_sources(plan, environ),
        f"--requirement={requirements}",
    )


def missing_wheels(folder: Path, plan: InstallPlan) -> list[str]:
    """Packages of the plan of which a folder has no wheel. Blocks."""
    there = set(wheels_in(folder)) if plan.locked else set()
    locked = [
        f"{one.name}=={one.version}" for one in plan.locked if (one.name, one.version) not in there
    ]
    return locked + [package for package in plan.packages if not _holds(folder, plan, package)]


def _sources(plan: InstallPlan, environ: Mapping[str, str]) -> Iterator[str]:
    folder = environ.get("LEMONADE_WHEELS", "")
    if folder and Path(folder).is_dir():
        yield f"--find-links={folder}"
        if not missing_wheels(Path(folder), plan):
            yield "--no-index"
            return
    if index := environ.get("LEMONADE_PYPI_URL"):
        yield f"--index-url={index}"
    for index in environ.get("LEMONADE_PYPI_EXTRA_URL", "").split():
        yield f"--extra-index-url={index}"


def local_sizes(plan: InstallPlan, environ: Mapping[str, str]) -> dict[str, int]:
    """Sizes of the plan's files that are in the folder of wheels. Blocks."""
    folder = Path(environ.get("LEMONADE_WHEELS") or os.devnull)
    files = (folder / file for file in plan.files)
    wheels = folder.glob("*.whl") if plan.locked else ()
    return {file.name: file.stat().st_size for file in (*files, *wheels) if file.is_file()}


def _holds(folder: Path, plan: InstallPlan, package: str) -> bool:
    project = package.partition("==")[0].replace("-", "_")
    files = (file for file in plan.files if file.startswith(f"{project}-"))
    return any((folder / file).is_file() for file in files)


def _reported(report: Path) -> list[Package]:
    packages = []
    for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
        source = item["download_info"]
        hashes = source.get("archive_info", {}).get("hashes", {})
        metadata, file = item["metadata"], unquote(source["url"].rpartition("/")[2])
        packages.append(
            Package(metadata["name"], metadata["version"], file, hashes.get("sha256", ""))
        )
    return packages
