"""Why models are not offered on this machine: in lists as in loads it is the same sentence."""

from __future__ import annotations

from typing import Final

from lemonade.catalog import Catalog, ModelSpec, not_run_reason, unavailable_reason
from lemonade.config import Configuration
from lemonade.core.errors import UnsupportedHere
from lemonade.hardware import Machine
from lemonade.planning import judge_for

MEMORY_SHARE: Final = 0.8
"""What a model may take of main memory where there is no larger pool of a device."""


class Availability:
    """Judges each backend once; short-lived."""

    def __init__(self, catalog: Catalog, configuration: Configuration, machine: Machine) -> None:
        self._catalog = catalog
        self._machine = machine
        self._filters = not configuration.settings.disable_model_filtering
        self._known: dict[tuple[str, frozenset[str]], str | None] = {}
        pools = [gpu.pool_bytes for gpu in machine.gpus]
        self._pool_bytes = max([*pools, int(machine.memory_bytes * MEMORY_SHARE)])

    def of(self, spec: ModelSpec) -> str | None:
        """A sentence, or `None` if it can run here."""
        if not self._filters:
            return None
        return unavailable_reason(spec, self._catalog, self._why_not, self._pool_bytes)

    def check(self, spec: ModelSpec, name: str, *, to_run: bool = False) -> None:
        """Refuse what cannot run here.

        `to_run` refuses also what is shown with the filter off, and no setting makes run.

        Raises:
            UnsupportedHere: with the reason, and what to do where something can be done.
        """
        not_run = not_run_reason(spec, self._catalog)
        reason = (not_run if to_run else None) or self.of(spec)
        if reason is None:
            return
        too_large = (
            not not_run and spec.recipe in self._catalog.recipes and self._why_not(spec) is None
        )
        remedy = (
            "Choose a smaller one; `lemonade config set disable_model_filtering=true` tries it "
            "all the same."
            if too_large
            else "GET /v1/models?show_all=true lists the models that can."
        )
        raise UnsupportedHere(
            f"{name} cannot run here. {reason}",
            remedy=remedy,
            facts={"requested_model": name},
        )

    def _why_not(self, spec: ModelSpec) -> str | None:
        checkpoint = spec.checkpoints.get("main", "")
        backends = self._catalog.backends_of(spec.recipe)
        # Models of a recipe differ by what their names rule out, and few do.
        out = frozenset(backend.id for backend in backends if not backend.runs(checkpoint))
        key = (spec.recipe, out)
        if key not in self._known:
            verdicts = [judge_for(backend, self._machine, checkpoint) for backend in backends]
            self._known[key] = (
                None
                if any(verdict.supported for verdict in verdicts)
                else " ".join(verdict.reason for verdict in verdicts) or "It has no backend."
            )
        return self._known[key]
