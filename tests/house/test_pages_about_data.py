"""The pages about configuration, backends and recipes tell what the code does."""

from __future__ import annotations

import re

from lemonade.catalog import Catalog
from lemonade.catalog.reference import render_reference as backends_table
from lemonade.config import AccessKeys, render_reference
from lemonade.config.settings import all_fields
from tests.house.tree import CHECKOUT

PAGE = (CHECKOUT / "docs" / "configuration.md").read_text(encoding="utf-8")


def toml_of(page: str) -> str:
    """The one TOML block of a page."""
    block = re.search(
        r"```toml\n(.*?)```", (CHECKOUT / page).read_text(encoding="utf-8"), re.DOTALL
    )
    assert block is not None
    return block[1]


def test_the_table_of_settings_is_up_to_date():
    block = re.search(r"<!-- generated: settings -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    assert block is not None
    assert block[1] == render_reference(), "`make docs` writes it"


def test_the_table_of_backends_is_up_to_date():
    page = (CHECKOUT / "docs" / "backends.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- generated: backends -->\n(.*?)<!-- end -->", page, re.DOTALL)
    assert block is not None
    assert block[1] == backends_table(), "`make docs` writes it"


def test_every_setting_is_explained():
    for key, field in all_fields():
        assert field.description, key
        assert field.description.endswith("."), key


def test_every_variable_of_the_keys_is_explained():
    assert AccessKeys.from_environ({}).api_key == ""
    for name in ("LEMONADE_API_KEY", "LEMONADE_ADMIN_API_KEY", "LEMONADE_ALLOWED_ORIGINS"):
        assert f"`{name}`" in PAGE


def test_every_variable_the_code_reads_is_explained():
    pattern = re.compile(r"""["'](LEMONADE_[A-Z]+(?:_[A-Z]+)*|HF_[A-Z_]+)["']""")
    read = {
        name
        for path in (CHECKOUT / "lemonade").rglob("*.py")
        for name in pattern.findall(path.read_text(encoding="utf-8"))
    }
    assert read
    assert not {name for name in read if f"`{name}`" not in PAGE}


def test_the_examples_of_a_recipe_and_a_backend_load(tmp_path):
    recipe = toml_of("recipes/README.md").replace('launch = ["my-quirk"]', "launch = []")
    backend = toml_of("backends/README.md").replace("llamacpp:mine", "brew:mine")
    for folder, name, text in (
        ("recipes", "brew.toml", recipe),
        ("backends", "brew-mine.toml", backend),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text, encoding="utf-8")
    (tmp_path / "backends" / "brew-mine.overlay").mkdir()
    catalog = Catalog.load([tmp_path])
    assert catalog.backends_of("brew")[0].title == "llama.cpp, my build"
    assert catalog.sections()["brew"].defaults == {"args": "", "prefer_system": True}
