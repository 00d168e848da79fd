"""Secrets of every kind, planted everywhere, and found nowhere."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from lemonade.core.errors import BadConfigFile
from lemonade.doctor import Surroundings, look_around, write_archive
from lemonade.doctor.contents import tail_of
from lemonade.doctor.finding import report_of
from lemonade.doctor.redaction import Redactor, is_secret_name
from lemonade.storage import Directories

PLAIN = Redactor({})

FORMS = [
    ("hf_AbCdEfGhIjKlMnOp", "loading with hf_AbCdEfGhIjKlMnOp now"),
    ("ghp_0123456789abcdef", "git clone https://ghp_0123456789abcdef@host/x"),
    ("github_pat_11AAA_bbb", "token github_pat_11AAA_bbb"),
    ("sk-proj-abc123DEF456", "key is 'sk-proj-abc123DEF456'"),
    ("opaque.value/1+2", "Authorization: Bearer opaque.value/1+2"),
    ("dXNlcjpwYXNz", "authorization: basic dXNlcjpwYXNz"),
    ("hunter2", "connecting to http://alice:hunter2@proxy:3128/"),
    ("hun@ter", "connecting to http://alice:hun@ter@proxy:3128/"),
    ("swordfish", "engine --port 1 --api-key swordfish --ctx 5"),
    ("swordfish", "engine --api-key=swordfish"),
    ("swordfish", "argv: ['engine', '--api-key', 'swordfish', '-v']"),
    ("swordfish", '{"args": "--hf-token \\"swordfish\\""}'),
    ("swordfish", '{"api_key": "swordfish"}'),
    ("swordfish", "HF_TOKEN=swordfish python x.py"),
    ("swordfish", "password: swordfish"),
    ("swordfish", "GET /x?access_token=swordfish&a=1"),
    ("swordfish", "GET https://h/f?X-Amz-Signature=swordfish"),
    ("eyJhbGciOi.eyJzdWIi.c2ln", "jwt eyJhbGciOi.eyJzdWIi.c2ln end"),
    ("MIIEow", "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"),
]


@pytest.mark.parametrize(("secret", "text"), FORMS, ids=[text[:40] for _, text in FORMS])
def test_what_looks_like_a_secret_goes(secret: str, text: str) -> None:
    shown = PLAIN.text(text)
    assert secret not in shown
    assert "[redacted]" in shown
    assert PLAIN.text(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "llama_model_loader: loaded meta data with 26 key-value pairs",
        "prompt_tokens: 5, completion_tokens: 7, max_tokens=256",
        "--ctx-size 4096 --threads 4 --max-tokens 12",
        "http://127.0.0.1:13305/v1/models?limit=5",
        "bundle b10397-sm_86 is whole",
        "2026-01-01 12:00:00 INFO lemonade.app: Lemonade 1.0 serves http://localhost:13305",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert PLAIN.text(text) == text


def test_known_secrets_go_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("file-secret-1\n")
    redactor = Redactor(
        {"LEMONADE_API_KEY": "lemon/key", "https_proxy": "http://me:p/w@h:1", "A": "harmless"},
        homes=["/home/alice"],
        user="alice",
        documents=[{"telemetry": {"otlp": {"headers": {"x": "head-secret"}}}}],
        secret_files=[tmp_path / "token", tmp_path / "none"],
    )
    text = "lemon/key lemon%2Fkey p/w file-secret-1 head-secret harmless"
    assert redactor.text(text) == "[redacted] [redacted] p/w [redacted] [redacted] harmless"
    assert "p/w" not in redactor.text("http://me:p/w@h:1")
    assert redactor.text("/home/alice/x /home/alicex alice's malice") == (
        "~/x /home/alicex [user]'s malice"
    )


def test_documents_keep_their_shape() -> None:
    value = {
        "api_key": "x",
        "headers": {"a": "b"},
        "argv": ["engine", "--api-key", "x", "--port", "1"],
        "port": 1,
        "tokens": 5,
        "list": [{"password": "x"}, None, True],
    }
    assert PLAIN.value(value) == {
        "api_key": "[redacted]",
        "headers": {"a": "[redacted]"},
        "argv": ["engine", "--api-key", "[redacted]", "--port", "1"],
        "port": 1,
        "tokens": 5,
        "list": [{"password": "[redacted]"}, None, True],
    }
    assert is_secret_name("HF_TOKEN")
    assert not is_secret_name("max_tokens")


def test_a_tail_has_whole_lines_only(tmp_path: Path) -> None:
    file = tmp_path / "x.log"
    file.write_text("first hf_secretsecret\nsecond\nthird\n")
    assert tail_of(file) == file.read_text()
    assert tail_of(file, 20) == "second\nthird\n"
    file.write_text("one line without an end")
    assert tail_of(file, 5) == ""


# ---- the whole archive

PLANTED = {
    "environment": "environment-secret-1",
    "short variable": "zq7x",
    "hub token": "hf_PlantedInVariable",
    "proxy": "proxypass99",
    "config": "config-header-secret",
    "arguments": "argument-secret-5",
    "model": "model-token-secret",
    "log bearer": "log.bearer.secret",
    "log token": "github_pat_PlantedInLog",
    "log key": "sk-plantedInTheLog",
    "known in log": "environment-secret-1",
    "token file": "plain-file-secret-7",
    "receipt": "receiptpass3",
    "user": "planteduser",
}


def planted(home: Path) -> Surroundings:
    """A machine whose every file holds a secret."""
    user = home / "home" / PLANTED["user"]
    folders = Directories(user / "cache", user / "config", user / "run", user / "state")
    for folder in (user / "state/logs", user / "state/children", user / "run", user / "config"):
        folder.mkdir(parents=True)
    (user / "config/config.json").write_text(
        json.dumps(
            {
                "telemetry": {"otlp": {"headers": {"x-auth": PLANTED["config"]}}},
                "llamacpp": {"args": f"--threads 1 --api-key {PLANTED['arguments']}"},
            }
        )
    )
    (user / "config/user_models.json").write_text(
        json.dumps({"m": {"checkpoint": "a/b", "token": PLANTED["model"]}})
    )
    (user / "state/logs/m.log").write_text(
        f"Authorization: Bearer {PLANTED['log bearer']}\n{PLANTED['log token']}\n"
        f"{PLANTED['log key']} {PLANTED['known in log']}\n{user}/models {PLANTED['config']}\n"
        f"the words stay\n"
    )
    (user / "run/server.log").write_text(f"who: {PLANTED['user']}, {PLANTED['proxy']}\n")
    (user / "hf").mkdir()
    (user / "hf/token").write_text(PLANTED["token file"])
    (user / "state/logs/n.log").write_text(PLANTED["token file"])
    bundle = user / "cache/bin/fake/cpu/b1"
    bundle.mkdir(parents=True)
    asset = {"name": "a", "url": f"https://u:{PLANTED['receipt']}@host/a?sig=x"}
    (bundle / "receipt.json").write_text(json.dumps({"schema": 1, "assets": [asset]}))
    (user / "state/children/x.json").write_text(json.dumps({"argv0": f"{user}/engine"}))
    environ = {
        "HOME": str(user),
        "LEMONADE_API_KEY": PLANTED["environment"],
        "LEMONADE_ADMIN_API_KEY": PLANTED["short variable"],
        "HF_TOKEN": PLANTED["hub token"],
        "HF_HOME": str(user / "hf"),
        "https_proxy": f"http://me:{PLANTED['proxy']}@proxy:3128",
        "PIP_INDEX_URL": f"https://me:{PLANTED['proxy']}@index/simple",
        "HIP_VISIBLE_DEVICES": "0",
        "SOMETHING_ELSE": "never-collected",
    }
    here = look_around(folders, environ, "1.0")
    from dataclasses import replace

    return replace(here, user=replace(here.user, name=PLANTED["user"]))


def test_nothing_planted_is_in_the_archive(tmp_path: Path) -> None:
    here, path = planted(tmp_path), tmp_path / "support.tar.gz"
    names = write_archive(path, here, report_of("1.0", []))
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        members = {m.name: archive.extractfile(m) for m in archive.getmembers()}
        texts = {name: file.read().decode() for name, file in members.items() if file}
        assert {(m.uid, m.gid, m.uname, m.mode) for m in archive.getmembers()} == {
            (0, 0, "", 0o600)
        }
    assert len(texts) == len(names)
    haystack = path.read_bytes().decode("latin-1") + "".join(
        f"{name}\n{text}" for name, text in texts.items()
    )
    for kind, secret in PLANTED.items():
        assert secret not in haystack, kind
    assert "never-collected" not in haystack
    # and what helps is in it
    read = {name.partition("/")[2]: text for name, text in texts.items()}
    assert "the words stay" in read["logs/engines/m.log"]
    variables = json.loads(read["environment.json"])["variables"]
    assert variables["HIP_VISIBLE_DEVICES"] == "0"
    assert variables["LEMONADE_API_KEY"] == "[redacted]"
    config = json.loads(read["config/config.json"])
    assert config["llamacpp"]["args"] == "--threads 1 --api-key [redacted]"
    assert json.loads(read["directories.json"])["cache"].endswith("/cache")
    assert json.loads(read["bundles.json"])[0]["backend"] == "fake:cpu"
    assert json.loads(read["children.json"])[0]["state"] == "damaged"
    assert {row["id"] for row in json.loads(read["backends.json"])}
    assert json.loads(read["hardware.json"])["cpu"]["cores"] > 0


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    here, path = planted(tmp_path), tmp_path / "support.tar.gz"
    path.write_text("mine")
    with pytest.raises(BadConfigFile, match="not replaced"):
        write_archive(path, here, report_of("1.0", []))
    assert path.read_text() == "mine"
    write_archive(path, here, report_of("1.0", []), replace=True)
    assert tarfile.is_tarfile(path)
    with pytest.raises(BadConfigFile, match="cannot be written"):
        write_archive(tmp_path / "no" / "x.tar.gz", here, report_of("1.0", []))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "support.tar.gz"]
