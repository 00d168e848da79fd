"""With a trusted key, what comes from outside the package must be signed; else it is refused."""

from __future__ import annotations

import base64
import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from lemonade.catalog import Catalog, shipped, trusted
from lemonade.catalog.minisign import read_key, read_signature, verify
from lemonade.catalog.trust import Trust
from lemonade.core.errors import BadConfigFile, BadDescriptor
from lemonade.core.ids import BackendId
from tests.unit.catalog.conftest import BACKEND, RECIPE, Folder
from tests.unit.catalog.signing import Signer

CPU = BackendId("brew", "cpu")
PACKAGES = 'source = "pypi"\nversion = "1"\nlock = "mine.lock"'
MINE = BACKEND.replace("Brewer on the processor", "Mine")

# Made by the program itself: its public key, a file, and both kinds of signatures.
REAL_KEY = "RWSe+GKxh66qIB+9s6iTHniMQOo4ZzuzMEHhucPR8+U2hsXsdHHp6QY2"
REAL_FILE = b"hello = 1\n"
REAL_HASHED = b"""\
untrusted comment: signature from minisign secret key
RUSe+GKxh66qIDOfoB1Z0ajZqXJZYxV+BMKqpvZCbmwHCpQAdwKgMnqH4513E6Z+63Lm/z6RLUNd22dbbzEXNjlSCjcxrgiKcAE=
trusted comment: timestamp:1795258583\tfile:a.toml\thashed
9rW1rRzzgv11wP1GD6cRms8HGAOcuSnwchCvwvmSrUhTQPddCmJc79hYZvfaH9EJj8b5uorn4BEfxpje0j0vDg==
"""
REAL_LEGACY = b"""\
untrusted comment: signature from minisign secret key
RWSe+GKxh66qIFJRxdejsYlOKFA2VYC6Ait/d/Tywez/EVq/LQ9h5lBqP4mPPPN3BTc9gjUQWj0T+X1VHlmxUKGmk0Ah9IeRYA0=
trusted comment: my comment
qEJIdrq/vnU2mutDWkkNItuuQiuN2+4hbRaQB2R17KHgyJiKj7+R4PLjjHFNMUE3fwQhbHymBXsuQR8OfTxVBw==
"""


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
def trust(folder: Folder, signer: Signer) -> Trust:
    """Trusts the signer; what is in `folder` counts as the package."""
    return Trust([read_key(signer.line)], packaged=folder.path)


@pytest.fixture
def mine(overlay: Folder) -> Path:
    """A backend from outside the package."""
    return overlay.write("backends/mine.toml", MINE)


def load(folder: Folder, overlay: Folder, trust: Trust) -> Catalog:
    return Catalog.load([folder.path, overlay.path], trust)


@pytest.mark.parametrize("legacy", [False, True], ids=["hashed", "legacy"])
def test_what_is_signed_is_used(folder, overlay, trust, signer, mine, legacy):
    signer.sign(mine, legacy=legacy)
    assert load(folder, overlay, trust).backend(CPU).title == "Mine"


@pytest.mark.parametrize("signature", [REAL_HASHED, REAL_LEGACY], ids=["hashed", "legacy"])
def test_signatures_of_the_program_itself(signature):
    key = read_key(REAL_KEY)
    assert key.name == read_signature(signature).key_name == "20AAAE87B162F89E"
    verify(key, read_signature(signature), REAL_FILE)
    verify(key, read_signature(signature.replace(b"\n", b"\r\n")), REAL_FILE)
    with pytest.raises(ValueError, match="not of this content"):
        verify(key, read_signature(signature), REAL_FILE + b" ")
    changed = signature.replace(b"\ntrusted comment: ", b"\ntrusted comment: Not ")
    with pytest.raises(ValueError, match="comment was changed"):
        verify(key, read_signature(changed), REAL_FILE)


def test_the_package_needs_no_signature_and_nobody_else_does_without_keys(
    folder, overlay, trust, mine, signer, caplog
):
    assert folder.load().backend(CPU)
    assert Catalog.load([folder.path], trust).backend(CPU)
    signer.sign(mine).write_text("nonsense")
    with caplog.at_level(logging.INFO):
        assert load(folder, overlay, Trust()).backend(CPU).title == "Mine"
    assert "mine.toml is signed, and no key is configured" in caplog.text


def test_only_the_folders_of_the_package_are_the_package(folder, trust):
    inside = folder.write("config/backends/mine.toml", MINE)
    with pytest.raises(BadDescriptor, match=r"mine\.toml is not used, because it is not signed"):
        Catalog.load([folder.path, folder.path / "config"], trust)
    assert trust.covers(inside)
    assert trust.covers(folder.path / "backends" / ".." / ".." / "own" / "backends" / "x.toml")
    assert not trust.covers(folder.path / "backends" / "brew-cpu.toml")


