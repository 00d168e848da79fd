"""`ModelSpec`: one entry of `server_models.json` or of the user's own registry."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lemonade.core.inference import ModelType

Origin = Literal["builtin", "user", "extra"]

MODE_TYPES: Final[dict[str, ModelType]] = {
    "chat": ModelType.LLM,
    "embeddings": ModelType.EMBEDDING,
    "embedding": ModelType.EMBEDDING,
    "reranking": ModelType.RERANKING,
    "transcription": ModelType.TRANSCRIPTION,
    "image": ModelType.IMAGE,
    "tts": ModelType.TTS,
    "audio-generation": ModelType.AUDIO_GENERATION,
    "classification": ModelType.CLASSIFICATION,
    "classifier": ModelType.CLASSIFICATION,
    "3d": ModelType.MESH,
}
"""Deployment labels and the type each makes a model. `chat` wins when several are looked at."""

SHIPPED_SOURCE: Final = "shipped"
"""`source` of the models that are part of the package: the checkpoint is a file name there."""

LOCAL_SOURCE: Final = "local_path"
"""`source` of a model whose checkpoints are absolute paths on this machine."""

EXTRA_SOURCE: Final = "extra_models_dir"
"""`source` of a model found in the operator's own model directory."""


def beside_main(main: str, file: object) -> str:
    """The checkpoint of a file that lies where the main one does: its repository or its folder."""
    if main.startswith("/"):
        return str(PurePosixPath(main).parent / str(file))
    return f"{main.partition(':')[0]}:{file}"


class ModelSpec(BaseModel):
    """A model as declared. Unknown keys are kept (`model_extra`), as clients replay them.

    Attributes:
        name: bare, without `user.`, `extra.` or `builtin.`.
        origin: which registry declares it.
        recipe: how it is run.
        checkpoints: role to `owner/repo[:variant]`, to a file name of the package (`shipped`) or
            to an absolute path. `main` is always there.
        labels: modes and capabilities.
        size_gb: as declared (units of 1e9 bytes); 0 when unknown.
        suggested: whether listings put it forward.
        source: registry (`huggingface`, `modelscope`) or one of the three special sources above.
        recipe_options: defaults for loading.
    """

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    name: str
    origin: Origin
    recipe: str
    checkpoints: dict[str, str]
    labels: tuple[str, ...] = ()
    size_gb: float = Field(default=0.0, alias="size", ge=0, allow_inf_nan=False, strict=True)
    suggested: bool = Field(default=False, strict=True)
    source: str = "huggingface"
    recipe_options: dict[str, Any] = Field(default_factory=dict)
    image_defaults: dict[str, Any] | None = None
    components: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _fold_checkpoint(cls, data: Any) -> Any:  # noqa: ANN401 - pydantic hands over anything
        """`checkpoint` and `mmproj` become entries of `checkpoints`; `null` is not there."""
        if not isinstance(data, dict):
            return data
        data = {key: value for key, value in data.items() if value is not None}
        checkpoints: dict[str, Any] = {}
        if (main := data.pop("checkpoint", None)) is not None:
            checkpoints["main"] = main
        declared = data.pop("checkpoints", None) or {}
        if not isinstance(declared, dict):
            raise ValueError("checkpoints must be an object of role and checkpoint")  # noqa: TRY004
        checkpoints.update(declared)
        mmproj = data.pop("mmproj", None)
        if mmproj and "main" in checkpoints:
            checkpoints.setdefault("mmproj", beside_main(str(checkpoints["main"]), mmproj))
        data["checkpoints"] = checkpoints
        return data

    @model_validator(mode="after")
    def _has_main(self) -> ModelSpec:
        if "main" not in self.checkpoints and not self.components:
            raise ValueError("a model needs a checkpoint for the role 'main'")
        return self

    @property
    def canonical_name(self) -> str:
        """`user.X`, `extra.X` or `builtin.X`: unique across registries."""
        return f"{self.origin}.{self.name}"

    @property
    def is_collection(self) -> bool:
        """Whether it stands for other models instead of having files of its own."""
        return self.recipe.startswith("collection.")

    @property
    def mode(self) -> str:
        """The deployment label; `chat` wins, and is the answer when there is none."""
        if "chat" in self.labels:
            return "chat"
        return next((label for label in self.labels if label in MODE_TYPES), "chat")

    @property
    def type(self) -> ModelType:
        """What residency counts it as."""
        return MODE_TYPES[self.mode]
