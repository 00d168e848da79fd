"""`run` and `chat`: answers in the terminal and in a pipe."""

from __future__ import annotations

import socket

from tests.cli.conftest import Cli, Server

MODEL = "Demo-1B-GGUF"


def test_run_prints_the_answer_and_nothing_else(cli: Cli, server: Server) -> None:
    done = cli("run", MODEL, "good", "morning", "--system", "Be kind.", "--no-think")
    assert (done.returncode, done.stdout, done.stderr) == (0, "You said good morning.\n", "")
    assert server.asked("/chat/completions")[0]["body"] == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "good morning"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "enable_thinking": False,
    }
    assert server.asked("/load") == [], "a loaded model keeps the options it was loaded with"


def test_run_loads_with_the_options_given(cli: Cli, server: Server) -> None:
    assert cli("run", MODEL, "hi", "--ctx-size", "64").returncode == 0
    assert server.asked("/load")[0]["body"]["ctx_size"] == 64


def test_run_reads_the_prompt_from_a_pipe(cli: Cli, server: Server) -> None:
    assert cli("run", MODEL, stdin="from a pipe\n").stdout == "You said from a pipe.\n"
    assert cli("run", MODEL, "Sum up:", "-", stdin="a\nb\n").stdout == "You said Sum up: a\nb.\n"
    assert len(server.asked("/chat/completions")) == 2


def test_run_fetches_what_is_missing_beside_the_answer(cli: Cli) -> None:
    done = cli("run", "Far-2B-GGUF", "hi")
    assert (done.returncode, done.stdout) == (0, "You said hi.\n")
    assert "Pulling model: Far-2B-GGUF" in done.stderr
    assert "Loading model: Far-2B-GGUF" in done.stderr


def test_reasoning_is_not_part_of_a_piped_answer(cli: Cli) -> None:
    assert cli("run", "Thinking-here", "hi").stdout == "You said hi.\n"


def test_an_answer_that_breaks_off_is_a_failure(cli: Cli) -> None:
    done = cli("run", MODEL, "fail")
    assert (done.returncode, done.stderr) == (1, "Error: The engine died.\n")
    done = cli("run", MODEL, "cut")
    assert (done.returncode, done.stdout) == (1, "You said cut.\n")
    assert "The answer broke off" in done.stderr


def test_run_says_why_a_server_does_not_come_up(environment: dict[str, str]) -> None:
    # Somebody who speaks no HTTP has the port: the server we start cannot have it.
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = Cli(environment)("run", MODEL, "hi", "--port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert "The server that was started ended with exit code 1. It said last:" in done.stderr
    assert "server.log" in done.stderr


def test_run_starts_no_server_elsewhere(environment: dict[str, str]) -> None:
    done = Cli(environment)("run", MODEL, "hi", "--host", "https://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Could not connect to Lemonade server (https://")


def test_chat_remembers_what_was_said(cli: Cli, server: Server) -> None:
    done = cli("chat", MODEL, "--system", "Be kind.", stdin="one\ntwo\n/clear\nthree\n")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("You said")]
    assert said == ["You said one.", "You said two.", "You said three."]
    messages = [request["body"]["messages"] for request in server.asked("/chat/completions")]
    system = {"role": "system", "content": "Be kind."}
    assert messages[1] == [
        system,
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "You said one."},
        {"role": "user", "content": "two"},
    ]
    assert messages[2] == [system, {"role": "user", "content": "three"}]


def test_chat_takes_the_model_that_is_loaded(cli: Cli, server: Server) -> None:
    assert cli("chat", "--no-stream", stdin="hi\n").stdout.endswith("You said hi.\n")
    body = server.asked("/chat/completions")[0]["body"]
    assert (body["model"], body["stream"]) == (MODEL, False)


def test_chat_forgets_a_turn_that_failed(cli: Cli, server: Server) -> None:
    done = cli("chat", MODEL, stdin="fail\nafter\n")
    assert done.returncode == 0
    assert "Error: The engine died." in done.stderr
    assert len(server.asked("/chat/completions")[1]["body"]["messages"]) == 1


def test_slash_commands(cli: Cli, server: Server) -> None:
    typed = [
        "/help", "/think off", "a", "/think default", "b", "/think maybe",
        "/system Be brief.", "c",
        "/model extra.Alpha-GGUF", "d", "/unload", "/list", "/list --all omni", "/ps", "/stats",
        "/nonsense", "/multiline", "e", "f", "", "/quit", "never",
    ]  # fmt: skip
    done = cli("chat", MODEL, stdin="\n".join(typed) + "\n")
    assert done.returncode == 0, done.stderr
    bodies = [request["body"] for request in server.asked("/chat/completions")]
    assert [body["messages"][-1]["content"] for body in bodies] == ["a", "b", "c", "d", "e\nf"]
    assert bodies[0]["enable_thinking"] is False
    assert "enable_thinking" not in bodies[1]
    assert bodies[2]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert [body["model"] for body in bodies][2:4] == [MODEL, "extra.Alpha-GGUF"]
    assert server.asked("/unload")[0]["body"] == {"model_name": "extra.Alpha-GGUF"}
    for words in ("/multiline", "Reasoning: off", "Far-2B-GGUF", "Demo-Omni", "llamacpp:vulkan"):
        assert words in done.stdout
    assert "123.4 tokens/s" in done.stdout
    assert "There is no command /nonsense." in done.stderr
    assert "Say /think on" in done.stderr


def test_a_first_model_that_cannot_be_loaded_is_a_failure(cli: Cli) -> None:
    done = cli("chat", "Broken-here", stdin="hi\n")
    assert done.returncode == 1
    assert "Failed to load model" in done.stderr


def test_a_terminal_shows_reasoning_dim_and_the_speed(cli: Cli) -> None:
    code, shown = cli.at_terminal("run", "Thinking-here", "hi")
    assert code == 0
    assert "\x1b[2mLet me \x1b[0m" in shown
    assert "You said hi." in shown
    assert "3 tokens, 123.4 tokens/s, first after" in shown


def test_a_terminal_shows_tables_and_bars(cli: Cli) -> None:
    code, shown = cli.at_terminal("list")
    assert code == 0
    assert "Local\r\n" in shown
    assert "─" in shown
    assert "-----" not in shown
    code, shown = cli.at_terminal("pull", MODEL)
    assert code == 0
    assert "━" in shown
    assert "Model pulled successfully" in shown
    code, shown = cli.at_terminal("backends")
    assert code == 0
    assert "lemonade backends install" in shown


def test_a_conversation_at_a_terminal(cli: Cli, server: Server) -> None:
    code, shown = cli.at_terminal("chat", typed="hello\n/exit\n")
    assert code == 0
    assert f"Chatting with {MODEL}." in shown
    assert "You said hello." in shown
    assert len(server.asked("/chat/completions")) == 1


def test_run_without_a_model_offers_some(cli: Cli, server: Server) -> None:
    code, shown = cli.at_terminal("run", typed="1\nhello\n/exit\n")
    assert code == 0
    assert f"1) {MODEL}" in shown
    assert server.asked("/chat/completions")[0]["body"]["model"] == MODEL


def test_no_color_is_honoured(cli: Cli) -> None:
    cli.env["NO_COLOR"] = "1"
    code, shown = cli.at_terminal("run", "Thinking-here", "hi")
    assert code == 0
    assert "\x1b[2m" not in shown