def altered(path: Path, line: int, change) -> None:
    lines = path.read_text().splitlines()
    lines[line] = change(lines[line])
    path.write_text("\n".join(lines) + "\n")


def flipped(text: str) -> str:
    """Base64 with one bit of its last whole group changed."""
    raw = bytearray(base64.b64decode(text))
    raw[-1] ^= 1
    return base64.b64encode(raw).decode()


ALTERED = [
    ("its trusted comment was changed", 2, lambda line: f"{line} indeed"),
    ("its trusted comment was changed", 3, flipped),
    ("it is not of this content", 1, flipped),
    ("its second line is not base64", 1, lambda _: "???"),
    ("its second line has 3 bytes instead of 74", 1, lambda _: "QUJD"),
    ("its fourth line has 3 bytes instead of 64", 3, lambda _: "QUJD"),
    ("its algorithm is unknown", 1, lambda line: "QQ" + line[2:]),
    ("its third line is not a trusted comment", 2, lambda _: "comment: x"),
    ("its first line is not an untrusted comment", 0, lambda _: "x"),
    ("has 4 lines, and it has 5", 0, lambda line: f"{line}\n{line}"),
]


@pytest.mark.parametrize(("reason", "line", "change"), ALTERED)
def test_a_signature_that_was_altered(folder, overlay, trust, signer, mine, reason, line, change):
    altered(signer.sign(mine), line, change)
    with pytest.raises(BadDescriptor) as caught:
        load(folder, overlay, trust)
    assert caught.value.message.startswith(f"{mine} is not used, because its signature mine.toml")
    assert reason in caught.value.message
    assert "minisign -S" in caught.value.remedy
    assert caught.value.facts == {"file": str(mine)}


def test_a_comment_nobody_vouches_for_may_be_anything(folder, overlay, trust, signer, mine):
    altered(signer.sign(mine), 0, lambda line: f"{line}, says somebody")
    load(folder, overlay, trust)


@pytest.mark.parametrize("legacy", [False, True], ids=["hashed", "legacy"])
def test_a_file_that_was_altered(folder, overlay, trust, signer, mine, legacy):
    signer.sign(mine, legacy=legacy)
    mine.write_text(MINE + "# more\n")
    with pytest.raises(BadDescriptor, match="is not valid: it is not of this content"):
        load(folder, overlay, trust)


def test_a_file_that_is_not_signed_by_whom_it_should(folder, overlay, trust, mine):
    with pytest.raises(BadDescriptor, match=r"there is no mine\.toml\.minisig beside it"):
        load(folder, overlay, trust)
    Signer(b"somebody").sign(mine)
    with pytest.raises(BadDescriptor, match="the key 79646F62656D6F73 it was made with is not"):
        load(folder, overlay, trust)
    Signer().sign(mine)  # a key of another that says it is ours
    with pytest.raises(BadDescriptor, match="it is not of this content"):
        load(folder, overlay, trust)
    (mine.parent / "mine.toml.minisig").write_bytes(b"\xff\xfe")
    with pytest.raises(BadDescriptor, match="it is not a text"):
        load(folder, overlay, trust)
    (mine.parent / "mine.toml.minisig").unlink()
    (mine.parent / "mine.toml.minisig").mkdir()
    with pytest.raises(BadDescriptor, match=r"mine\.toml\.minisig cannot be read: Is a directory"):
        load(folder, overlay, trust)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("recipes/brew.toml", RECIPE),
        ("server_models.json", "{}"),
        ("vllm_model_config.json", '{"schema_version": 1}'),
    ],
)
def test_every_kind_of_declaration_is_asked(folder, overlay, trust, signer, name, text):
    folder.write("recipes/brew.toml", 'families = "vllm_model_config.json"\n' + RECIPE)
    if name.startswith("recipes"):
        text = 'families = "vllm_model_config.json"\n' + text
    path = overlay.write(name, text)
    with pytest.raises(BadDescriptor, match="is not signed"):
        load(folder, overlay, trust)
    signer.sign(path)
    load(folder, overlay, trust)


