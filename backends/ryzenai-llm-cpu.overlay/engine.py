"""The one thread that computes: takes wishes in turn, gives parts of answers back.

The library allows one thread, so answers that are made at the same time take turns token by token;
a short one does not wait for a long one. Some wait in a queue of limited length, the rest is
refused. A prompt is computed in pieces, so that a client who leaves during a long one is noticed.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from binding import Failed, Generator, Model, load
from parting import THINK, Called, Part, Parting, Said, Stops
from wishes import Refused, Wish

PIECE = 256  # tokens of a prompt that are computed in one go
QUEUE = 64  # answers that may wait
ROOM = 8192  # tokens, where nobody says: the memory of an answer is reserved for all of them
CONFIGURATION = "genai_config.json"


@dataclass(frozen=True)
class Finish:
    """How an answer ended. `reason` is OpenAI's: stop, length, tool_calls."""

    reason: str
    prompt_tokens: int
    tokens: int


Event = Part | Finish | Refused | None
"""`None` says that the prompt was accepted: what follows is the answer."""


@dataclass(frozen=True)
class Options:
    """How the engine is to run.

    Attributes:
        context: tokens of prompt and answer together; 0 is what the model has, or `ROOM`.
        threads: 0 is what the library takes.
        parallel: answers made at the same time.
    """

    folder: Path
    context: int = 0
    threads: int = 0
    parallel: int = 2


class Job:
    """One answer, as the engine sees it. `cancel` may be called from any thread."""

    def __init__(self, wish: Wish, tell: Callable[[Event], None]) -> None:
        """`tell` is called in the engine's thread."""
        self.wish = wish
        self._tell = tell
        self._cancelled = threading.Event()
        self._generator: Generator | None = None
        self._prompt: list[int] = []
        self._done = 0
        self._limit = 0
        self._tokens = 0
        self._stops = Stops(wish.stop)
        self._parting: Parting | None = None
        self.ended = False

    def cancel(self) -> None:
        """Nobody listens any more: it ends at the next token."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether it was."""
        return self._cancelled.is_set()

    def begin(self, engine: Engine) -> None:
        """Read the prompt, and see whether it fits.

        Raises:
            Refused: it does not.
        """
        wish, model = self.wish, engine.model
        prompt = wish.prompt
        if wish.messages:
            prompt = engine.rendered(wish)
            thinking = prompt.rstrip().endswith(THINK)
            self._parting = Parting(thinking=thinking, tools=bool(wish.tools))
        self._prompt = model.encode(prompt)
        size, room = len(self._prompt), engine.context
        if not size:
            raise Refused("The prompt is empty.", param="messages")
        if size >= room:
            raise Refused(
                f"This model's maximum context length is {room} tokens, and the prompt has "
                f"{size}. Shorten it, or load the model with a larger ctx_size.",
                param="messages" if wish.messages else "prompt",
                code="context_length_exceeded",
            )
        self._limit = min(room, size + (wish.max_tokens or room))
        search = {**wish.search, "max_length": self._limit}
        if wish.endless:
            search["min_length"] = self._limit
        try:
            self._generator = model.generator(search, wish.schema)
        except Failed as error:
            raise Refused(f"The engine refuses: {error}") from error
        engine.count_prompt(size)
        self._tell(None)

    def step(self, engine: Engine) -> None:
        """Compute one piece of the prompt, or one token of the answer.

        Raises:
            Failed: the library did.
        """
        generator = self._generator
        assert generator is not None
        if self._done < len(self._prompt):
            piece = self._prompt[self._done : self._done + PIECE]
            generator.append(piece)
            self._done += len(piece)
            return
        token = generator.step()
        self._tokens += 1
        engine.count_token()
        text = "" if token in engine.ends else generator.text_of(token)
        ended = generator.done
        if ended:
            text += generator.rest()
        self._give(self._stops.feed(text))
        if self._stops.hit:
            self._finish("stop")
        elif ended:
            self._finish("stop" if token in engine.ends else "length")

    def fail(self, error: Refused) -> None:
        """End with an error."""
        self._tell(error)
        self.close()

    def close(self) -> None:
        """Give back what it holds."""
        self.ended = True
        if self._generator is not None:
            self._generator.close()
            self._generator = None

    def _give(self, text: str) -> None:
        if self._parting is None:
            if text:
                self._tell(Said(text))
            return
        for part in self._parting.feed(text):
            self._tell(part)

    def _finish(self, reason: str) -> None:
        self._give(self._stops.end())
        if self._parting is not None:
            for part in self._parting.end():
                self._tell(part)
            if self._parting.calls and reason == "stop":
                reason = "tool_calls"
        self._tell(Finish(reason, len(self._prompt), self._tokens))
        self.close()


