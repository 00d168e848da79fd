"""A file that an argument names is there, or the load is refused with its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lemonade.core.errors import BadArgument
from lemonade.planning import parse_argv
from lemonade.residency.named_files import check_named_files
from tests.residency.stage import CATALOG


def check(recipe: str, text: str) -> None:
    check_named_files(parse_argv(text, "saved").arguments, CATALOG.recipe(recipe))


@pytest.fixture
def there(tmp_path: Path) -> Path:
    file = tmp_path / "a=b:c.gguf"
    file.write_bytes(b"GGUF")
    return file


@pytest.mark.parametrize(
    ("recipe", "text", "missing"),
    [
        ("llamacpp", "--lora /no/x.gguf", "/no/x.gguf"),
        ("llamacpp", "--lora relative.gguf", "relative.gguf"),
        ("llamacpp", "--lora {there},/no/x.gguf", "/no/x.gguf"),
        ("llamacpp", "--lora-scaled /no/x.gguf:0.5", "/no/x.gguf:0.5"),
        ("llamacpp", "--lora {there} --lora /no/y.gguf", "/no/y.gguf"),
        ("llamacpp", "--grammar-file=/no/g.gbnf", "/no/g.gbnf"),
        ("vllm", "--lora-modules a={there} b=/no/folder", "/no/folder"),
        ("vllm", "--lora_modules=a=/no/folder", "/no/folder"),
    ],
)
def test_what_is_not_there_is_named(there: Path, recipe: str, text: str, missing: str) -> None:
    with pytest.raises(BadArgument) as caught:
        check(recipe, text.replace("{there}", str(there)))
    assert caught.value.message.startswith(f"{missing} is not there; --")
    assert "of the model's saved options names it." in caught.value.message
    assert caught.value.facts["path"] == missing
    assert "absolute path" in caught.value.remedy


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        ("llamacpp", "--lora {there}"),
        ("llamacpp", "--lora-scaled {there}:0.5"),
        ("llamacpp", "--threads 4 --override-kv /no/x=int:1"),
        ("vllm", "--lora-modules a={there} b=owner/repo"),
        ("vllm", """--lora-modules '{"name": "a", "path": "/no/x"}'"""),
        ("ryzenai-llm", "--lora /no/x"),
    ],
)
def test_what_is_there_or_may_be_something_else_passes(
    there: Path, recipe: str, text: str
) -> None:
    check(recipe, text.replace("{there}", str(there)))
