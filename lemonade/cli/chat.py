"""`chat`: a conversation in the terminal, with commands that begin with a slash.

Lines come from the standard input, so that a conversation can be piped in. Ctrl-C stops an answer,
or ends the chat at the prompt.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import field
from typing import Final

import click

from lemonade.cli.answer import Answer, show_answer
from lemonade.cli.asking import choose_model
from lemonade.cli.command import Command
from lemonade.cli.listing import select, write_models
from lemonade.cli.loading import make_available
from lemonade.cli.render import is_terminal, note, out, style
from lemonade.cli.session import Session, pass_session
from lemonade.cli.status import loaded_models, write_loaded
from lemonade.client import LemonadeClient
from lemonade.core.errors import LemonadeError
from lemonade.core.inference import JsonObject
from lemonade.core.records import dataclass

_THINKING: Final[dict[str, bool | None]] = {
    "on": True,
    "true": True,
    "1": True,
    "off": False,
    "false": False,
    "0": False,
    "no": False,
    "default": None,
    "auto": None,
    "reset": None,
}


class _Over(Exception):
    """The person has said goodbye."""


@click.command(cls=Command)
@click.argument("model", required=False)
@click.option("--system", metavar="TEXT", help="What the model is told before the conversation.")
@click.option("--no-stream", is_flag=True, help="Show each answer when it is complete.")
@pass_session
def chat(session: Session, model: str | None, system: str | None, no_stream: bool) -> int:  # noqa: FBT001 - click calls it
    """Talk with a model in the terminal.

    Without MODEL with the one that is loaded, or one to be chosen. /help lists the commands.
    """
    client = session.client()
    name = model or _most_recent(client) or choose_model(client)
    make_available(client, name)
    return converse(client, name, system=system, stream=not no_stream)


def converse(
    client: LemonadeClient,
    model: str,
    *,
    system: str | None = None,
    thinking: bool | None = None,
    stream: bool = True,
) -> int:
    """Talk until the person or the input ends; the exit code.

    The model is loaded already.
    """
    conversation = Conversation(client, model, system or "", thinking=thinking, stream=stream)
    if conversation.person:
        out(style(f"Chatting with {model}.", bold=True) + " /help lists the commands.")
        _edit_lines()
    try:
        while True:
            conversation.turn(conversation.read(">>> "))
    except (_Over, EOFError, KeyboardInterrupt):
        if conversation.person:
            out()
        return 0


@dataclass(slots=True)
class Conversation:
    """One conversation: what was said, with whom, and how.

    Attributes:
        client: the server.
        model: that answers.
        system: told before everything; empty for nothing.
        thinking: reasoning on or off; None leaves it to the model.
        stream: show answers while they come.
        multiline: an empty line ends what is said, rather than every line.
        history: questions and answers.
        last: answer, for `/stats`.
        person: whether a person types and reads.
    """

    client: LemonadeClient
    model: str
    system: str = ""
    thinking: bool | None = None
    stream: bool = True
    multiline: bool = False
    history: list[JsonObject] = field(default_factory=list)
    last: Answer | None = None
    person: bool = field(default_factory=lambda: is_terminal() and sys.stdin.isatty())

    def read(self, prompt: str) -> str:
        """What is said next.

        Raises:
            EOFError: nothing any more.
        """
        line = self._line(prompt)
        if not self.multiline or line.startswith("/") or not line:
            return line
        lines = [line]
        try:
            while further := self._line("... "):
                lines.append(further)
        except KeyboardInterrupt:
            out()
            return ""
        except EOFError:
            pass
        return "\n".join(lines)

    def _line(self, prompt: str) -> str:
        return input(prompt if self.person else "")

    def turn(self, text: str) -> None:
        """A command, or a question and its answer; what fails is said and forgotten."""
        if not text.strip():
            return
        try:
            if text.startswith("/"):
                self._command(text)
            else:
                self._ask(text)
        except LemonadeError as error:
            note(f"Error: {error}")

    def _ask(self, text: str) -> None:
        question = {"role": "user", "content": text}
        messages = [{"role": "system", "content": self.system}] if self.system else []
        parameters = {} if self.thinking is None else {"enable_thinking": self.thinking}
        deltas = self.client.chat(
            self.model,
            [*messages, *self.history, question],
            stream=self.stream,
            parameters=parameters,
        )
        answer = show_answer(deltas, stoppable=True)
        self.last = answer
        if answer.text:
            self.history += [question, {"role": "assistant", "content": answer.text}]
        if self.person and answer.figures:
            out(style(answer.figures + ", stopped" * answer.interrupted, dim=True))

    def _command(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        entry = _COMMANDS.get(word.lower())
        if entry is None:
            note(f"There is no command {word}. /help lists them.")
            return
        entry(self, rest.strip())

    # ---- the commands

    def help(self, _rest: str) -> None:
        """Show this list."""
        shown: dict[str, list[str]] = {}
        for word, command in _COMMANDS.items():
            shown.setdefault(command.__doc__ or "", []).append(word)
        for text, words in shown.items():
            out(f"  {', '.join(words):<28} {text}")

    def exit(self, _rest: str) -> None:
        """End the chat."""
        raise _Over

    def clear(self, _rest: str) -> None:
        """Forget what was said."""
        self.history.clear()
        out("The conversation is forgotten.")

    def set_system(self, rest: str) -> None:
        """TEXT: tell the model something before everything; forgets what was said."""
        self.system = rest
        self.history.clear()
        out("The system text is set." if rest else "The system text is empty.")

    def switch(self, rest: str) -> None:
        """NAME: go on with another model; forgets what was said."""
        if not rest:
            out(f"Model: {self.model}")
            return
        make_available(self.client, rest)
        self.model = rest
        self.history.clear()
        out(f"Chatting with {rest}.")

    def load(self, rest: str) -> None:
        """NAME: load a model without talking with it."""
        if not rest:
            note("Which model? /load NAME")
            return
        make_available(self.client, rest)
        out(f"Model loaded successfully: {rest}")

    def unload(self, rest: str) -> None:
        """[NAME]: unload a model, or the one that answers here."""
        name = rest or self.model
        self.client.unload(name)
        out(f"Model unloaded successfully: {name}")

    def list_models(self, rest: str) -> None:
        """[--all] [--downloaded] [FILTER]: list models."""
        words = rest.split()
        everything = bool({"--all", "-a"} & set(words))
        downloaded = bool({"--downloaded", "-d"} & set(words))
        filters = [word for word in words if not word.startswith("-")]
        models = select(
            self.client.models(show_all=not downloaded), filters[0] if filters else None
        )
        if not everything:
            models = [m for m in models if "chat" in (m.get("labels") or ("chat",))]
        write_models(models, empty="No models.")

    def ps(self, _rest: str) -> None:
        """List the loaded models."""
        write_loaded(loaded_models(self.client.health()), same_machine=False)

    def stats(self, _rest: str) -> None:
        """Show figures of the last answer and of the server."""
        if self.last is not None and self.last.figures:
            out(f"Last answer: {self.last.figures}")
        for name, value in self.client.stats().items():
            if value is not None:
                out(
                    f"  {name:<28} {value:.2f}"
                    if isinstance(value, float)
                    else f"  {name:<28} {value}"
                )

    def think(self, rest: str) -> None:
        """[on|off|default]: let the model reason, or not."""
        if rest and rest.lower() not in _THINKING:
            note("Say /think on, /think off or /think default.")
            return
        if rest:
            self.thinking = _THINKING[rest.lower()]
        now = {True: "on", False: "off", None: "left to the model"}[self.thinking]
        out(f"Reasoning: {now}")

    def toggle_multiline(self, _rest: str) -> None:
        """Say several lines at a time; an empty one ends them."""
        self.multiline = not self.multiline
        out(f"Several lines: {'on, an empty line ends them' if self.multiline else 'off'}")


_COMMANDS: Final[dict[str, Callable[[Conversation, str], None]]] = {
    "/help": Conversation.help,
    "/exit": Conversation.exit,
    "/quit": Conversation.exit,
    "/clear": Conversation.clear,
    "/system": Conversation.set_system,
    "/model": Conversation.switch,
    "/load": Conversation.load,
    "/unload": Conversation.unload,
    "/list": Conversation.list_models,
    "/models": Conversation.list_models,
    "/ps": Conversation.ps,
    "/stats": Conversation.stats,
    "/think": Conversation.think,
    "/reasoning": Conversation.think,
    "/reason": Conversation.think,
    "/multiline": Conversation.toggle_multiline,
}


def _most_recent(client: LemonadeClient) -> str | None:
    """The model that was used last, of those that one can talk with."""
    health = client.health()
    rows = [m for m in loaded_models(health) if m.type == "llm"]
    last = health.get("model_loaded")
    if any(row.name == last for row in rows):
        return str(last)
    return max(rows, key=lambda row: row.last_use or 0).name if rows else None


def _edit_lines() -> None:
    """Arrow keys and a history of lines, where Python has them."""
    with suppress(ImportError):
        import readline  # noqa: F401 - importing it is what changes input()
