"""What the next server has to know to serve an engine without loading it again.

What becomes of it is the work of the supervisor, which does not look into it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from lemonade.core.inference import JsonObject
from lemonade.core.process import ProcessSpec
from lemonade.residency.fitted import Fitted
from lemonade.residency.holding import Holding
from lemonade.residency.resident import Phase, Resident

SPEC = TypeAdapter(ProcessSpec)
FITTED = TypeAdapter(dict[str, Fitted])


class KeptModel(BaseModel):
    """A loaded model, as one server tells it to the next.

    Attributes:
        model: its declaration; a model that is declared otherwise now is loaded anew.
        served_name: the name its engine answers to.
        backend: id of what runs it.
        spec: what the engine was started from, without its environment.
        api_key: of the engine.
        options: what the load was asked with.
        values: what it runs with, by option; with `origins` of each.
        adapters: what its engine has besides the model.
        lock: the file by which its version is kept from being removed; empty if that is not ours.
        context: how many tokens it holds; 0 if it was not asked.
        since: when it began to serve.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: dict[str, Any]
    served_name: str
    backend: str
    spec: dict[str, Any]
    api_key: str
    options: dict[str, Any]
    values: dict[str, Any]
    origins: dict[str, str]
    adapters: dict[str, Any]
    lock: str
    context: int
    fingerprint: str
    pinned: bool
    kept: bool
    notices: tuple[str, ...]
    since: float


def facts_of(resident: Resident) -> JsonObject | None:
    """What there is to tell of a resident that serves, without its key; `None` of any other."""
    instance = resident.instance
    serves = resident.phase is Phase.SERVING and not resident.ending
    if not serves or instance is None or resident.backend is None or resident.options is None:
        return None
    held = resident.held
    return KeptModel(
        model=resident.spec.model_dump(mode="json"),
        served_name=resident.served_name,
        backend=resident.backend.id,
        spec=SPEC.dump_python(replace(instance.spec, env={}), mode="json"),
        api_key="",
        options=dict(resident.request.options),
        values=dict(resident.options.values),
        origins=dict(resident.options.origins),
        adapters=FITTED.dump_python(resident.adapters, mode="json"),
        lock=held.lock if isinstance(held, Holding) else "",
        context=resident.context,
        fingerprint=resident.fingerprint,
        pinned=resident.pinned,
        kept=resident.kept,
        notices=resident.notices,
        since=resident.since,
    ).model_dump(mode="json", exclude={"api_key"})
