"""What is tried: a model on the fake engine, or the shipped one on the embedded engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from lemonade.catalog import Catalog, shipped
from lemonade.core.errors import UnsupportedHere
from lemonade.core.records import dataclass
from lemonade.selftest.asking import ask
from lemonade.selftest.draw import EngineKind
from lemonade.selftest.place import FAKE_MODEL
from lemonade.selftest.server import PrivateServer

TOKENS: Final = 3
"""How long answers are that are compared."""

STREAM_TOKENS: Final = 40
ARGS: Final = "selftest_args"
_HANGS_AFTER: Final = 3
"""Seconds that the embedded engine may stand still."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model whose answers are known.

    Attributes:
        model: its name.
        options: it is loaded with.
        answer: to the question, with `TOKENS` tokens.
        answers: all that are right, longer ones included; empty if nobody knows.
    """

    kind: EngineKind
    model: str
    answer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    answers: frozenset[str] = frozenset()

    def fits(self, text: str) -> bool:
        """Whether a text is an answer to the question."""
        return text in self.answers if self.answers else text.startswith(self.answer)


def fake_subject() -> Subject:
    """The fake engine, whose answers are words that are counted."""
    answers = ["".join(f"word{n} " for n in range(count)) for count in (TOKENS, STREAM_TOKENS)]
    return Subject(EngineKind.FAKE, FAKE_MODEL, answers[0], answers=frozenset(answers))


def embedded_subject(server: PrivateServer) -> Subject:
    """Install the embedded engine and ask it once what is right.

    Raises:
        UnsupportedHere: this machine or this build has none.
        LemonadeError: it cannot be installed, or does not answer.
    """
    model, backend, options = _embedded()
    recipe, _, variant = backend.partition(":")
    with server.client() as client:
        for _progress in client.install(recipe, variant):
            pass
        client.load(model, options=options, save_options=True)
        asked = ask(server, model, most_tokens=TOKENS)
        asked.wait()
        if asked.error is not None:
            raise asked.error
        client.unload()
    return Subject(EngineKind.EMBEDDED, model, asked.text, options)


def _embedded() -> tuple[str, str, dict[str, Any]]:
    """A model that came with Lemonade, the embedded backend that runs it, and options for it."""
    catalog = Catalog.load((shipped(),))
    models = [m for m in catalog.builtin_models().values() if m.source == "shipped"]
    for spec in sorted(models, key=lambda one: "hot" not in one.labels):
        recipe = catalog.recipes[spec.recipe]
        backend = next((one for one in catalog.backends_of(recipe.id) if one.embedded), None)
        if backend is None or spec.mode != "chat":
            continue
        chosen = {o.name: backend.backend_id.variant for o in recipe.option if o.type == "backend"}
        few = dict(recipe.canary.options) if recipe.canary is not None else {}
        return (
            spec.canonical_name,
            backend.id,
            {**few, **chosen, "stall_timeout": _HANGS_AFTER},
        )
    raise UnsupportedHere("This build has no embedded engine and a model for it.")
