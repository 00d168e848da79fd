"""ONNX Runtime GenAI through its C interface: models, tokens, and one generator per answer.

The package's own Python module is not used: it holds the interpreter's lock while a model loads
and while it computes, so that nobody could be answered meanwhile; and it needs numpy. Calls
through ctypes let the other threads run. The library is **not safe for several threads**: one
thread makes all calls that concern a model. What it reports as an error is `Failed`.
"""

from __future__ import annotations

import codecs
import ctypes
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGE = "onnxruntime-genai"

Pointer = ctypes.c_void_p
Text = ctypes.c_char_p
Tokens = ctypes.POINTER(ctypes.c_int32)


class Failed(Exception):
    """The library's own words."""


def version() -> str:
    """Of the installed package."""
    return importlib.metadata.version(PACKAGE)


def load() -> Library:
    """Load the two shared libraries out of their packages.

    Raises:
        Failed: they are not there, or this machine cannot load them.
    """
    # The library knows how to report on itself to its maker. Whoever asks a machine of his own
    # does not want that.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        runtime = next(_folder("onnxruntime").glob("capi/libonnxruntime.so.*"))
        os.environ["ORT_LIB_PATH"] = str(runtime)
        ctypes.CDLL(str(runtime))
        return Library(ctypes.CDLL(str(_folder("onnxruntime_genai") / "libonnxruntime-genai.so")))
    except (StopIteration, OSError) as error:
        raise Failed(f"{PACKAGE} cannot be loaded: {error or 'onnxruntime is missing'}") from error


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)  # looks, and imports nothing
    if found is None or not found.submodule_search_locations:
        raise Failed(f"The package {package} is not installed.")
    return Path(found.submodule_search_locations[0])


