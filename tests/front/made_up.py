"""Requests to engines and their answers, made up from a seed: what is allowed, and more."""

from __future__ import annotations

import json
import random
import string
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

LLM = [b"/chat/completions", b"/completions", b"/responses"]
OTHERS = {"vectors": [b"/embeddings"], "order": [b"/rerank", b"/reranking", b"/reranker"]}
PREFIXES = [b"/api/v0", b"/api/v1", b"/v0", b"/v1"]

_OF_A_CLIENT = (
    b"content-type: text/plain", b"ACCEPT: text/x",
    b"User-Agent: a \xe2\x98\x83 \xff", b"traceparent: 00-1-2-3", b"Cookie: a=b",
    b"Authorization: Bearer anything", b"Accept-Encoding: gzip", b"Origin: http://localhost",
    b"X-Anything:  blanks \t", b"Empty:", b"Connection: keep-alive", b"Forwarded: for=x",
)  # fmt: skip

_REFUSED = (b"Origin: https://evil.example", b"Content-Type: a/b", b"X-A: " + b"a" * 9000)
"""With a field of `_OF_A_CLIENT` beside it the second is there twice."""

_OF_AN_ENGINE = (
    "Server: engine/1", "X-Engine: yes", "x-engine: again", "Set-Cookie: a=b", "Empty: ",
    "Access-Control-Allow-Origin: *", "Vary: Accept", "X-Request-Id: theirs", "Upgrade: h2c",
    "Keep-Alive: timeout=5", "Cache-Control: private", "Date: today", "X-Odd: caf\xe9 \t x",
    "OpenAI-Processing-Ms: 7",
)  # fmt: skip

_STATUSES = (*[200] * 12, 201, 202, 204, 301, 400, 404, 413, 422, 429, 500, 503)

_NO_BODIES = (
    b"", b"[]", b"nul", b'"x"', b"{}x", b"7", b'{"model": "\xff"}', b"[" * 5000, b"\xef\xbb\xbf{}",
)  # fmt: skip


@dataclass
class Case:
    """A request, and what the engine makes of it.

    Attributes:
        path: below the server's root.
        model: whose engine it is for.
        fields: header lines.
        asks_engine: whether it is one that an engine gets to see.
    """

    path: bytes
    model: str
    body: bytes
    fields: list[bytes]
    asks_engine: bool = True
    steps: list[Any] = field(default_factory=list)


