"""What the Prometheus page says of others than the requests: loaded models, and the machine."""

from __future__ import annotations

from typing import Final

from lemonade.core.records import dataclass

MODEL_LABELS: Final = ("model_name", "checkpoint", "type", "device", "recipe")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What the page says of a model that can be used now."""

    model_name: str
    checkpoint: str
    type: str
    device: str
    recipe: str

    def labels(self) -> dict[str, str]:
        """Its labels, on our own samples and on those of its engine."""
        return {
            "model_name": self.model_name,
            "checkpoint": self.checkpoint,
            "type": self.type,
            "device": self.device,
            "recipe": self.recipe,
        }


@dataclass(frozen=True, slots=True)
class HostLoad:
    """How busy the machine is. `None` is unknown; its samples are left out then.

    Attributes:
        cpu_percent: 0 to 100.
        memory_bytes: used.
        gpu_percent: 0 to 100.
        vram_bytes: used.
        npu_percent: 0 to 100.
    """

    cpu_percent: float | None = None
    memory_bytes: int | None = None
    gpu_percent: float | None = None
    vram_bytes: int | None = None
    npu_percent: float | None = None
