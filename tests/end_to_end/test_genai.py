"""ONNX Runtime GenAI from a folder of wheels to an answer, through the whole server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.checkpoints.hub_fixture import running_hub, write_repository
from tests.cli.conftest import Cli
from tests.serving import ROOT, Serving, environment, eventually, gone, serving, survivors

pytestmark = [pytest.mark.slow, pytest.mark.engine]

MODEL = "Tiny-Lemon-CPU"
FOLDER = ROOT / "models" / "tiny-lemon-oga-int4"
GREETING = "Hello! How can I help you today?"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, genai_bundles: Path) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("genai")
    with serving(home, bundles=genai_bundles) as one:
        yield one
    assert not survivors(home)


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def test_from_nothing(home: Path) -> None:
    with serving(home) as server:
        cli = Cli({**environment(home), "LEMONADE_HOST": server.url})
        done = cli("backends", "install", "ryzenai-llm:cpu")
        assert done.returncode == 0, done.stderr
        done = cli("run", MODEL, "Hello")
        assert (done.returncode, done.stdout.strip()) == (0, GREETING), done.stderr
        (row,) = json.loads(cli("ps", "--json").stdout)
        assert str(FOLDER) in row["launch_command"]
        assert cli("unload", MODEL).returncode == 0
        assert gone(row["pid"])
        done = cli("backends", "uninstall", "ryzenai-llm:cpu")
        assert done.returncode == 0, done.stderr
        assert not list((home / "cache" / "bin" / "ryzenai-llm" / "cpu").glob("[!.]*"))


def test_a_pulled_repository(home: Path, genai_bundles: Path) -> None:
    files = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    write_repository(home / "repositories", "me/Mine-onnx", files)
    with (
        running_hub(home / "repositories") as hub,
        serving(home, env={"HF_ENDPOINT": hub}, bundles=genai_bundles) as server,
    ):
        offered = server.get("pull/variants?checkpoint=me/Mine-onnx").json()
        assert offered["recipe"] == "ryzenai-llm"
        cli = Cli({**environment(home), "LEMONADE_HOST": server.url})
        done = cli(
            "pull", "user.Mine", "--checkpoint", "main", "me/Mine-onnx", "--recipe", "ryzenai-llm"
        )
        assert done.returncode == 0, done.stderr
        assert cli("run", "Mine", "Hello", "--ctx-size", "512").stdout.strip() == GREETING
        command = server.loaded()["Mine"]["launch_command"]
        assert Path(command[command.index("-m") + 1]).parent.name == "snapshots"
        assert command[command.index("--ctx-size") + 1] == "512"


def test_a_folder_of_ones_own(home: Path, genai_bundles: Path) -> None:
    folder = home / "my model"
    shutil.copytree(FOLDER, folder)
    with serving(home, bundles=genai_bundles) as server:
        body = {
            "model": "user.own",
            "recipe": "ryzenai-llm",
            "checkpoint": str(folder),
            "source": "local_path",
        }
        assert server.post("pull", body).status_code == 200
        answer = server.chat("own").json()
        assert answer["choices"][0]["message"]["content"] == GREETING
        command = server.loaded()["own"]["launch_command"]
        assert command[command.index("-m") + 1] == str(folder)


def test_chat_and_stream(client: openai.OpenAI) -> None:
    turn = {"role": "user", "content": "Hello"}
    answer = client.chat.completions.create(model=MODEL, messages=[turn], temperature=0)
    assert answer.choices[0].message.content == GREETING
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.total_tokens == 19
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[turn],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == GREETING
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 9


def test_a_tool(client: openai.OpenAI) -> None:
    turns = [{"role": "user", "content": "What is the weather in Paris?"}]
    with client.chat.completions.stream(
        model=MODEL, messages=turns, tools=[WEATHER], temperature=0
    ) as stream:
        stream.until_done()
        (choice,) = stream.get_final_completion().choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    turns += [
        choice.message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": '{"city": "Paris", "temp_c": 21}'},
    ]
    answer = client.chat.completions.create(
        model=MODEL, messages=turns, tools=[WEATHER], temperature=0
    )
    assert answer.choices[0].message.content == "It is 21 degrees in Paris."


def test_text_and_responses(client: openai.OpenAI) -> None:
    text = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=4)
    assert text.choices[0].text.startswith(" a time")
    answer = client.responses.create(model=MODEL, input="Hello", temperature=0)
    assert answer.output_text == GREETING
    with client.responses.stream(model=MODEL, input="Hello", temperature=0) as stream:
        stream.until_done()
        assert stream.get_final_response().output_text == GREETING


def test_refusals(client: openai.OpenAI) -> None:
    turn = {"role": "user", "content": "Hello"}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=[turn], n=2)
    assert "'n' is not supported" in str(refused.value)
    long = {"role": "user", "content": "hello there " * 3000}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=[long])
    assert refused.value.code == "context_length_exceeded"


def test_it_says_what_it_does(client: openai.OpenAI, server: Serving) -> None:
    client.completions.create(model=MODEL, prompt="Once", max_tokens=2)
    page = server.get("../../metrics").text
    assert "lemonade_ryzenai_llm_" in page


def test_a_client_who_leaves_ends_his_answer(client: openai.OpenAI, server: Serving) -> None:
    stream = client.completions.create(
        model=MODEL, prompt="Once", stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    eventually(lambda: not server.loaded()[MODEL]["active_requests"], "the request ends")
    assert client.completions.create(model=MODEL, prompt="Once", max_tokens=1).choices


def test_unloading_leaves_nothing(client: openai.OpenAI, server: Serving) -> None:
    client.completions.create(model=MODEL, prompt="Once", max_tokens=1)
    pid = server.loaded()[MODEL]["pid"]
    assert server.post("unload", {"model_name": MODEL}).status_code == 200
    assert gone(pid)


def test_what_is_offered(server: Serving) -> None:
    listed = server.get("models?show_all=true").json()["data"]
    ours = {row["id"]: row for row in listed if row["recipe"] == "ryzenai-llm"}
    assert ours
    assert all(name.endswith("-CPU") for name in ours), "others are made for an NPU"
    assert ours[MODEL]["downloaded"]
    hidden = {row["id"]: row for row in server.get("models?show_unavailable=true").json()["data"]}
    reason = hidden["Qwen3-4B-Hybrid"]["unavailable_reason"]
    assert "made for other devices" in reason
    recipe = server.get("system-info").json()["recipes"]["ryzenai-llm"]
    assert recipe["slot_policy"] == "exclusive_npu"
    assert recipe["backends"]["cpu"]["slot_policy"] == "standard"
    assert recipe["backends"]["npu"]["state"] == "unsupported"
    assert recipe["default_backend"] == "cpu"
    reply = server.post("load", {"model_name": "Qwen2-7B-NPU"})
    assert reply.status_code >= 400
    assert "made for other devices" in reply.json()["error"]["message"]