class Maker:
    """Makes up cases."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def one(self, *of: T) -> T:
        return self.chance.choice(of)

    def often(self, share: float) -> bool:
        return self.chance.random() < share

    # ---- requests

    def case(self) -> Case:
        model = self.one(*["m"] * 6, "vectors", "order")
        operation = self.one(*OTHERS.get(model, LLM))
        steps = self.answer()
        asked: dict[str, Any] = {"model": model, **self.wishes()}
        if operation in LLM and self.often(0.6):
            asked["stream"] = self.one(True, True, True, False, None)
        asked["fake"] = {"steps": steps}
        path = self.one(*PREFIXES) + operation
        case = Case(path, model, self.written(asked), self.fields(), steps=steps)
        if self.often(0.15):
            self.spoil(case, asked)
        return case

    def wishes(self) -> dict[str, Any]:
        """What a client says, of which the server understands next to nothing."""
        letters = 'aé☃😀\u2028\t"\\/ \x7f'
        text = "".join(self.chance.choices(letters, k=self.chance.randint(0, 9)))
        if self.often(0.03):
            text *= self.chance.randint(1, 60_000)
        wishes = {
            "messages": [{"role": "user", "content": text}],
            "prompt": text,
            "input": [text, text],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "temperature": self.one(0, 0.1, 1e-9, -1, 1e300),
            "max_tokens": self.one(1, 0, None, 10**18),
            "stream_options": {"include_usage": True},
            "enable_thinking": self.often(0.5),
            "deep": json.loads("[" * 20 + "]" * 20),
            "": {"model": "other", "stream": True},
        }
        return {name: value for name, value in wishes.items() if self.often(0.4)}

    def written(self, asked: dict[str, Any]) -> bytes:
        """As JSON, in one of its many spellings."""
        items = list(asked.items())
        self.chance.shuffle(items)
        text = json.dumps(
            dict(items),
            ensure_ascii=self.often(0.5),
            indent=self.one(None, None, 1),
            separators=self.one(None, (",", ":")),
        )
        if self.often(0.1):
            text = '{"model": "never", "stream": null,' + text[1:]  # the last one counts
        return (self.one("", "", " \r\n") + text + self.one("", "\n")).encode()

    def fields(self) -> list[bytes]:
        lines = [b"X-Request-Id: r%d" % self.chance.randrange(10**9)]
        lines += [line for line in _OF_A_CLIENT if self.often(0.3)]
        self.chance.shuffle(lines)
        return [*lines, b"Expect: 100-continue"] if self.often(0.03) else lines

    def spoil(self, case: Case, asked: dict[str, Any]) -> None:
        """Make it something that no engine gets to see."""
        case.asks_engine = False
        kind = self.one("body", "name", "type", "stream", "fields")
        if kind == "body":
            case.body = self.one(case.body[:-3], case.body + b"}", *_NO_BODIES)
        elif kind == "name":
            asked["model"] = self.one("nope", "nope☃", "", " ", None, 3, ["m"], {"m": 1})
            case.body = json.dumps(asked).encode()
        elif kind == "type":
            asked["model"] = "vectors" if case.model == "m" else "m"
            case.body = json.dumps(asked).encode()
        elif kind == "stream" and case.model == "m":
            asked["stream"] = self.one("yes", 1, 0, [], {}, "true")
            case.body = json.dumps(asked).encode()
        else:
            mine = [line for line in case.fields if not line.startswith((b"Origin", b"content-"))]
            case.fields = [*mine, b"content-type: text/plain", self.one(*_REFUSED)]

    # ---- answers

    def answer(self) -> list[Any]:
        """What the engine does, in steps."""
        status = self.one(*_STATUSES)
        if self.often(0.5):
            data = self.events().encode()
            kind = self.one("text/event-stream", "Text/Event-Stream; charset=utf-8")
        else:
            data = self.json(status).encode()
            kind = self.one("application/json", "application/json; charset=utf-8", "text/plain")
        lines = [f"Content-Type: {kind}"]
        lines += [line for line in _OF_AN_ENGINE if self.often(0.25)]
        framing = "none" if status == 204 else self.one("length", "chunks", "chunks", "close")
        if framing == "none":
            data = b""
        elif framing == "length":
            lines.append(f"{self.cased('Content-Length')}: {len(data)}")
        elif framing == "chunks":
            lines.append(f"{self.cased('Transfer-Encoding')}: chunked")
            data = self.chunked(data)
        closes = self.often(0.1)
        if closes:
            lines.append(self.one("Connection: close", "connection: X-Hop, Close"))
            lines.append("X-Hop: y")
        self.chance.shuffle(lines)
        reason = self.one("OK", "", "Something else", "caf\xe9")
        head = "\r\n".join((f"HTTP/1.1 {status} {reason}", *lines, "", ""))
        whole = head.encode("latin-1") + data
        if self.often(0.1):
            whole = (
                self.one(b"HTTP/1.1 100 Go\r\n\r\n", b"HTTP/1.1 103 \r\nLink: x\r\n\r\n") + whole
            )
        steps: list[Any] = [["send", part.decode("latin-1")] for part in self.cut(whole)]
        return [*steps, ["close"]] if closes or framing == "close" else steps

    def cased(self, name: str) -> str:
        return self.one(name, name.lower(), name.upper())

    def json(self, status: int) -> str:
        text = "".join(self.chance.choices(string.printable + "é☃", k=30))
        said: Any = {"choices": [{"text": text}]}
        if self.often(0.5):
            said["usage"] = {"prompt_tokens": self.chance.randrange(99), "completion_tokens": 5}
        if status >= 300:
            message = self.one("no", "", "it exceeds the available context size", 5)
            error = {"message": message, "code": self.one(status, "x", None), "type": "odd"}
            said = self.one({"error": error}, error, {"error": "text"}, {"detail": "no"}, [], "no")
        text = json.dumps(said, ensure_ascii=self.often(0.5))
        text = self.one(*[text] * 5, "", "not JSON ☃", "<html>")
        return text * self.one(*[1] * 20, 3000 if status < 300 else 1)

    def events(self) -> str:
        count = self.one(0, 1, 2, 5, 30)
        texts = [json.dumps({"choices": [{"delta": {"content": f"é{n}"}}]}) for n in range(count)]
        end = self.one("\n\n", "\r\n\r\n")
        events = [f"data: {text}{end}" for text in texts]
        if self.often(0.8):
            events += [f": ping{end}", f"data: [DONE]{end}"]
        return "".join(events)

    def chunked(self, data: bytes) -> bytes:
        """In chunks of any size, with all that chunks may have."""
        out = []
        size = 5000 if len(data) > 20_000 else self.one(1, 7, 100, 5000)
        while data:
            take = self.chance.randint(1, size)
            part, data = data[:take], data[take:]
            line = self.one(b"%x", b"%X", b"00%x") % len(part)
            out.append(line + self.one(b"", b"", b"", b";a=b", b" ;c") + b"\r\n" + part + b"\r\n")
        trailers = self.one(b"", b"", b"X-Trailer: x\r\n", b"a: b\r\nc:\r\n")
        return b"".join(out) + self.one(b"0", b"000") + b"\r\n" + trailers + b"\r\n"

    def cut(self, whole: bytes) -> list[bytes]:
        many = min(len(whole) - 1, self.one(0, 1, 4))
        cuts = sorted(self.chance.sample(range(1, len(whole)), many))
        return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
