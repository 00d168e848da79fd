"""Whatever clients send: the documented answer, a sentence to act on, and nothing is disturbed."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.serving import ROOT, Serving, serving, survivors

pytestmark = pytest.mark.engine

WARM = "Tiny-Lemon-GGUF"
MODELS = ROOT / "models"
LEMON = (MODELS / "tiny-lemon-Q8_0.gguf").read_bytes()
MAX_BODY = 1 << 30


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, engine_bundles: Path) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("bad")
    extra = home / "extra"
    extra.mkdir()
    (extra / "cut.gguf").write_bytes(LEMON[: len(LEMON) // 2])
    (extra / "garbage.gguf").write_bytes(LEMON[:400] + b"\xff" * 9000)
    (extra / "page.gguf").write_bytes(b"<html>not a model</html>")
    shutil.copy(MODELS / "tiny-lemon-Q8_0.gguf", extra / "whole.gguf")
    with serving(home, config={"extra_models_dir": str(extra)}, bundles=engine_bundles) as one:
        yield one
    assert not survivors(home)
    assert "Traceback" not in one.log()


@pytest.fixture
def server(running: Serving) -> Iterator[Serving]:
    """With a model that is loaded before the test, and must be afterwards, in the same process."""
    loaded = running.post("load", {"model_name": WARM})
    assert loaded.status_code == 200
    pid = running.loaded()[WARM]["pid"]
    yield running
    assert requests.get(f"{running.url}/live", timeout=10).json() == {"status": "ok"}
    assert {name: row["pid"] for name, row in running.loaded().items()} == {WARM: pid}
    answered = running.chat(WARM).json()["choices"][0]["message"]["content"]
    assert answered == "Hello! How can I help you today?"


STRING, OBJECT = "string", "object"

ROUTES = {
    "load": OBJECT,
    "unload": STRING,
    "pull": STRING,
    "delete": STRING,
    "install": STRING,
    "uninstall": STRING,
    "chat/completions": OBJECT,
    "completions": OBJECT,
    "responses": OBJECT,
    "embeddings": OBJECT,
    "rerank": OBJECT,
    "reranking": OBJECT,
    "reranker": OBJECT,
    "tokenize": OBJECT,
    "/internal/set": STRING,
    "/internal/pin": OBJECT,
}
"""Every route that reads a JSON body, and the shape of its errors."""

EMPTY_IS_FINE = ("unload",)
"""It means everything there."""

BODIES = {
    "empty": b"",
    "blank": b" \n",
    "null": b"null",
    "cut": b'{"model": ',
    "an array": b'["model"]',
    "a string": b'"model"',
    "a number": b"12",
    "true": b"true",
    "a form": b"model=x&stream=true",
    "not UTF-8": b'{"model": "\xff\xfe"}',
    "Latin-1": '{"model": "\u00e9"}'.encode("latin-1"),
    "UTF-16": '{"model": "x"}'.encode("utf-16"),
    "deep arrays": b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "NaN": b'{"model": NaN}',
    "a number beyond doubles": b'{"model": 1e999}',
    "five thousand digits": b'{"model": ' + b"9" * 5000 + b"}",
    "half a surrogate": b'{"model": "\\ud800"}',
    "two documents": b'{"model": "x"} {"model": "y"}',
    "NUL": b"\0",
}


def url(server: Serving, route: str) -> str:
    return f"{server.url}{route}" if route.startswith("/") else f"{server.api}/{route}"


def told(reply: requests.Response, shape: str) -> str:
    """The message of an error of that shape."""
    assert reply.headers["Content-Type"].startswith("application/json")
    error = reply.json()["error"]
    if shape == STRING:
        assert isinstance(error, str)
        return error
    assert isinstance(error["type"], str)
    if "details" not in error:  # then it is the engine's own code
        assert isinstance(error["code"], str)
    message: str = error["message"]
    return message


@pytest.mark.parametrize("route", ROUTES)
def test_bodies_that_are_no_json_object(server: Serving, route: str) -> None:
    with requests.Session() as session:
        for what, body in BODIES.items():
            if route in EMPTY_IS_FINE and what in ("empty", "blank", "null"):
                continue
            reply = session.post(url(server, route), data=body, timeout=30)
            assert reply.status_code == 400, (what, reply.text)
            message = told(reply, ROUTES[route])
            assert message.startswith("The body "), (what, message)
            assert message.endswith("."), (what, message)
            assert len(message) < 300
            if ROUTES[route] == OBJECT:
                assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("route", "body", "status", "word"),
    [
        ("load", {}, 400, "model_name"),
        ("load", {"model": WARM}, 400, "model_name"),
        ("load", {"model_name": 12}, 400, "model_name"),
        ("load", {"model_name": [WARM]}, 400, "model_name"),
        ("load", {"model_name": WARM, "pinned": "yes"}, 400, "pinned"),
        ("load", {"model_name": WARM, "save_options": 1}, 400, "save_options"),
        ("load", {"model_name": WARM, "ctx_size": "4096"}, 400, "ctx_size"),
        ("load", {"model_name": WARM, "ctx_size": 1.5}, 400, "ctx_size"),
        ("load", {"model_name": WARM, "ctx_size": True}, 400, "ctx_size"),
        ("load", {"model_name": WARM, "ctx_size": -7}, 400, "ctx_size"),
        ("load", {"model_name": WARM, "ctx_sizes": 4096}, 400, "ctx_size"),
        ("load", {"model_name": WARM, "llamacp_args": "-t 1"}, 400, "llamacpp_args"),
        ("load", {"model_name": WARM, "llamacpp_args": {"-t": 1}}, 400, "llamacpp_args"),
        ("load", {"model_name": WARM, "llamacpp_args": "-t '1"}, 400, "not closed"),
        ("load", {"model_name": WARM, "llamacpp_args": "threads 1"}, 400, "begin with a flag"),
        ("load", {"model_name": WARM, "llamacpp_args": "--port 80"}, 400, "--port"),
        ("load", {"model_name": WARM, "llamacpp_args": "--api-key=x"}, 400, "--api-key"),
        ("load", {"model_name": WARM, "llamacpp_args": "-m /etc/passwd"}, 400, "-m"),
        ("load", {"model_name": WARM, "llamacpp_backend": "vulcan"}, 400, "wheel"),
        ("load", {"model_name": WARM, "llamacpp_backend": 7}, 400, "llamacpp_backend"),
        ("load", {"model_name": "Tiny-Lemon"}, 404, WARM),
        ("unload", {"model_name": 12}, 400, "model_name"),
        ("unload", {"model": ["x"]}, 400, "model"),
        ("unload", {"model_name": "Tiny-Embed-GGUF"}, 404, "not loaded"),
        ("unload", {"model_name": "Tiny-Lemon"}, 404, WARM),
        ("pull", {}, 400, "model"),
        ("pull", {"model": 1}, 400, "model"),
        ("pull", {"model": WARM, "stream": "true"}, 400, "stream"),
        ("pull", {"model": WARM, "stream": True, "subscribe": 0}, 400, "subscribe"),
        ("pull", {"model": WARM, "do_not_upgrade": "no"}, 400, "do_not_upgrade"),
        ("pull", {"model": "user.x", "recipe": 12, "checkpoint": "o/r:Q8"}, 400, "recipe"),
        ("pull", {"model": "user.x", "recipe": ["llamacpp"]}, 400, "recipe"),
        ("pull", {"model": "user.x", "recipe": "llamacpp", "checkpoint": 12}, 400, "main"),
        ("pull", {"model": "user.x", "recipe": "llamacpp", "checkpoints": []}, 400, "checkpoint"),
        ("pull", {"model": "user.x", "recipe": "llamacpp", "checkpoints": "x"}, 400, "object"),
        ("delete", {}, 400, "model"),
        ("delete", {"model": {"name": "x"}}, 400, "model"),
        ("delete", {"model": "Tiny-Lemon"}, 422, WARM),
        ("install", {"recipe": "llamacpp"}, 400, "backend"),
        ("install", {"recipe": 1, "backend": "wheel"}, 400, "recipe"),
        ("install", {"recipe": "llamacpp", "backend": "weel"}, 500, "wheel"),
        ("install", {"recipe": "llamacpp", "backend": "../wheel"}, 500, "wheel"),
        ("install", {"recipe": "llamacpp", "backend": "wheel", "force": "y"}, 400, "force"),
        ("install", {"recipe": "llamacpp", "backend": "wheel", "stream": 1}, 400, "stream"),
        ("uninstall", {"recipe": "llamacpp"}, 400, "backend"),
        ("uninstall", {"recipe": "lamacpp", "backend": "wheel"}, 400, "llamacpp"),
        ("chat/completions", {"messages": []}, 400, "model"),
        ("chat/completions", {"model": "", "messages": []}, 400, "model"),
        ("chat/completions", {"model": 12, "messages": []}, 400, "model"),
        ("chat/completions", {"model": WARM, "stream": "yes", "messages": []}, 400, "stream"),
        ("chat/completions", {"model": WARM, "thinking": "deep", "messages": []}, 400, "thinking"),
        ("chat/completions", {"model": WARM}, 400, "messages"),
        ("chat/completions", {"model": WARM, "messages": "hello"}, 400, "messages"),
        ("chat/completions", {"model": WARM, "messages": [{"role": 1}]}, 400, ""),
        ("chat/completions", {"model": "Tiny-Lemon", "messages": []}, 404, WARM),
        ("chat/completions", {"model": "Tiny-Lemon", "stream": True}, 404, WARM),
        ("completions", {"model": WARM}, 400, "prompt"),
        ("completions", {"prompt": "x"}, 400, "model"),
        ("responses", {"model": WARM, "stream": "yes"}, 400, "stream"),
        ("responses", {"input": "x"}, 400, "model"),
        ("embeddings", {"input": "x"}, 400, "model"),
        ("embeddings", {"model": WARM, "input": "x"}, 400, "embedding"),
        ("rerank", {"model": WARM, "query": "x", "documents": []}, 400, "reranking"),
        ("reranker", {"model": ["x"]}, 400, "model"),
        ("tokenize", {}, 400, "content"),
        ("tokenize", {"content": ["x"]}, 400, "content"),
        ("tokenize", {"content": "x", "model": "Tiny-Lemon"}, 404, WARM),
        ("slots/0?action=dance", {}, 501, "slots"),
        ("/internal/set", {}, 400, "at least one"),
        ("/internal/set", {"log_levels": "info"}, 400, "log_level"),
        ("/internal/set", {"max_loaded_models": "many"}, 400, "max_loaded_models"),
        ("/internal/set", {"llamacpp": 3}, 400, "llamacpp"),
        ("/internal/set", {"extra_models_dir": 5, "log_level": "debug"}, 400, "extra_models_dir"),
        ("/internal/pin", {"model": WARM}, 400, "pinned"),
        ("/internal/pin", {"model": WARM, "pinned": "no"}, 400, "pinned"),
        ("/internal/pin", {"model": "Tiny-Embed-GGUF", "pinned": True}, 400, "not loaded"),
    ],
)  # fmt: skip
def test_fields_that_are_missing_wrong_or_unknown(
    server: Serving, route: str, body: dict[str, Any], status: int, word: str
) -> None:
    reply = requests.post(url(server, route), json=body, timeout=30)
    assert reply.status_code == status, reply.text
    message = told(reply, ROUTES.get(route.partition("/0")[0], OBJECT))
    assert word in message
    assert "Traceback" not in message


TRICKS = (
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a/../b",
    "a//b",
    "./a",
    "..\\..\\x",
    "a\0b",
    "a\nb",
    "\x1b[31mred",
    "a\u202eb",
    "x" * 201,
    "x" * 100_000,
)
"""Names that are made to be something else."""


@pytest.mark.parametrize(
    ("route", "key"),
    [
        ("load", "model_name"),
        ("unload", "model_name"),
        ("pull", "model"),
        ("delete", "model"),
        ("chat/completions", "model"),
        ("embeddings", "model"),
        ("/internal/pin", "model"),
    ],
)
def test_names_that_are_tricks(server: Serving, route: str, key: str) -> None:
    more = {"pinned": True} if route == "/internal/pin" else {}
    for name in TRICKS:
        reply = requests.post(url(server, route), json={key: name, **more}, timeout=10)
        assert reply.status_code == 400, (name, reply.text)
        message = told(reply, ROUTES[route])
        assert "cannot be a model's name" in message
        assert len(message) < 300
        assert message.isprintable()


def test_names_that_are_tricks_in_a_path(server: Serving) -> None:
    port = int(server.url.rpartition(":")[2])
    for raw in (
        b"/v1/models/../../etc/passwd",
        b"/v1/models/..%2f..%2fetc%2fpasswd",
        b"/v1/models/%2e%2e/%2e%2e",
        b"/v1/models//etc/passwd",
        b"/v1/models/a%00b",
        b"/v1/models/" + b"x" * 4000,
        b"/v1/models/%ff%fe",
        b"/v1/pull/variants?checkpoint=../../x",
        b"/v1/logs?model=../../etc/passwd",
    ):
        with socket.create_connection(("localhost", port), timeout=10) as connection:
            connection.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % raw)
            head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(
                b"\r\n\r\n"
            )
        status = int(head.split()[1])
        assert status in (400, 404), (raw, head)
        assert json.loads(body)["error"]
        assert b"root:" not in body


@pytest.mark.parametrize("name", ["user.../x", "user.a/b", "user.a\0b", "user.", "user..\\x"])
def test_a_trick_is_not_registered(server: Serving, name: str) -> None:
    body = {"model": name, "recipe": "llamacpp", "checkpoint": "o/r:Q8_0"}
    before = server.get("models?show_all=true").json()
    reply = server.post("pull", body)
    assert reply.status_code == 400, reply.text
    assert server.get("models?show_all=true").json() == before


# ---- bodies


@pytest.mark.parametrize("route", ["pull", "chat/completions"])
def test_a_body_that_is_too_large_is_refused_by_its_head(server: Serving, route: str) -> None:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("localhost", port), timeout=10) as connection:
        head = f"POST /v1/{route} HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
        connection.sendall(head.encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    message = error if ROUTES[route] == STRING else error["message"]
    assert "larger than the 1.1 GB" in message


def test_a_body_that_is_packed(server: Serving) -> None:
    body = gzip.compress(json.dumps({"model": "Tiny-Lemon"}).encode())
    headers = {"Content-Encoding": "gzip"}
    read = requests.post(f"{server.api}/delete", data=body, headers=headers, timeout=10)
    assert read.status_code == 422
    broken = requests.post(f"{server.api}/delete", data=b"no gzip", headers=headers, timeout=10)
    assert broken.status_code == 400
    assert "gzip" in broken.json()["error"]


@pytest.mark.parametrize(
    ("route", "method"),
    [("pull", "GET"), ("chat/completions", "GET"), ("load", "PUT"), ("models", "DELETE")],
)
def test_another_method(server: Serving, route: str, method: str) -> None:
    reply = requests.request(method, f"{server.api}/{route}", timeout=10)
    assert reply.status_code == 405
    assert method in told(reply, STRING)
    assert reply.headers["Allow"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # somebody tries TLS
        b"POST /v1/load HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_http(server: Serving, garbage: bytes) -> None:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("localhost", port), timeout=10) as connection:
        connection.sendall(garbage)
        status = b" 431 " if len(garbage) > 65536 else b" 400 "
        assert status in connection.recv(65536).partition(b"\r\n")[0]


# ---- engines that do not start


def failed(reply: requests.Response, model: str) -> dict[str, Any]:
    assert reply.status_code == 500, reply.text
    error: dict[str, Any] = reply.json()["error"]
    assert error["type"] == error["code"] == "model_load_error"
    assert error["param"] == "model"
    assert error["requested_model"] == model
    assert error["message"].startswith("Failed to load model")
    return error


@pytest.mark.parametrize("file", ["cut", "garbage"])
def test_a_gguf_file_that_is_corrupt(server: Serving, file: str) -> None:
    for reply in (server.post("load", {"model_name": file}), server.chat(file, stream=True)):
        error = failed(reply, file)
        assert "exited with status 1" in error["message"]
        assert f"{file}.gguf" in error["message"]
        assert error["facts"]["exit_status"] == 1
        lines = error["facts"]["last_lines"]
        assert any("failed to load model" in line for line in lines)
        assert lines[-1] in error["message"]


def test_a_corrupt_file_registered_by_its_path(server: Serving) -> None:
    path = server.home / "extra" / "cut.gguf"
    body = {
        "model": "user.by-path",
        "recipe": "llamacpp",
        "source": "local_path",
        "checkpoint": str(path),
    }
    assert server.post("pull", body).status_code == 200
    failed(server.post("load", {"model_name": "user.by-path"}), "user.by-path")
    assert server.post("delete", {"model": "by-path"}).status_code == 200
    assert path.exists()


def test_a_file_that_is_no_gguf_is_not_even_tried(server: Serving) -> None:
    assert server.get("models/page").json()["downloaded"] is False
    error = failed(server.post("load", {"model_name": "page"}), "page")
    assert "does not start like a GGUF file" in error["message"]
    assert "last_lines" not in error.get("facts", {})


@pytest.mark.parametrize("arguments", ["--no-such-flag", ["--no-such-flag"]])
def test_an_argument_the_engine_does_not_know(server: Serving, arguments: object) -> None:
    for model in (WARM, "whole"):
        reply = server.post("load", {"model_name": model, "llamacpp_args": arguments})
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert "no argument '--no-such-flag', which the request gives it" in error["message"]
        assert "last_lines" not in error["facts"], "it is not even started"


def test_a_value_the_engine_refuses(server: Serving) -> None:
    body = {"model_name": "whole", "llamacpp_args": "--threads many", "save_options": True}
    error = failed(server.post("load", body), "whole")
    assert "--threads" in error["message"]
    assert server.get("models/whole").json()["recipe_options"] == {}, "what fails is not saved"


def test_arguments_of_the_configuration_are_named(server: Serving) -> None:
    def configure(text: str) -> None:
        reply = requests.post(
            f"{server.url}/internal/set", json={"llamacpp": {"args": text}}, timeout=10
        )
        assert reply.status_code in (200, 400), reply.text

    try:
        configure("--port 80")
        reply = server.post("load", {"model_name": "whole"})
        assert reply.status_code in (200, 400)
        if reply.status_code == 400:
            assert "from the configuration" in told(reply, OBJECT)
    finally:
        configure("")


def test_a_model_whose_file_went_away(server: Serving, tmp_path: Path) -> None:
    file = tmp_path / "fleeting.gguf"
    shutil.copy(MODELS / "tiny-lemon-Q8_0.gguf", file)
    body = {
        "model": "user.fleeting",
        "recipe": "llamacpp",
        "source": "local_path",
        "checkpoint": str(file),
    }
    assert server.post("pull", body).status_code == 200
    file.unlink()
    assert server.get("models/fleeting").json()["downloaded"] is False
    error = failed(server.chat("fleeting"), "fleeting")
    assert str(file) in error["message"]
    assert server.post("delete", {"model": "fleeting"}).status_code == 200
