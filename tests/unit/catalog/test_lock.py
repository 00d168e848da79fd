"""Locks: what they say, and what is told to whoever writes one that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from lemonade.catalog import Catalog, LockedPackage
from lemonade.catalog.lock import read_lock
from lemonade.core.errors import BadDescriptor
from tests.unit.catalog.conftest import RECIPE

A, B = "a" * 64, "b" * 64

LOCK = f"""\
# Made by a tool.
Big_Engine==1.0+cpu \\
    --hash=sha256:{A} \\
    --hash=sha256:{B}

small.part==2.post1 --hash=sha256:{B}  # why it is here
other==1 ; python_version == '3.11' \\
    --hash=sha256:{A}
other==2 ; python_version == "3.12" or python_version == "3.13" --hash=sha256:{B}
"""

BACKEND = """\
schema     = 1
id         = "brew:packages"
title      = "Brewer"
preference = 50
devices    = ["cpu"]

[pin]
source   = "pypi"
version  = "1.0"
{pin}

[[runs_on]]
os = ["linux"]

[bundle]
argv = ["{{python}}"]
"""


def lock(path: Path, text: str) -> tuple[LockedPackage, ...]:
    file = path / "x.lock"
    file.write_text(text)
    return read_lock(file)


def test_a_lock_says_name_version_digests_and_condition(tmp_path: Path) -> None:
    later = 'python_version == "3.12" or python_version == "3.13"'
    assert lock(tmp_path, LOCK) == (
        LockedPackage("big-engine", "1.0+cpu", (A, B)),
        LockedPackage("small-part", "2.post1", (B,)),
        LockedPackage("other", "1", (A,), 'python_version == "3.11"'),
        LockedPackage("other", "2", (B,), later),
    )


def test_a_requirement_is_what_was_locked(tmp_path: Path) -> None:
    packages = lock(tmp_path, LOCK)
    assert lock(tmp_path, "\n".join(one.requirement() for one in packages)) == packages


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "locks nothing"),
        ("# nothing\n", "locks nothing"),
        ("a==1", "line 1: a has no --hash"),
        (f"\n\na>=1 --hash=sha256:{A}", "line 3: 'a>=1' is not name==version"),
        (f"a --hash=sha256:{A}", "is not name==version"),
        (f"a[more]==1 --hash=sha256:{A}", "is not name==version"),
        (f"a @ https://example.org/a.whl --hash=sha256:{A}", "is not name==version"),
        (f"a==1.* --hash=sha256:{A}", "is not name==version"),
        (f"--index-url=https://example.org\na==1 --hash=sha256:{A}", "line 1"),
        ("-r other.txt", "line 1"),
        (f"a==1 --hash=md5:{A}", "is not sha256: and 64 digits"),
        ("a==1 --hash=sha256:abc", "is not sha256: and 64 digits"),
        (f"a==1 ; sys_platform == 'linux' --hash=sha256:{A}", "is no comparison"),
        (f"a==1 ; extra == 'x' --hash=sha256:{A}", "is no comparison"),
        (f"a==1 --hash=sha256:{A}\nA==2 --hash=sha256:{B}", "line 2: a stands there twice"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(BadDescriptor, match=complaint) as caught:
        lock(tmp_path, text)
    assert str(tmp_path / "x.lock") in caught.value.message


def catalog(path: Path, pin: str, text: str | None = LOCK) -> Catalog:
    for folder, name, content in (
        ("recipes", "brew.toml", RECIPE),
        ("backends", "brew-packages.toml", BACKEND.format(pin=pin)),
        ("backends", "brew-packages.lock", text),
    ):
        (path / folder).mkdir(exist_ok=True)
        if content is not None:
            (path / folder / name).write_text(content)
    return Catalog.load([path])


def test_a_descriptor_brings_its_lock(tmp_path: Path) -> None:
    pin = 'lock = "brew-packages.lock"\npython = ["3.11"]\n[pin.provides]\nengine = "1.0+cpu"'
    (backend,) = catalog(tmp_path, pin).backends_of("brew")
    assert [package.name for package in backend.pin.locked] == [
        "big-engine",
        "small-part",
        "other",
        "other",
    ]
    assert backend.pin.provides == {"engine": "1.0+cpu"}


@pytest.mark.parametrize(
    ("pin", "complaint"),
    [
        ('lock = "not-there.lock"', "not-there.lock cannot be read"),
        ('lock = "../brew.lock"', "a file beside this one"),
        ('lock = "brew-packages.lock"\npackages = ["a==1"]', "give one of them"),
        ('lock = "brew-packages.lock"\n[pin.provides]\nBig_engine = "1"', "need not be provided"),
        ('lock = "brew-packages.lock"\n[pin.provides]\n"a/b" = "1"', "is no name or version"),
        ('lock = "brew-packages.lock"\npython = ["3"]', "is no version of Python"),
        (
            f'locked = [{{name = "a", version = "1", sha256 = ["{A}"], marker = ""}}]',
            "cannot be given",
        ),
    ],
)
def test_a_descriptor_that_cannot_be(tmp_path: Path, pin: str, complaint: str) -> None:
    with pytest.raises(BadDescriptor, match=complaint):
        catalog(tmp_path, pin)


def test_only_packages_are_locked(tmp_path: Path) -> None:
    text = BACKEND.format(pin='executable = "brew"\nlock = "brew-packages.lock"')
    (tmp_path / "recipes").mkdir()
    (tmp_path / "backends").mkdir()
    (tmp_path / "recipes" / "brew.toml").write_text(RECIPE)
    (tmp_path / "backends" / "brew-packages.toml").write_text(
        text.replace('"pypi"', '"system"').replace("{python}", "{executable}")
    )
    with pytest.raises(BadDescriptor, match="'lock' means something for the source pypi only"):
        Catalog.load([tmp_path])
