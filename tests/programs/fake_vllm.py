"""The fake engine with the habits of vLLM's server.

Its streams begin with a role, may hold thoughts or a call of a tool instead of words, and say what
they cost only if they are asked. It knows one name of its model and the length of its context,
counts prompts (a word is a token), and refuses what does not fit. Its control endpoints are open.

    python fake_vllm.py --port 8123 --max-model-len 64 --says thoughts --tear 1
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "lemonade" / "selftest"))

import fake_engine  # alone, as the program it is

CONTROL = (
    "/sleep", "/wake_up", "/is_sleeping", "/reset_prefix_cache", "/pause", "/resume",
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/collective_rpc", "/start_profile",
    "/server_info", "/update_weights", "/scale_elastic_ep", "/abort_requests", "/invocations",
    "/lora-adapters", "/props", "/fault_tolerance/status", "/load", "/tokenizer_info",
)  # fmt: skip
ARGUMENTS = '{"city": "Paris \\u2603 \\"x\\""}'


def options_from(argv: list[str]) -> argparse.Namespace:
    own = argparse.ArgumentParser("fake_vllm", allow_abbrev=False)
    own.add_argument("--max-model-len", type=int, default=64)
    own.add_argument("--says", choices=("words", "thoughts", "call"), default="words")
    own.add_argument("--tear", type=int, default=0, metavar="BYTES", help="send so much at a time")
    own.add_argument("--cannot-count", action="store_true")
    own.add_argument("--metrics", default="", metavar="FILE", help="the page; - never ends")
    own.add_argument("--only-pings", action="store_true", help="for an answer")
    own.add_argument("--pings-and-dies", default="", metavar="FILE", help="once")
    mine, rest = own.parse_known_args(argv)
    return argparse.Namespace(**vars(fake_engine.options_from(rest)), **vars(mine))


class Connection(fake_engine.Connection):
    """Answers as vLLM does."""

    def serve(self, method: str, path: str, body: bytes) -> None:
        options = self.engine.options
        if (method, path) == ("GET", "/v1/models"):
            row = {"id": self.engine.name, "max_model_len": options.max_model_len}
            self.reply(200, {"object": "list", "data": [row]})
        elif (method, path) == ("GET", "/metrics"):
            self.metrics(options.metrics)
        elif path in CONTROL:
            self.reply(200, {"did": path})
        elif method == "POST" and path in ("/tokenize", "/v1/responses"):
            request = json.loads(body)
            if path == "/tokenize":
                self.tokenize(request)
            elif self.fits(request, 0):
                self.respond(request)
        elif options.pings_and_dies and not Path(options.pings_and_dies).exists():
            self.begin_stream()
            for _ in range(3):
                self.piece(b": still here\n\n")
            Path(options.pings_and_dies).touch()
            os.kill(os.getpid(), signal.SIGSEGV)
        elif options.only_pings:
            self.begin_stream()
            while True:
                self.piece(b":\n\n")
                self.wait(0.05)
        elif method == "POST" and path.endswith("completions"):
            request = json.loads(body)
            newer = request.get("max_completion_tokens") if "chat" in path else None
            if self.fits(request, newer or request.get("max_tokens") or 0):
                super().serve(method, path, body)
        else:
            super().serve(method, path, body)

    def metrics(self, page: str) -> None:
        if page == "-":
            self.wait(fake_engine.FOREVER)
        if not page:
            self.error(404, "Not Found", "NotFoundError")
            return
        data = Path(page).read_bytes()
        self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
            b"Content-Length: %d\r\n\r\n" % len(data) + data
        )

    def fits(self, request: dict[str, object], limit: object) -> bool:
        if request.get("model") != self.engine.name:
            self.error(404, f"The model `{request.get('model')}` does not exist.", "NotFoundError")
            return False
        length, prompt = self.engine.options.max_model_len, tokens_of(request)
        if isinstance(limit, int) and prompt + limit <= length:
            return True
        self.error(
            400,
            f"This model's maximum context length is {length} tokens. However, you requested "
            f"{limit} output tokens and your prompt contains at least {prompt} input tokens.",
            "BadRequestError",
        )
        return False

    def tokenize(self, request: dict[str, object]) -> None:
        if self.engine.options.cannot_count:
            self.error(500, "no tokenizer", "InternalServerError")
            return
        count = tokens_of(request)
        self.reply(200, {"count": count, "tokens": list(range(count))})

    # ---- streams

    def stream(self, request: dict[str, object], *, chat: bool) -> None:
        options = self.engine.options
        self.begin_stream()
        count = self.chunks(request)
        wishes = request.get("stream_options") or {}
        assert isinstance(wishes, dict)
        usage = bool(wishes.get("include_usage"))
        running = usage and bool(wishes.get("continuous_usage_stats"))
        if chat:
            self.say({"delta": {"role": "assistant", "content": ""}}, chat=chat, usage=running)
        for number in range(count):
            if number == options.drop_mid_stream:
                raise fake_engine.Gone
            self.wait(options.slow_chunks)
            said = self.piece_of_answer(number, count) if chat else {"text": f"word{number} "}
            self.say(said, chat=chat, usage=running)
        how = "tool_calls" if options.says == "call" else "stop"
        last: dict[str, object] = {"delta": {}} if chat else {"text": ""}
        self.say({**last, "finish_reason": how, "stop_reason": None}, chat=chat, usage=running)
        if usage:
            self.event(self.part(chat, [], usage=count, chunk=True))
        self.piece(b"data: [DONE]\n\n")
        self.send(b"0\r\n\r\n")

    def begin_stream(self) -> None:
        self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

    def say(self, said: dict[str, object], *, chat: bool, usage: bool) -> None:
        choice = {"index": 0, "logprobs": None, "finish_reason": None, **said}
        self.event(self.part(chat, [choice], usage=int(usage), chunk=True))

    def piece_of_answer(self, number: int, count: int) -> dict[str, object]:
        match self.engine.options.says:
            case "thoughts" if number < count - 1:
                return {"delta": {"reasoning_content": f"thought{number} "}}
            case "call" if number == 0:
                call = {"id": "chatcmpl-tool-1", "type": "function", "index": 0}
                return {"delta": {"tool_calls": [{**call, "function": {"name": "get_weather"}}]}}
            case "call":
                size = -(-len(ARGUMENTS) // (count - 1))
                said = ARGUMENTS[(number - 1) * size : number * size]
                call = {"index": 0, "function": {"arguments": said}}
                return {"delta": {"tool_calls": [call]}}
            case _:
                return {"delta": {"content": f"word{number} "}}

    def respond(self, request: dict[str, object]) -> None:
        answer = {"id": "resp_1", "object": "response", "instructions": '"content":"x"'}
        self.begin_stream()
        self.named("response.created", {"response": {**answer, "status": "in_progress"}})
        self.named("response.in_progress", {"response": {**answer, "status": "in_progress"}})
        for number in range(self.chunks(request)):
            self.wait(self.engine.options.slow_chunks)
            self.named("response.output_text.delta", {"delta": f"word{number} "})
        usage = {"input_tokens": 7, "output_tokens": self.chunks(request), "total_tokens": 9}
        self.named("response.completed", {"response": {**answer, "usage": usage}})
        self.send(b"0\r\n\r\n")

    def named(self, kind: str, event: dict[str, object]) -> None:
        said = json.dumps({**event, "type": kind})
        self.piece(f"event: {kind}\ndata: {said}\n\n".encode())

    def send(self, data: bytes) -> None:
        size = self.engine.options.tear or len(data)
        for at in range(0, len(data), size):
            super().send(data[at : at + size])


def tokens_of(request: dict[str, object]) -> int:
    """Words of the prompt, whatever kind of request it is in."""
    messages = request.get("messages")
    if isinstance(messages, list):
        return sum(len(str(message.get("content", "")).split()) for message in messages)
    return len(str(request.get("prompt", "")).split())


if __name__ == "__main__":
    fake_engine.main(sys.argv[1:], options_from, Connection)
