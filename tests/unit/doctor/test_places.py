"""The checks about disks, packages, settings, engines and orphans, on real files and processes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lemonade.catalog import review_catalog, shipped, trusted
from lemonade.config import AccessKeys, review_config
from lemonade.core.ids import ChildId
from lemonade.doctor import Finding
from lemonade.doctor.disk import (
    GB,
    DiskFacts,
    Mount,
    Place,
    check_disk,
    look_at_disk,
    mount_of,
    read_mounts,
)
from lemonade.doctor.engines import check_engines
from lemonade.doctor.orphans import check_orphans
from lemonade.doctor.packages import Python, check_packages
from lemonade.doctor.settings import Written, check_settings
from lemonade.storage import Directories, FileLock
from lemonade.supervisor.ledger import Ledger, Owner, Record
from lemonade.supervisor.processes import Identity, read_process
from tests.unit.catalog.signing import Signer
from tests.unit.doctor.saying import one, rules
from tests.unit.hardware.trees import write

NOBODY = Identity(2**22 + 1, 1)


# ---- disks

HOME = Mount("/", "ext4", frozenset({"rw"}))
CACHE = Place("cache", Path("/home/x/.cache/lemonade"), 5 * GB, runs=True)


def facts(path: Path, **changes: object) -> DiskFacts:
    plenty = DiskFacts(path, True, 1000, 0o700, 900 * GB, 1_000_000)
    return replace(plenty, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mount", "changes", "expected"),
    [
        (HOME, {}, []),
        (replace(HOME, kind="tmpfs"), {}, [("warning", "in-memory")]),
        (replace(HOME, options=frozenset({"ro"})), {}, [("error", "read-only")]),
        (replace(HOME, options=frozenset({"rw", "noexec"})), {}, [("error", "no-exec")]),
        (replace(HOME, kind="nfs4"), {}, [("note", "network-disk")]),
        (HOME, {"writable": False}, [("error", "not-writable")]),
        (HOME, {"owner": 0}, [("note", "other-owner")]),
        (HOME, {"free_bytes": GB}, [("warning", "little-room")]),
        (HOME, {"free_bytes": 0}, [("error", "full")]),
        (HOME, {"free_nodes": 5}, [("warning", "few-nodes")]),
        (HOME, {"free_nodes": None}, []),
    ],
)
def test_disks(mount: Mount, changes: dict[str, object], expected: list[tuple[str, str]]) -> None:
    found = check_disk([CACHE], [mount], 1000, lambda path: facts(path, **changes))
    assert rules(found) == expected


def test_what_is_not_lasting_or_not_run_may_be_in_memory() -> None:
    mount = Mount("/", "tmpfs", frozenset({"rw", "noexec"}))
    run = Place("runtime", Path("/run/user/1000/lemonade"), 0, lasting=False)
    assert rules(check_disk([run], [mount], 1000, facts)) == []


def test_the_mount_of_a_path(tmp_path: Path) -> None:
    write(
        tmp_path,
        "proc/self/mountinfo",
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:26 / /home/a\\040b rw,nosuid,noexec - tmpfs tmpfs rw,size=1g\n"
        "31 22 8:2 / /home/a ro - xfs /dev/sdb1 rw\n",
    )
    mounts = read_mounts(tmp_path)
    assert [mount_of(Path(p), mounts).kind for p in ("/x", "/home/a b/c", "/home/a/c")] == [  # type: ignore[union-attr]
        "ext4",
        "tmpfs",
        "xfs",
    ]
    assert "noexec" in mount_of(Path("/home/a b"), mounts).options  # type: ignore[union-attr]


def test_a_real_disk_is_looked_at_where_the_folder_will_be(tmp_path: Path) -> None:
    found = look_at_disk(tmp_path / "not" / "there")
    assert (found.path, found.owner) == (tmp_path.resolve(), os.getuid())
    assert found.writable
    assert found.free_bytes > 0
    assert not (tmp_path / "not").exists()


# ---- packages


def test_packages_from_elsewhere(tmp_path: Path) -> None:
    own, extra = tmp_path / "own", tmp_path / "extra"
    local = tmp_path / ".local/lib/python3.12/site-packages"
    write(own, "pydantic/__init__.py")
    write(extra, "pydantic/__init__.py")
    write(extra, "torch/__init__.py")
    write(local, "numpy/__init__.py")
    write(local, "enginelib/__init__.py")
    clean = Python((str(own),), "")
    found = check_packages({}, clean, tmp_path, ["enginelib"])
    assert rules(found) == [("note", "engine-packages")]
    assert "enginelib, numpy" in one(found, "engine-packages").reason
    led = Python((str(extra), str(own)), "")
    found = check_packages({"PYTHONPATH": str(extra)}, led, tmp_path / "nobody", [])
    assert rules(found) == [("warning", "shadowed"), ("note", "engine-packages")]
    assert one(found, "shadowed").evidence[0].path == str(extra / "pydantic")
    of_user = Python((str(extra), str(own)), str(extra))
    (found_one,) = check_packages({}, of_user, tmp_path / "nobody", [])
    assert "PYTHONNOUSERSITE=1" in found_one.fix
    assert rules(check_packages({"PYTHONHOME": "/x"}, clean, tmp_path / "nobody", [])) == [
        ("warning", "python-home")
    ]


# ---- settings


def looked_at(home: Path, **changes: object) -> tuple[Finding, ...]:
    folders = Directories(home / "cache", home / "config", home / "run", home / "state")
    catalog = review_catalog([shipped(), home / "config"])
    sections = catalog.catalog.sections() if catalog.catalog else {}
    environ: dict[str, str] = changes.pop("environ", {})  # type: ignore[assignment]
    written = Written(
        home / "config",
        review_config(folders, environ, sections),
        catalog,
        AccessKeys.from_environ(environ),
        "localhost",
    )
    return check_settings(replace(written, **changes))  # type: ignore[arg-type]


def test_settings_in_order(tmp_path: Path) -> None:
    assert rules(looked_at(tmp_path)) == []
    file = write(tmp_path, "config/config.json", '{"config_version": 2, "port": 9000}')
    file.chmod(0o600)
    (tmp_path / "config").chmod(0o700)
    (found,) = looked_at(tmp_path)
    assert str(file) in found.reason


def test_settings_that_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir(mode=0o700)
    file = write(tmp_path, "config/config.json", '{"prot": 9000, "port": "no"}')
    file.chmod(0o600)
    found = looked_at(tmp_path)
    assert rules(found) == [("error", "bad-settings"), ("warning", "unknown-key")]
    assert "port" in one(found, "unknown-key").fix
    file.write_text("{ no")
    before = sorted(tmp_path.rglob("*"))
    assert rules(looked_at(tmp_path)) == [("warning", "bad-settings")]
    assert sorted(tmp_path.rglob("*")) == before  # nothing was put aside
    site = write(tmp_path, "site.json", "[]")
    found = looked_at(tmp_path, environ={"LEMONADE_DEFAULTS_PATH": str(site)})
    assert rules(found)[0] == ("error", "bad-settings")


def test_documents_and_declarations(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir(mode=0o700)
    write(tmp_path, "config/user_models.json", "[]")
    write(tmp_path, "config/config.json.corrupted", "x")
    one_file = write(tmp_path, "config/recipes/mine.toml", "schema = 1\n")
    other = write(tmp_path, "config/backends/mine.toml", "[")
    found = looked_at(tmp_path, missing_roots=[tmp_path / "gone"])
    assert rules(found) == [
        ("warning", "bad-document"),
        ("note", "put-aside"),
        ("error", "bad-declaration"),
        ("error", "bad-declaration"),
        ("warning", "no-such-folder"),
        ("note", "own-declaration"),
        ("note", "own-declaration"),
    ]
    named = {f.evidence[0].path for f in found if f.rule == "bad-declaration"}
    assert named == {str(one_file), str(other)}


def test_declarations_that_must_be_signed(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir(mode=0o700)
    recipe = (shipped() / "recipes/llamacpp.toml").read_text()
    file = write(tmp_path, "config/recipes/mine.toml", recipe)
    keys = write(tmp_path, "config/trusted_keys", "no key\n")
    folder = tmp_path / "config"

    def reviewed() -> tuple[Finding, ...]:
        review = review_catalog([shipped(), folder], lambda: trusted({}, folder))
        return looked_at(tmp_path, catalog=review)

    assert one(reviewed(), "bad-declaration").evidence[0].path == str(keys)
    signer = Signer()
    keys.write_text(signer.line + "\n")
    found = one(reviewed(), "bad-declaration")
    assert found.evidence[0].path == str(file)
    assert "minisign" in found.fix
    signer.sign(file)
    assert rules(reviewed()) == [("note", "own-declaration")]


def test_secrets_that_others_may_read(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir(mode=0o700)
    file = write(
        tmp_path, "config/config.json", '{"telemetry": {"otlp": {"headers": {"a": "b"}}}}'
    )
    token = write(tmp_path, "token", "hf_x")
    for path, mode in ((file, 0o644), (token, 0o640)):
        path.chmod(mode)
    found = looked_at(tmp_path, secrets=[token, tmp_path / "not-there"], host="0.0.0.0")
    assert rules(found) == [("warning", "secret-readable")] * 2 + [("warning", "open-to-all")]
    file.chmod(0o620)
    token.chmod(0o600)
    found = looked_at(tmp_path, secrets=[token], host="0.0.0.0", environ={"LEMONADE_API_KEY": "k"})
    assert rules(found) == [("warning", "others-may-write")]


# ---- engines


def bundle(root: Path, name: str = "b1") -> Path:
    """A bundle of a release, of one program and one library."""
    folder = root / "fake" / "cpu" / name
    files = {"bin/engine": b"#!/bin/sh\n", "lib/libengine.so": b"12345"}
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    listed = json.dumps({path: [len(data), "0" * 64] for path, data in files.items()})
    (folder / "files.json").write_text(listed)
    receipt = {
        "schema": 1,
        "backend": "fake:cpu",
        "version": name,
        "python": "",
        "packages": [],
        "installed_at": "2026-01-01T00:00:00+00:00",
        "tag": name,
        "executable": "bin/engine",
        "assets": [],
        "files_sha256": hashlib.sha256(listed.encode()).hexdigest(),
    }
    (folder / "receipt.json").write_text(json.dumps(receipt))
    return folder


def test_engines_that_are_whole_and_damaged(tmp_path: Path) -> None:
    assert rules(check_engines(tmp_path / "none")) == [("note", "none-installed")]
    folder = bundle(tmp_path)
    assert rules(check_engines(tmp_path)) == []
    (folder / "lib/libengine.so").write_bytes(b"1234")
    found = check_engines(tmp_path)
    assert rules(found) == [("error", "broken"), ("note", "none-installed")]
    assert one(found, "broken").evidence[0].path == str(folder / "lib/libengine.so")
    assert "lemonade backends install fake:cpu --force" in one(found, "broken").fix
    bundle(tmp_path, "b2")
    assert rules(check_engines(tmp_path)) == [("error", "broken")]
    (folder / "receipt.json").write_text("{")
    assert rules(check_engines(tmp_path)) == [("error", "broken")]
    assert (folder / "receipt.json").read_text() == "{"
    (folder / "receipt.json").unlink()
    assert rules(check_engines(tmp_path)) == [("note", "unknown")]


def test_an_environment_without_one_of_its_packages(tmp_path: Path) -> None:
    folder = tmp_path / "fake" / "pip" / "1.0"
    site = folder / "venv/lib/python3.11/site-packages"
    (site / "Some_Engine-1.0.dist-info").mkdir(parents=True)
    python = folder / "venv/bin/python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    package = {"name": "some.engine", "version": "1.0", "file": "x.whl", "sha256": ""}
    receipt = {"schema": 1, "backend": "fake:pip", "version": "1.0", "python": "3.11"}
    receipt |= {"packages": [package], "installed_at": ""}
    (folder / "receipt.json").write_text(json.dumps(receipt))
    assert rules(check_engines(tmp_path)) == []
    package["name"] = "other"
    (folder / "receipt.json").write_text(json.dumps(receipt))
    python.unlink()
    evidence = one(check_engines(tmp_path), "broken").evidence
    assert [Path(e.path).name for e in evidence] == ["python", "package other 1.0"]


def test_what_installations_left(tmp_path: Path) -> None:
    bundle(tmp_path)
    folder = tmp_path / "fake" / "cpu"
    (folder / ".staging-b2-0a1b").mkdir()
    (tmp_path / ".downloads" / "fake").mkdir(parents=True)
    write(tmp_path, "old/rocm/version.txt", "b1\n")
    assert rules(check_engines(tmp_path)) == [("note", "leftover"), ("note", "flat")]
    with FileLock(folder / ".lock"):
        assert rules(check_engines(tmp_path)) == [("note", "under-way"), ("note", "flat")]


# ---- orphans


def record(process: subprocess.Popen[bytes], **changes: object) -> Record:
    seen = read_process(process.pid)
    assert seen is not None
    program = Path(sys.executable).resolve()
    base = Record(
        child=ChildId("tiny-1"),
        name="Tiny",
        owner=replace(Owner.ourselves(), identity=NOBODY),
        leader=seen.identity,
        executables=(str(program),),
        executable_root=str(program.parent),
        argv0=sys.executable,
        port=1,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_orphans_are_named_and_not_ended(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; print(1, flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            ledger = Ledger(tmp_path)
            true = record(process)
            ledger.write(true)
            found = check_orphans(tmp_path)
            assert rules(found) == [("warning", "left-behind")]
            assert f"`kill {process.pid}`" in found[0].fix

            # another process that got the number, a living server, and a world we cannot see
            other = replace(true.leader, start_ticks=true.leader.start_ticks - 1)
            ledger.write(replace(true, leader=other))
            assert rules(check_orphans(tmp_path)) == []
            ledger.write(replace(true, owner=Owner.ourselves()))
            (fine,) = check_orphans(tmp_path)
            assert "Tiny run under their server" in fine.reason
            ledger.write(replace(true, owner=replace(true.owner, namespace="pid:[1]")))
            assert rules(check_orphans(tmp_path)) == [("note", "not-seen")]
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()
    ledger.write(true)
    assert rules(check_orphans(tmp_path)) == []
    (tmp_path / "broken.json").write_text("{")
    assert rules(check_orphans(tmp_path)) == [("note", "unreadable")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.json", "tiny-1.json"]