class Library:
    """The functions we call, with their types."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._error = self._plain("OgaResultGetError", Text, Pointer)
        self._forget_result = self._plain("OgaDestroyResult", None, Pointer)
        size, whole = ctypes.c_size_t, ctypes.c_int32
        out, text_out = ctypes.POINTER(Pointer), ctypes.POINTER(Text)
        self.create_config = self._checked("OgaCreateConfig", Text, out)
        self.overlay = self._checked("OgaConfigOverlay", Pointer, Text)
        self.create_model = self._checked("OgaCreateModelFromConfig", Pointer, out)
        self.create_tokenizer = self._checked("OgaCreateTokenizer", Pointer, out)
        self.template = self._checked(
            "OgaTokenizerApplyChatTemplate", Pointer, Text, Text, Text, ctypes.c_bool, out
        )
        self.forget_string = self._plain("OgaDestroyString", None, Pointer)
        self.create_sequences = self._checked("OgaCreateSequences", out)
        self.forget_sequences = self._plain("OgaDestroySequences", None, Pointer)
        self.encode = self._checked("OgaTokenizerEncode", Pointer, Text, Pointer)
        self.count = self._plain("OgaSequencesGetSequenceCount", size, Pointer, size)
        self.data = self._plain("OgaSequencesGetSequenceData", Tokens, Pointer, size)
        self.create_params = self._checked("OgaCreateGeneratorParams", Pointer, out)
        self.forget_params = self._plain("OgaDestroyGeneratorParams", None, Pointer)
        self.set_number = self._checked(
            "OgaGeneratorParamsSetSearchNumber", Pointer, Text, ctypes.c_double
        )
        self.set_bool = self._checked(
            "OgaGeneratorParamsSetSearchBool", Pointer, Text, ctypes.c_bool
        )
        self.set_guidance = self._checked(
            "OgaGeneratorParamsSetGuidance", Pointer, Text, Text, ctypes.c_bool
        )
        self.create_generator = self._checked("OgaCreateGenerator", Pointer, Pointer, out)
        self.forget_generator = self._plain("OgaDestroyGenerator", None, Pointer)
        self.append = self._checked("OgaGenerator_AppendTokens", Pointer, Tokens, size)
        self.generate = self._checked("OgaGenerator_GenerateNextToken", Pointer)
        self.next_tokens = self._checked(
            "OgaGenerator_GetNextTokens",
            Pointer,
            ctypes.POINTER(Tokens),
            ctypes.POINTER(size),
        )
        self.is_done = self._plain("OgaGenerator_IsDone", ctypes.c_bool, Pointer)
        self.create_stream = self._checked("OgaCreateTokenizerStream", Pointer, out)
        self.forget_stream = self._plain("OgaDestroyTokenizerStream", None, Pointer)
        self.decode = self._checked("OgaTokenizerStreamDecode", Pointer, whole, text_out)

    def made(self, create: Any, *arguments: Any) -> Pointer:  # noqa: ANN401 - C functions
        """What a function with an out parameter makes."""
        made = Pointer()
        create(*arguments, ctypes.byref(made))
        return made

    def _plain(self, name: str, result: Any, *types: Any) -> Any:  # noqa: ANN401
        function = getattr(self._library, name)
        function.restype, function.argtypes = result, types
        return function

    def _checked(self, name: str, *types: Any) -> Any:  # noqa: ANN401
        function = self._plain(name, Pointer, *types)

        def call(*arguments: Any) -> None:  # noqa: ANN401
            result = function(*arguments)
            if result:
                message = (self._error(result) or b"").decode(errors="replace").strip()
                self._forget_result(result)
                raise Failed(message)

        return call


class Model:
    """A loaded model with its tokenizer. Lives as long as the process."""

    def __init__(self, library: Library, folder: Path, overlay: str = "") -> None:
        """Load it; takes as long as it takes to read the weights.

        Args:
            library: from `load`.
            folder: has `genai_config.json`.
            overlay: JSON laid over that file.

        Raises:
            Failed: it cannot be loaded.
        """
        self._library = library
        config = library.made(library.create_config, os.fsencode(folder))
        if overlay:
            library.overlay(config, overlay.encode())
        self._model = library.made(library.create_model, config)
        self._tokenizer = library.made(library.create_tokenizer, self._model)

    def render(self, messages: str, tools: str = "", template: str = "") -> str:
        """A conversation as the text the model was trained on.

        Args:
            messages: JSON.
            tools: JSON, or nothing.
            template: instead of the model's own.

        Raises:
            Failed: there is no template, or it does not take such messages.
        """
        library = self._library
        texts = (_bytes(template), _bytes(messages), _bytes(tools))
        generating = True  # it ends where the answer begins
        rendered = library.made(
            library.template,
            self._tokenizer,
            texts[0] or None,
            texts[1],
            texts[2] or None,
            generating,
        )
        try:
            text: bytes = ctypes.string_at(rendered)
        finally:
            library.forget_string(rendered)
        return text.decode(errors="replace")

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        library = self._library
        sequences = library.made(library.create_sequences)
        try:
            library.encode(self._tokenizer, _bytes(text), sequences)
            return list(library.data(sequences, 0)[: library.count(sequences, 0)])
        finally:
            library.forget_sequences(sequences)

    def generator(self, search: Mapping[str, float | bool], schema: str = "") -> Generator:
        """One answer to be.

        Args:
            search: options by the names of `genai_config.json`, section `search`.
            schema: JSON schema the answer must follow, or nothing.

        Raises:
            Failed: an option is refused.
        """
        library = self._library
        params = library.made(library.create_params, self._model)
        try:
            for name, value in search.items():
                put = library.set_bool if isinstance(value, bool) else library.set_number
                put(params, name.encode(), value)
            if schema:
                forced = False  # no tokens are skipped that follow from the grammar
                library.set_guidance(params, b"json_schema", _bytes(schema), forced)
            made = library.made(library.create_generator, self._model, params)
        finally:
            library.forget_params(params)
        return Generator(library, made, library.made(library.create_stream, self._tokenizer))


class Generator:
    """One answer in the making. Whoever asked for it closes it."""

    def __init__(self, library: Library, generator: Pointer, stream: Pointer) -> None:
        self._library = library
        self._generator = generator
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def append(self, tokens: Sequence[int]) -> None:
        """Compute a part of the prompt."""
        self._library.append(self._generator, (ctypes.c_int32 * len(tokens))(*tokens), len(tokens))

    def step(self) -> int:
        """Compute the next token."""
        self._library.generate(self._generator)
        tokens, count = Tokens(), ctypes.c_size_t()
        self._library.next_tokens(self._generator, ctypes.byref(tokens), ctypes.byref(count))
        token: int = tokens[0]
        return token

    def text_of(self, token: int) -> str:
        """What the next token adds to the text; empty while a character is not complete."""
        text = Text()
        self._library.decode(self._stream, token, ctypes.byref(text))
        return self._decoder.decode(text.value or b"")

    def rest(self) -> str:
        """What is left of a character that was never completed."""
        return self._decoder.decode(b"", final=True)

    @property
    def done(self) -> bool:
        """Whether it came to an end, of the answer or of the room for it."""
        ended: bool = self._library.is_done(self._generator)
        return ended

    def close(self) -> None:
        """Give its memory back."""
        self._library.forget_generator(self._generator)
        self._library.forget_stream(self._stream)


def _bytes(text: str) -> bytes:
    """For C: a NUL would end the text, and half a surrogate pair is no UTF-8."""
    return text.replace("\0", "").encode("utf-8", "replace")