def test_what_lies_beside_a_signed_descriptor_is_bound_to_it(folder, overlay, trust, signer):
    text = MINE.replace("{executable}", "{executable} {overlay}")
    program = overlay.write("backends/mine.overlay/bin/run.py", "print('mine')\n")
    mine = overlay.write("backends/mine.toml", text)
    signer.sign(mine)
    with pytest.raises(BadDescriptor, match=r"mine\.overlay/bin/run\.py belongs to it"):
        load(folder, overlay, trust)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    named = f'{text}\n[files]\n"mine.overlay/bin/run.py" = "{digest}"\n'
    signer.sign(overlay.write("backends/mine.toml", named))
    load(folder, overlay, trust)
    cached = overlay.write("backends/mine.overlay/bin/__pycache__/run.pyc", "hidden")
    with pytest.raises(BadDescriptor, match=r"__pycache__/run\.pyc belongs to it"):
        load(folder, overlay, trust)
    cached.unlink()
    link = overlay.path / "backends" / "mine.overlay" / "elsewhere"
    link.symlink_to("/tmp")
    with pytest.raises(BadDescriptor, match=r"mine\.overlay/elsewhere belongs to it"):
        load(folder, overlay, trust)
    link.unlink()
    program.write_text("print('yours')\n")
    for judged in (trust, Trust()):  # a digest that is given holds in any case
        with pytest.raises(BadDescriptor, match=r"run\.py': the file has another SHA-256"):
            load(folder, overlay, judged)
    program.unlink()
    with pytest.raises(BadDescriptor, match=r"run\.py': the file cannot be read: No such file"):
        load(folder, overlay, Trust())


def test_keys_of_all_places_are_trusted(folder, overlay, tmp_path, mine):
    one, two = Signer(b"11111111"), Signer(b"22222222")
    config = tmp_path / "config"
    config.mkdir()
    (config / "trusted_keys").write_text(f"# the shop\n\n{one.line}  \n")
    (tmp_path / "minisign.pub").write_text(two.pub_file)
    trust = trusted({"LEMONADE_TRUSTED_KEYS": str(tmp_path / "minisign.pub")}, config)
    for signer in (one, two):
        signer.sign(mine)
        trust.check(mine, mine.read_bytes())
    assert not trust.covers(shipped() / "backends" / "any.toml")
    Signer(b"33333333").sign(mine)
    with pytest.raises(BadDescriptor, match="not a trusted one"):
        trust.check(mine, mine.read_bytes())


def test_without_files_of_keys_nothing_is_asked(tmp_path):
    if Path("/etc/lemonade/trusted_keys").exists():
        pytest.skip("this machine trusts keys")
    assert not trusted({}, tmp_path).covers(tmp_path / "backends" / "x.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# nobody\n", "holds no key"),
        ("# ours\nhello there\n", "line 2, is not a public key: it is not base64"),
        ("QUJD\n", "line 1, is not a public key: a public key of minisign has 42 bytes"),
        (f"{base64.b64encode(b'XX' + bytes(40)).decode()}\n", "not of the algorithm Ed25519"),
        ("ssh-ed25519 AAAA me@here\n", "line 1"),
    ],
)
def test_a_file_of_keys_that_holds_something_else(tmp_path, text, told):
    path = tmp_path / "trusted_keys"
    path.write_text(text)
    with pytest.raises(BadConfigFile) as caught:
        trusted({}, tmp_path)
    assert str(path) in caught.value.message
    assert told in caught.value.message


def test_a_file_of_keys_that_is_named_and_not_there(tmp_path):
    with pytest.raises(BadConfigFile, match=r"keys in /no/such/keys cannot be read: No such file"):
        trusted({"LEMONADE_TRUSTED_KEYS": "/no/such/keys"}, tmp_path)
    (tmp_path / "trusted_keys").write_bytes(b"\xff")
    with pytest.raises(BadConfigFile, match="cannot be read"):
        trusted({}, tmp_path)


@pytest.mark.slow
def test_a_start_without_keys_does_not_load_the_library():
    code = (
        "import sys; from pathlib import Path; from lemonade.catalog import *;"
        "Catalog.load([shipped()], trusted({}, Path('/no/such')));"
        "print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_lock_is_bound_to_its_descriptor(folder, overlay, trust, signer):
    text = BACKEND.replace("Brewer on the processor", "Mine")
    text = text.replace('source     = "system"\nexecutable = "brew"', PACKAGES)
    text = text.replace("{executable}", "{python}")
    lock = overlay.write("backends/mine.lock", f"brew==1 --hash=sha256:{'a' * 64}\n")
    signer.sign(overlay.write("backends/mine.toml", text))
    with pytest.raises(BadDescriptor, match=r"mine\.lock belongs to it"):
        load(folder, overlay, trust)
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    signer.sign(
        overlay.write("backends/mine.toml", f'{text}\n[files]\n"mine.lock" = "{digest}"\n')
    )
    assert load(folder, overlay, trust).backend(CPU).pin.locked[0].name == "brew"
