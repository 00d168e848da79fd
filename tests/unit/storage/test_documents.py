"""Documents are old or new, never half; what cannot be read is put aside."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.core.errors import BadConfigFile
from lemonade.storage import read_json, write_json

ROOT = Path(__file__).resolve().parents[3]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_what_is_written_is_read(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.json"
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_bytes().endswith(b"\n")


def test_no_file_is_nothing(tmp_path):
    assert read_json(tmp_path / "none.json") is None


def test_the_folder_is_made(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"x": 1})
    assert read_json(tmp_path / "a" / "b.json") == {"x": 1}


def test_only_the_owner_may_read_it(tmp_path):
    write_json(tmp_path / "a.json", {})
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o600
    write_json(tmp_path / "a.json", {}, mode=0o644)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o644


def test_text_is_readable_for_people(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Zitronenlimonäde 🍋"})
    assert "Zitronenlimonäde 🍋" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"null", b'"text"', b"\xff\xfe", b"{'a': 1}", b"[" * 100_000],
    ids=["empty", "cut", "list", "null", "text", "bytes", "quotes", "deep"],
)
def test_what_is_no_object_is_put_aside(tmp_path, caplog, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert read_json(path) is None
    assert not path.exists()
    assert (tmp_path / "config.json.corrupted").read_bytes() == content
    assert "config.json.corrupted" in caplog.text


def test_a_folder_in_its_place_is_an_error(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(BadConfigFile, match="cannot be read"):
        read_json(tmp_path / "config.json")


def test_a_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfigFile, match=r"file/config\.json cannot be written"):
        write_json(tmp_path / "file" / "config.json", {})


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(BadConfigFile):
        write_json(tmp_path / "config.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_link_is_followed(tmp_path):
    real = tmp_path / "dotfiles" / "config.json"
    real.parent.mkdir()
    real.write_text("{}")
    link = tmp_path / "config.json"
    link.symlink_to(real)
    write_json(link, {"x": 1})
    assert link.is_symlink()
    assert json.loads(real.read_text()) == {"x": 1}


def test_leftovers_of_killed_writers_are_swept(tmp_path):
    old, young, foreign = (
        tmp_path / name for name in (".a.json.1f.tmp", ".a.json.2f.tmp", ".b.json.3f.tmp")
    )
    for path in (old, young, foreign):
        path.write_text("{")
    for path in (old, foreign):
        os.utime(path, (1, 1))
    write_json(tmp_path / "a.json", {})
    assert not old.exists()
    assert young.exists(), "another writer may be at it"
    assert foreign.exists(), "it is not ours"


WRITER = """
import sys
from pathlib import Path
from lemonade.storage import write_json
path, n = Path(sys.argv[1]), int(sys.argv[2])
while True:
    n += 1
    write_json(path, {"n": n, "payload": [n] * 5000})
"""


@pytest.mark.slow
def test_a_reader_sees_the_old_document_or_the_new_one_when_the_writer_is_killed(tmp_path):
    path = tmp_path / "ledger.json"
    write_json(path, {"n": 0, "payload": []})
    seen = 0
    for rounds in range(12):
        with subprocess.Popen([sys.executable, "-c", WRITER, path, str(seen)], cwd=ROOT) as writer:
            while True:
                document = json.loads(path.read_bytes())
                assert set(document["payload"]) <= {document["n"]}
                assert len(document["payload"]) in (0, 5000)
                if document["n"] > seen + rounds % 4:
                    break
            writer.send_signal(signal.SIGKILL)
        seen = json.loads(path.read_bytes())["n"]


FILLER = """
import sys
from pathlib import Path
from lemonade.core.errors import OutOfDisk
from lemonade.storage import read_json, write_json
path = Path(sys.argv[1]) / "a.json"
write_json(path, {"x": 1})
try:
    write_json(path, {"x": "y" * 100_000})
except OutOfDisk as error:
    print(error)
print(read_json(path), [p.name for p in path.parent.iterdir()])
"""


@pytest.mark.slow
def test_a_full_disk_keeps_the_old_document(tmp_path):
    mount = f"mount -t tmpfs -o size=16k tmpfs {tmp_path}"
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this host lets nobody mount a small disk")
    script = f'{mount} && exec "$0" -c "$1" {tmp_path}'
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable, FILLER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told, after = result.stdout.splitlines()
    assert "no space left" in told
    assert after == "{'x': 1} ['a.json']"


def test_what_was_put_aside_before_stays(tmp_path):
    path = tmp_path / "models.json"
    for content in ("precious {", "nothing {", *(str(number) for number in range(9))):
        path.write_text(content)
        assert read_json(path) is None
    assert (tmp_path / "models.json.corrupted").read_text() == "precious {"
    assert (tmp_path / "models.json.corrupted-2").read_text() == "nothing {"
    assert len(list(tmp_path.iterdir())) == 9