class Engine:
    """The model and those who wait for it.

    Attributes:
        loaded: whether it can answer.
        failure: why it never will, or nothing.
        context: tokens of prompt and answer together.
        prompt_tokens, tokens: computed so far.
    """

    def __init__(self, options: Options, settled: Callable[[], None]) -> None:
        """Nothing is loaded yet; `settled` is called in the engine's thread when it is, or not."""
        self._options = options
        self._settled = settled
        self._wanted = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._working: deque[Job] = deque()
        self._template = ""
        self.loaded = False
        self.failure = ""
        self.context = 0
        self.ends: frozenset[int] = frozenset()
        self.prompt_tokens = self.tokens = 0

    def start(self) -> None:
        """Begin to load, and then to work."""
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def submit(self, job: Job) -> None:
        """Have it answered.

        Raises:
            Refused: too many wait already.
        """
        with self._wanted:
            if len(self._waiting) >= QUEUE:
                raise Refused(
                    f"{QUEUE} requests are waiting already.",
                    status=503,
                    kind="unavailable_error",
                    code="queue_full",
                )
            self._waiting.append(job)
            self._wanted.notify()

    @property
    def load(self) -> tuple[int, int]:
        """How many answers are in the making, and how many wait."""
        return len(self._working), len(self._waiting)

    def count_prompt(self, tokens: int) -> None:
        """A prompt of so many tokens was accepted."""
        self.prompt_tokens += tokens

    def count_token(self) -> None:
        """A token was made."""
        self.tokens += 1

    def rendered(self, wish: Wish) -> str:
        """The conversation as text.

        Raises:
            Refused: the model's template does not take it.
        """
        template = ""
        if wish.template_settings:
            if not self._template:
                raise Refused(
                    "This model has no template of its own to set anything in.",
                    param="chat_template_kwargs",
                )
            sets = (
                f"{{%- set {k} = {_literal(v)} -%}}" for k, v in wish.template_settings.items()
            )
            template = "".join(sets) + self._template
        try:
            return self.model.render(wish.messages, wish.tools, template)
        except Failed as error:
            raise Refused(f"The model's chat template: {error}", param="messages") from error

    def _run(self) -> None:
        try:
            self._load()
        except (Failed, OSError, ValueError, TypeError, KeyError) as error:
            self.failure = str(error) or repr(error)
            self._settled()
            return
        self.loaded = True
        self._settled()
        while True:
            self._turn()

    def _load(self) -> None:
        folder, threads = self._options.folder, self._options.threads
        document = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
        described = document["model"]
        ends = described.get("eos_token_id", [])
        self.ends = frozenset(ends if isinstance(ends, list) else [ends])
        longest = int(described.get("context_length") or ROOM)
        self.context = min(longest, self._options.context or ROOM)
        self._template = _template_in(folder)
        overlay = ""
        if threads:
            session = {"session_options": {"intra_op_num_threads": threads}}
            overlay = json.dumps({"model": {"decoder": session}})
        self.model = Model(load(), folder, overlay)

    def _turn(self) -> None:
        """One step of the answer whose turn it is."""
        with self._wanted:
            while not self._waiting and not self._working:
                self._wanted.wait()
            if self._waiting and len(self._working) < self._options.parallel:
                job = self._waiting.popleft()
                fresh = True
            else:
                job, fresh = self._working[0], False
                self._working.rotate(-1)
        if fresh and job.cancelled:
            return
        try:
            if job.cancelled:
                job.close()
            elif fresh:
                job.begin(self)
                self._working.append(job)
            else:
                job.step(self)
        except Refused as refusal:
            job.fail(refusal)
        except Failed as error:
            line = (str(error).splitlines() or [""])[0]  # the rest is for its makers
            job.fail(Refused(f"The engine failed: {line}", status=500, kind="server_error"))
        if job.ended and not fresh:
            self._working.remove(job)


def _literal(value: object) -> str:
    """A plain value as Jinja writes it, which is nearly JSON."""
    return json.dumps(value)


def _template_in(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    try:
        found = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    template = found.get("chat_template") if isinstance(found, dict) else None
    return template if isinstance(template, str) else ""


__all__ = ["Called", "Engine", "Event", "Finish", "Job", "Options"]
