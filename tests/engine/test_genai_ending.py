"""How the server around ONNX Runtime GenAI starts and ends, and what it refuses to start with."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lemonade.catalog import Catalog, shipped
from tests.engine.children import PATIENCE, Child, model, outcome, running
from tests.engine.install import GENAI
from tests.engine.test_ending import PARENT
from tests.serving import eventually, gone

pytestmark = pytest.mark.engine

MODEL = "tiny-lemon-oga-int4"
ENDLESS = {
    "messages": [{"role": "user", "content": "Tell me a story about a fox"}],
    "stream": True,
    "ignore_eos": True,
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_idle(genai: tuple[str, ...], number: signal.Signals) -> None:
    with running(genai, MODEL) as child:
        child.process.send_signal(number)
        assert child.process.wait(PATIENCE) == 0


def test_term_with_a_stream_open(genai: tuple[str, ...]) -> None:
    with running(genai, MODEL) as child:
        reply = child.post("/v1/chat/completions", ENDLESS, stream=True)
        assert next(reply.iter_lines()).startswith(b"data: ")
        child.process.send_signal(signal.SIGTERM)
        assert child.process.wait(PATIENCE) == 0
        reply.close()


def test_the_parent_is_killed(genai: tuple[str, ...]) -> None:
    arguments = ("-m", model(MODEL), "--port", "0", "-t", "1")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *genai, *arguments], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
        parent.wait(PATIENCE)
        eventually(lambda: gone(pid), "the child ends with its parent")


def test_it_listens_on_the_loopback_only(genai_child: Child) -> None:
    inodes = {
        fields[1]
        for line in Path(f"/proc/{genai_child.process.pid}/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and fields[1].endswith(port_of(genai_child))
    }
    assert {address.partition(":")[0] for address in inodes} == {"0100007F"}


def test_nothing_of_a_request_is_logged(genai: tuple[str, ...]) -> None:
    with running(genai, MODEL, "--verbose") as child:
        body = {"messages": [{"role": "user", "content": "a very private question"}]}
        assert child.post("/v1/chat/completions", body).status_code == 200
        child.process.send_signal(signal.SIGTERM)
        assert child.process.stderr is not None
        log = child.process.stderr.read()
    assert "POST /v1/chat/completions 200" in log
    assert "private" not in log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["stray", "-m", "x"], "unrecognized arguments: stray"),
        (["--ctx", "5"], "unrecognized arguments: --ctx"),
        ([], "--model is required"),
        (["-m"], "expected one argument"),
        (["-m", "/nowhere"], "/nowhere is no folder"),
        (["-m", "x", "--port", "70000"], "70000 is not between 0 and 65535"),
        (["-m", "x", "--port", "many"], "'many' is not a whole number"),
        (["-m", "x", "--ctx-size", "-1"], "is not between 0 and"),
        (["-m", "x", "--parallel", "0"], "is not between 1 and 64"),
    ],
)
def test_refusals(genai: tuple[str, ...], arguments: list[str], said: str) -> None:
    status, output, errors = outcome(genai, *arguments)
    assert (status, output) == (1, "")
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_a_folder_of_folders_says_which(genai: tuple[str, ...]) -> None:
    status, _, errors = outcome(genai, "-m", str(shipped() / "models"))
    assert status == 1
    assert f"; {model(MODEL)} has" in errors


@pytest.mark.parametrize("damage", ["weights", "configuration", "tokenizer"])
def test_a_damaged_model(genai: tuple[str, ...], tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(model(MODEL), folder)
    match damage:
        case "weights":
            (folder / "model.onnx").write_bytes(b"no model")
        case "configuration":
            (folder / "genai_config.json").write_text("{")
        case _:
            (folder / "tokenizer.json").unlink()
    status, output, errors = outcome(genai, "-m", str(folder), "--port", "0")
    assert (status, output) == (1, "")
    assert errors.splitlines()[-1].startswith("error: the model cannot be loaded: ")
    assert "Traceback" not in errors


def test_port_taken(genai: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, _, errors = outcome(genai, "-m", model(MODEL), "--port", port)
    assert status == 1
    (line,) = errors.splitlines()
    assert f"127.0.0.1:{port} cannot be listened on" in line


def test_the_context_is_that_of_the_model_at_most(genai: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "short"
    shutil.copytree(model(MODEL), folder)
    document = json.loads((folder / "genai_config.json").read_text())
    document["model"]["context_length"] = document["search"]["max_length"] = 512
    (folder / "genai_config.json").chmod(0o644)
    (folder / "genai_config.json").write_text(json.dumps(document))
    for words in ((), ("--ctx-size", "4096")):
        with running(genai, str(folder), *words) as child:
            (row,) = child.get("/v1/models").json()["data"]
            assert row["max_model_len"] == 512


def test_version(genai: tuple[str, ...]) -> None:
    (package, *_) = Catalog.load((shipped(),)).backend(GENAI).pin.packages
    status, output, errors = outcome(genai, "--version")
    assert (status, output, errors) == (0, package.replace("==", " ") + "\n", "")


def port_of(child: Child) -> str:
    return f":{int(child.url.rpartition(':')[2]):04X}"
