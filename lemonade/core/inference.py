"""The words dialects, residency and gateway share about a request for inference.

Records of which every request makes one are msgspec's: that takes a fifth of a dataclass's time.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object we do not own. Treated as immutable: a changed copy is made, never an edit."""


class Operation(StrEnum):
    """What a client wants an engine to do. Recipes say which path serves it."""

    CHAT = "chat"
    COMPLETION = "completion"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    TOKENIZE = "tokenize"
    SLOTS = "slots"


class ModelType(StrEnum):
    """What kind of model it is; residency counts its slots per type."""

    LLM = "llm"
    EMBEDDING = "embedding"
    RERANKING = "reranking"
    TRANSCRIPTION = "transcription"
    IMAGE = "image"
    TTS = "tts"
    AUDIO_GENERATION = "audio-generation"
    CLASSIFICATION = "classification"
    MESH = "mesh"


class Inference(msgspec.Struct, frozen=True):
    """One request, read as far as needed.

    Attributes:
        operation: what is wanted.
        model: the name as the client wrote it.
        stream: whether a stream was asked for.
        body: the bytes to send to the child; the client's own unless a documented field is ours.
        adapter: name of the model's adapter that shall answer; empty for the model as it is.
    """

    operation: Operation
    model: str
    stream: bool
    body: bytes
    adapter: str = ""


class Usage(msgspec.Struct, frozen=True):
    """What a finished request cost. Times are seconds; `None` means the engine did not say.

    Attributes:
        input_tokens: prompt tokens that had to be processed (cached ones excluded where known).
        output_tokens: tokens made.
        prompt_tokens: the prompt's length, cached part included.
        cache_tokens: of them, how many came from the engine's cache.
        time_to_first_token: from the request's arrival at us to the first byte of content.
        tokens_per_second: of generation.
        finish_reason: as the engine names it.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    cache_tokens: int | None = None
    time_to_first_token: float | None = None
    tokens_per_second: float | None = None
    finish_reason: str | None = None
