"""Requests that are under way while something happens, and what came of each.

Whoever is struck by a fault may be told so; what nobody may get is a wrong answer, half an answer
that looks like a whole one, or silence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import field
from typing import Any, Final

from lemonade.core.errors import ConnectionLost, LemonadeError, ServerUnreachable
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass
from lemonade.selftest.server import PATIENCE, PrivateServer

QUESTION: Final = "Spell lemon"


@dataclass(slots=True)
class Asked:
    """One request in a thread of its own. Made by `ask`, `stream`, `load` or `unload`.

    Attributes:
        what: it is, for people.
        text: of the answer so far.
        reply: of an operation.
        error: that ended it.
        begun: set when the first piece has come, or when it is over.
        whole: whether it came to its end.
    """

    what: str
    text: str = ""
    reply: JsonObject = field(default_factory=dict)
    error: LemonadeError | None = None
    whole: bool = False
    begun: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def wait(self, within: float = PATIENCE) -> bool:
        """Whether it is over in so many seconds."""
        assert self._thread is not None
        self._thread.join(within)
        return not self._thread.is_alive()

    def wrong(self, *, may_break: bool, fits: Callable[[str], bool]) -> str:
        """What is wrong with how it ended, as a sentence; empty if nothing is.

        Args:
            may_break: whoever had its connection was ended: the server, or a worker.
            fits: whether a text is an answer.
        """
        if self.whole:
            wrong = bool(self.text or not self.reply) and not fits(self.text)
            return f"{self.what} was answered wrongly: {self.text[:200]!r}" if wrong else ""
        if isinstance(self.error, (ConnectionLost, ServerUnreachable)) and not may_break:
            return f"{self.what} broke off and nobody said why: {self.error}"
        return ""

    def run(self, deed: Callable[[Asked], None]) -> Asked:
        """Begin it."""

        def go() -> None:
            try:
                deed(self)
                self.whole = True
            except LemonadeError as error:
                self.error = error
            finally:
                self.begun.set()

        self._thread = threading.Thread(target=go, daemon=True)
        self._thread.start()
        return self


def ask(
    server: PrivateServer, model: str, *, stream: bool = False, most_tokens: int | None = None
) -> Asked:
    """Ask the question."""

    def deed(asked: Asked) -> None:
        parameters: dict[str, Any] = {"temperature": 0}
        if most_tokens is not None:
            parameters["max_tokens"] = most_tokens
        messages = [{"role": "user", "content": QUESTION}]
        with server.client() as client:
            for piece in client.chat(model, messages, stream=stream, parameters=parameters):
                asked.text += piece.text
                asked.begun.set()

    return Asked("A stream" if stream else "A request").run(deed)


def load(server: PrivateServer, model: str, options: JsonObject) -> Asked:
    """Load a model, even one that has failed before."""

    def deed(asked: Asked) -> None:
        with server.client() as client:
            asked.reply = client.load(model, options=options, force=True)

    return Asked("A load").run(deed)


def unload(server: PrivateServer) -> Asked:
    """Unload everything."""

    def deed(asked: Asked) -> None:
        with server.client() as client:
            asked.reply = client.unload()

    return Asked("An unload").run(deed)


def pause(seconds: float) -> None:
    """Let a moment go on."""
    time.sleep(seconds)
