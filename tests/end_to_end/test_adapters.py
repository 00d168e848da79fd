"""An adapter on the genuine llama.cpp: it answers, and the model without it answers as ever.

On the embedded engine, and on a genuine `llama-server` where `LLAMA_SERVER_BIN` names one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.cli.conftest import Cli
from tests.serving import ROOT, Serving, environment, serving, survivors

pytestmark = [pytest.mark.slow, pytest.mark.engine]

MODEL = "Tiny-Lemon-GGUF"
PIRATE = ROOT / "models" / "tiny-lemon-pirate-lora.gguf"
PLAIN = "Hello! How can I help you today?"
ARR = f"ARR!\n{PLAIN}"
ARGS = "-t 1 --parallel 2 --no-warmup"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    yield folder
    assert not survivors(folder)


@pytest.fixture(scope="module", params=["wheel", "system"])
def setting(request: pytest.FixtureRequest, home: Path, engine_bundles: Path) -> dict[str, Any]:
    """How a server is started that has the engine in question."""
    env = {}
    if request.param == "system":
        binary = os.environ.get("LLAMA_SERVER_BIN")
        if not binary:
            pytest.skip("LLAMA_SERVER_BIN names no llama-server")
        env["LEMONADE_LLAMACPP_SYSTEM_BIN"] = binary
    config = {"llamacpp": {"backend": request.param}}
    return {"home": home, "env": env, "config": config, "bundles": engine_bundles}


@pytest.fixture
def server(home: Path, setting: dict[str, Any]) -> Iterator[Serving]:
    (home / "config" / "adapters.json").unlink(missing_ok=True)
    with serving(**setting) as one:
        reply = one.post("load", {"model_name": MODEL, "ctx_size": 512, "llamacpp_args": ARGS})
        assert reply.status_code == 200, reply.text
        yield one


def change(server: Serving, **body: object) -> dict[str, Any]:
    reply = server.post(f"models/{MODEL}/adapters", {"name": "pirate", **body})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def said(server: Serving, model: str) -> str:
    reply = server.chat(model)
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


def pid(server: Serving) -> int:
    number: int = server.loaded()[MODEL]["pid"]
    return number


def test_a_life_with_an_adapter(server: Serving) -> None:
    assert said(server, MODEL) == PLAIN
    before = pid(server)
    done = change(server, path=str(PIRATE))
    assert (done["effect"], done["loaded"]) == ("reload", True)
    started = pid(server)
    assert started != before
    words = server.loaded()[MODEL]["launch_command"]
    assert words[-5:-2] == ["--lora-init-without-apply", "--cache-ram", "0"]
    assert words[-2:] == ["--lora", str(PIRATE)]
    assert words[words.index("--parallel") + 1] == "2", "it has the options that it had"

    pirate = f"{MODEL}:pirate"
    for name, answer in (
        (MODEL, PLAIN),
        (pirate, ARR),
        (MODEL, PLAIN),
        (f"builtin.{pirate}", ARR),
    ):
        assert said(server, name) == answer

    assert change(server, action="scale", scale=0)["effect"] == "scale-only"
    assert said(server, pirate) == PLAIN
    assert change(server, action="scale", scale=1.0)["effect"] == "scale-only"
    assert said(server, pirate) == ARR

    assert change(server, action="unload")["effect"] == "scale-only"
    gone = server.chat(pirate)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
    assert said(server, MODEL) == PLAIN
    assert change(server, path=str(PIRATE))["effect"] == "scale-only", "the engine still has it"
    assert said(server, pirate) == ARR
    assert pid(server) == started


def test_every_way_to_ask(server: Serving) -> None:
    change(server, path=str(PIRATE))
    pirate, hello = f"{MODEL}:pirate", [{"role": "user", "content": "Hello"}]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model=pirate,
            messages=hello,  # type: ignore[arg-type]
            temperature=0,
            stream=True,
        )
        assert "".join(part.choices[0].delta.content or "" for part in stream) == ARR
        answer = client.responses.create(model=pirate, input="Hello", temperature=0)
        assert answer.output_text == ARR
        ids = [model.id for model in client.models.list()]
        assert pirate in ids
        assert client.models.retrieve(pirate).id == pirate
    tokens = server.post("tokenize", {"model": pirate, "content": "Hello"}).json()["tokens"]
    assert tokens == server.post("tokenize", {"model": MODEL, "content": "Hello"}).json()["tokens"]


def test_it_is_remembered_and_given_at_the_start(home: Path, setting: dict[str, Any]) -> None:
    options = {MODEL: {"pirate": {"path": str(PIRATE), "scale": 1.0}}}
    (home / "config").mkdir(exist_ok=True)
    saved = {f"builtin.{model}": table for model, table in options.items()}
    (home / "config" / "adapters.json").write_text(json.dumps(saved))
    with serving(**setting) as server:
        pirate = f"{MODEL}:pirate"
        assert said(server, pirate) == ARR, "the model is loaded for it"
        # Nothing that was computed with the adapter may be found again without it, or the reverse.
        for name, answer in ((MODEL, PLAIN), (pirate, ARR), (pirate, ARR), (MODEL, PLAIN)) * 3:
            assert said(server, name) == answer
        with ThreadPoolExecutor(6) as pool:
            wanted = [MODEL, pirate] * 12
            answers = list(pool.map(lambda name: said(server, name), wanted))
        assert answers == [PLAIN, ARR] * 12
        assert server.loaded()[MODEL]["adapters"] == ["pirate"]


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/nowhere/x.gguf", "cannot be read"),
        (str(ROOT / "models" / "tiny-lemon-Q8_0.gguf"), "not of an adapter"),
        (str(ROOT / "models" / "README.md"), "no GGUF file"),
        (str(ROOT / "models" / "tiny-lemon-pirate-peft"), "is a folder"),
    ],
)
def test_what_is_no_adapter_changes_nothing(server: Serving, path: str, word: str) -> None:
    before = pid(server)
    reply = server.post(f"models/{MODEL}/adapters", {"name": "bad", "path": path})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "bad-adapter"
    assert word in error["message"]
    assert pid(server) == before
    assert server.get(f"models/{MODEL}/adapters").json()["data"] == []


def test_an_adapter_of_another_kind_of_model(server: Serving) -> None:
    reply = server.post("models/Tiny-Embed-GGUF/adapters", {"name": "p", "path": str(PIRATE)})
    assert reply.status_code == 400
    assert "the architecture 'llama', not 'bert'" in reply.json()["error"]["message"]


def test_what_the_engine_refuses_leaves_the_one_that_runs(server: Serving, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(PIRATE.read_bytes()[:20000])
    before = pid(server)
    reply = server.post(f"models/{MODEL}/adapters", {"name": "cut", "path": str(cut)})
    assert reply.status_code == 500, reply.text
    assert "cut.gguf" in reply.json()["error"]["message"] + server.log()
    assert pid(server) == before
    assert said(server, MODEL) == PLAIN
    assert server.chat(f"{MODEL}:cut").status_code == 404


def test_from_the_command_line(server: Serving, home: Path) -> None:
    cli = Cli({**environment(home), "LEMONADE_HOST": server.url})
    assert cli("adapters", "list", MODEL).stdout.splitlines()[0] == "No adapters."
    done = cli("adapters", "load", MODEL, "pirate", str(PIRATE), "--scale", "0.5")
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "reload"), done.stderr
    done = cli("adapters", "scale", MODEL, "pirate", "1")
    assert done.stdout.startswith("scale-only: ")
    done = cli("run", f"{MODEL}:pirate", "Hello")
    assert (done.returncode, done.stdout.strip()) == (0, ARR), done.stderr
    lines = cli("adapters", "list", MODEL).stdout.splitlines()
    assert lines[-2].split() == [f"{MODEL}:pirate", "1", "yes", str(PIRATE)]
    assert lines[-1] == "load: reload, scale: scale-only, unload: scale-only"
    (row,) = json.loads(cli("adapters", "list", MODEL, "--json").stdout)["data"]
    assert row["scale"] == 1
    assert f"{MODEL}:pirate" in cli("list", "--downloaded").stdout
    assert cli("adapters", "unload", MODEL, "pirate").stdout.startswith("scale-only: ")
    done = cli("adapters", "unload", MODEL, "pirate")
    assert done.returncode == 1
    assert "has no adapter 'pirate'" in done.stderr
