"""A recipe, a model and a machine to plan with."""

from __future__ import annotations

import tomllib
from pathlib import Path

from lemonade.catalog.backend import BackendSpec
from lemonade.catalog.model import ModelSpec
from lemonade.catalog.recipe import RecipeSpec
from lemonade.core.bundle import Bundle
from lemonade.core.process import Endpoint
from lemonade.hardware.facts import Cpu, Evidence, Machine, Problem
from lemonade.planning import EffectiveOptions, LaunchFacts

CHECKOUT = Path(__file__).resolve().parents[3]

MACHINE = Machine(
    os="linux",
    os_version="Debian 12",
    kernel="6.1",
    cpu=Cpu("a cpu", "x86_64", 4, 8, frozenset({"avx2", "f16c", "fma"})),
    memory_bytes=16 << 30,
)


def recipe(name: str = "llamacpp") -> RecipeSpec:
    text = (CHECKOUT / "recipes" / f"{name}.toml").read_text()
    return RecipeSpec.model_validate(tomllib.loads(text))


def backend(name: str = "llamacpp-wheel") -> BackendSpec:
    text = (CHECKOUT / "backends" / f"{name}.toml").read_text()
    return BackendSpec.model_validate(tomllib.loads(text))


def a_recipe(**changes: object) -> RecipeSpec:
    """A small recipe of an engine that does not exist."""
    document: dict[str, object] = {
        "schema": 1,
        "id": "mill",
        "title": "Mill",
        "section": "mill",
        "modality": "Flour",
        "modes": ["chat"],
        "files": "repository",
        "upstream": {"ready": "/ready", "operations": {"chat": "/chat"}},
        "argv": {"always": ["--port", "{port}"]},
    }
    return RecipeSpec.model_validate(document | changes)


def model(**changes: object) -> ModelSpec:
    document: dict[str, object] = {
        "name": "Tiny",
        "origin": "builtin",
        "recipe": "llamacpp",
        "checkpoint": "owner/tiny:Q8_0",
        "labels": ["chat"],
    }
    return ModelSpec.model_validate(document | changes)


def facts(**changes: object) -> LaunchFacts:
    given: dict[str, object] = {
        "model": model(),
        "served_name": "Tiny",
        "recipe": recipe(),
        "backend": backend(),
        "bundle": Bundle(
            backend().backend_id,
            "1.0",
            Path("/bundles/llamacpp-wheel/1.0"),
            ("/bundles/llamacpp-wheel/1.0/bin/python", "-I", "{overlay}/server.py"),
        ),
        "overlay": Path("/shipped/backends/llamacpp-wheel.overlay"),
        "files": {"main": (Path("/models/tiny.gguf"),)},
        "machine": MACHINE,
        "options": EffectiveOptions({"ctx_size": -1, "merge_args": True}, {}),
        "endpoint": Endpoint("127.0.0.1", 40123),
        "api_key": "s3cret",
        "log_file": None,
        "environ": {"PATH": "/usr/bin", "HOME": "/home/me"},
        "compile_cache": Path("/cache/compile/llamacpp-wheel-1.0"),
    }
    return LaunchFacts(**(given | changes))  # type: ignore[arg-type]


def broken(reason: str) -> Problem | None:
    """A device's problem in these words; none if they are empty."""
    return Problem("no-compute", reason, Evidence("/dev", ""), "Mend it.") if reason else None
