"""A server whose engine has the habits of vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests

from tests.serving import PATIENCE, PROGRAMS, Serving, fake_catalog, fake_model

CONTEXT = 64

_UPSTREAM = """
usage = "on-request"
old_limit = true
own_name = true
metrics = "/metrics"
metrics_names = "own"

[upstream.limits]
count = "/tokenize"
context = "/v1/models"

[upstream.operations]
responses = "/v1/responses"
tokenize = "/tokenize"
"""


def vllm_like_catalog(home: Path, models: dict[str, str]) -> Path:
    """A catalogue of models by the arguments of their engine, which is of the recipe `fake`."""
    catalog = fake_catalog(home, program=PROGRAMS / "fake_vllm.py")
    recipe = catalog / "recipes" / "fake.toml"
    text = recipe.read_text()
    recipe.write_text(text.replace("\n[upstream.operations]\n", _UPSTREAM))
    for name, args in models.items():
        fake_model(catalog, name, args=f"--max-model-len {CONTEXT} {args}")
    return catalog


def engine_of(server: Serving, model: str) -> str:
    """The address of a loaded model's engine."""
    url: str = server.loaded()[model]["backend_url"].removesuffix("/v1")
    return url


def got(server: Serving, model: str) -> dict[str, Any]:
    """The last request as the engine got it."""
    last: dict[str, Any] = requests.get(
        f"{engine_of(server, model)}/fake/last", timeout=PATIENCE
    ).json()
    return last


def words(count: int) -> str:
    """A prompt of so many tokens."""
    return " ".join(f"w{number}" for number in range(count))
