"""A wrong file is told by file, table and key; and what the catalog says about a good one."""

from __future__ import annotations

import re

import pytest

from lemonade.core.errors import BadDescriptor, UnknownBackend, UnknownRecipe
from lemonade.core.ids import BackendId
from tests.unit.catalog.conftest import BACKEND, RECIPE

CANARY = '[canary]\nmodel = "tiny.gguf"\n'
WRONG = [
    # file, what is replaced, by what, what the message says
    ("recipes/brew.toml", "schema   = 1", "schema = 2", ["key 'schema'", "1"]),
    ("recipes/brew.toml", "schema   = 1", "", ["key 'schema'", "missing"]),
    ("recipes/brew.toml", "section  =", "sction  =", ["key 'section'", "missing"]),
    ("recipes/brew.toml", "[settings]", "[settigns]", ["key 'settigns'", "no such key"]),
    ("recipes/brew.toml", 'ready = "/health"', "", ["in [upstream]", "key 'ready'", "missing"]),
    ("recipes/brew.toml", "[upstream]", "runs = false\n[upstream]", ["[upstream]", "'runs' says"]),
    ("recipes/brew.toml", '"90s"', '"soon"', ["in [upstream]", "key 'ready_within'", "duration"]),
    ("recipes/brew.toml", "chat = ", "chatter = ", ["in [upstream.operations", "chatter"]),
    ("recipes/brew.toml", '"reranking"]', '"dance"]', ["key 'modes, number 3'", "'chat'"]),
    ("recipes/brew.toml", 'type = "argv"', 'type = "list"', ["in [option.#1]", "key 'type'"]),
    ("recipes/brew.toml", "{host}", "{hsot}", ["in [argv]", "key 'always'", "{hsot}", "{host}"]),
    ("recipes/brew.toml", '"{port}"', '"{ctx_size}"', ["key 'always'", "{ctx_size}"]),
    ("recipes/brew.toml", '"{port}"', '"{checkpoint.mmproj}"', ["{checkpoint.mmproj}"]),
    ("recipes/brew.toml", "mmproj = [", "draft = [", ["[argv.for_checkpoint]", "'draft'", "main"]),
    ("recipes/brew.toml", "[argv]", "[argv", ["not valid TOML", "line"]),
    ("recipes/brew.toml", "[argv]", CANARY + 'mode = "tts"\n[argv]', ["[canary]", "'mode'"]),
    ("recipes/brew.toml", "[argv]", CANARY + "size = 1\n[argv]", ["[canary]", "'size'"]),
    ("recipes/brew.toml", "[argv]", CANARY + "options = { x = 1 }\n[argv]", ["'x'", "no such"]),
    ("recipes/brew.toml", "[argv]", CANARY + 'operation = "embeddings"\n[argv]', ["serves chat"]),
    ("recipes/brew.toml", "[argv]", CANARY + 'answers_within = "x"\n[argv]', ["duration"]),
    ("recipes/whole.toml", 'section  = "whole"', 'section = "brew"', ["section", "belongs to"]),
    ("recipes/whole.toml", 'id       = "whole"', 'id = "brew"', ["key 'id'", "brew.toml"]),
    ("backends/brew-cpu.toml", "brew:cpu", "brew", ["key 'id'", "recipe:variant"]),
    ("backends/brew-cpu.toml", "brew:cpu", "brwe:cpu", ["key 'id'", "no recipe 'brwe'", "brew"]),
    ("backends/brew-cpu.toml", '"system"', '"cloud"', ["in [pin]", "key 'source'", "'pypi'"]),
    ("backends/brew-cpu.toml", '"cpu"]', '"gpus"]', ["key 'devices, number 1'", "'gpu'"]),
    ("backends/brew-cpu.toml", "{executable}", "{python}", ["[bundle]", "'argv'", "{python}"]),
    ("backends/brew-cpu.toml", "preference = 50", 'preference = "x"', ["'preference'", "integer"]),
    ("backends/brew-cpu.toml", "os = [", "oss = [", ["in [runs_on.#1]", "key 'oss'", "no such"]),
    ("server_models.json", '"recipe": "brew",', "", ["in [Stout-GGUF]", "'recipe'", "missing"]),
    ("server_models.json", '"size": 1.5', '"size": "1.5"', ["in [Stout-GGUF]", "'size'"]),
    ("server_models.json", '"chat", "hot"', '"chat", "image"', ["[Stout-GGUF]", "one mode"]),
    ("server_models.json", '["chat", "hot"]', '["image"]', ["'labels'", "cannot serve", "image"]),
    ("server_models.json", '"Stout-GGUF"', '"../Stout"', ["written like a path"]),
    ("server_models.json", '"Stout-GGUF": {', '"Stout-GGUF": {{', ["not valid JSON"]),
    ("server_models.json", '"checkpoint": "acme/Ale', '"checkpiont": "acme/Ale', ["'main'"]),
]


@pytest.mark.parametrize(("name", "old", "new", "told"), WRONG, ids=[w[2] or w[1] for w in WRONG])
def test_what_is_wrong_is_told(folder, name, old, new, told):
    path = folder.path / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BadDescriptor) as caught:
        folder.load()
    for part in (str(path), *told):
        assert part in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.facts["file"] == str(path)


def test_a_recipe_that_says_not_how_it_is_run(folder):
    head, _, rest = RECIPE.partition("[upstream]")
    folder.write("recipes/brew.toml", f"{head}[settings]{rest.partition('[settings]')[2]}")
    with pytest.raises(BadDescriptor, match=r"brew\.toml: \[upstream\] is missing.*runs = false"):
        folder.load()


def test_bytes_that_are_no_text(folder):
    (folder.path / "recipes" / "odd.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadDescriptor, match=r"odd\.toml cannot be read"):
        folder.load()


def test_a_placeholder_of_the_private_environment(folder):
    folder.write(
        "backends/brew-cpu.toml",
        BACKEND.replace('"system"', '"pypi"').replace("{executable}", "{python}/{overlay}"),
    )
    with pytest.raises(BadDescriptor, match=r"brew-cpu\.overlay, and there is none"):
        folder.load()
    folder.write("backends/brew-cpu.overlay/server.py", "")
    folder.load()


RELEASE = """
[pin]
source = "github"
repository = "owner/brew"
version = "b1"
executable = "brew-server"
[[pin.assets]]
name = "brew-{version}-{os}.tar.gz"
"""


def release(folder, old="", new=""):
    """A backend that comes from a release, with one thing changed."""
    pin = re.search(r"\[pin\].*?(?=\n\[)", BACKEND, re.DOTALL)
    assert pin is not None
    assert old in RELEASE
    folder.write("backends/brew-cpu.toml", BACKEND.replace(pin[0], RELEASE.replace(old, new)))
    return folder.load().backend(BackendId("brew", "cpu"))


def test_a_release_of_files(folder):
    spec = release(folder)
    assert spec.pin.fetched
    assert spec.pin.tag == "{version}"
    assert spec.pin.versions == ("b1",)
    assert release(folder, '"b1"', '"b1"\nbase_for = {gfx942 = "b0"}').pin.versions == ("b1", "b0")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{os}", "{distribution}", "{distribution} means nothing there"),
        ('"b1"', '"b1"\ntag = "v{*}"', "means nothing there"),
        ("owner/brew", "owner", "must be owner/name"),
        ("owner/brew", "owner/../brew", "must be owner/name"),
        ('"b1"', '"../b1"', "cannot be a version"),
        ('"b1"', '".hidden"', "cannot be a version"),
        ('"b1"', '""', "cannot be a version"),
        ('"b1"', '"b1"\nbase_for = {gfx942 = "../b0"}', "cannot be a version"),
        (".tar.gz", ".exe", "must end in one of"),
        (".tar.gz", ".tar.zst", "must end in one of"),
        ("brew-{version}", "../{version}", "must be a name without /"),
        ('"brew-server"', '""', "must be the name of a program"),
        ('"brew-server"', '"bin/brew-server"', "must be the name of a program"),
        ('-{os}.tar.gz"', '-*.tar.gz"\nparts = true', "must be named without"),
        ('[[pin.assets]]\nname = "brew-{version}-{os}.tar.gz"', "", "at least one file"),
        ('gz"\n', 'gz"\n[pin.sha256]\n"a" = "12"\n', "has 64 digits"),
        ('"github"', '"system"', "for the source github only"),
    ],
)
def test_releases_that_are_not_described_well(folder, old, new, words):
    with pytest.raises(BadDescriptor, match=words) as caught:
        release(folder, old, new)
    assert "brew-cpu.toml" in str(caught.value)


RUNTIME = """
[runtime]
name = "rocm"
version = "7.14.0"
library = "libhip.so"
base_url = "https://rocm.invalid"
file = "dist-{variant}-{version}.tar.gz"
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{variant}", "{gfx}", "{gfx} means nothing there"),
        (".tar.gz", ".deb", "must end in one of"),
        ("https:", "http:", "must begin with https://"),
        ('"rocm"', '"../rocm"', "name"),
        ('"7.14.0"', '"../7"', "version"),
        ("library", "librarian", "librarian"),
        ('version}.tar.gz"\n', 'version}.tar.gz"\n[runtime.sha256]\n"a" = "1"\n', "64 digits"),
    ],
)
def test_runtimes_that_are_not_described_well(folder, old, new, words):
    asset = '[[pin.assets]]\nname = "brew-{version}-{os}.tar.gz"\n'
    assert release(folder, asset, asset + RUNTIME).runtime is not None
    assert old in RUNTIME
    with pytest.raises(BadDescriptor, match=words) as caught:
        release(folder, asset, asset + RUNTIME.replace(old, new))
    assert "brew-cpu.toml" in str(caught.value)


def test_json_in_a_template_is_no_placeholder(folder):
    folder.write(
        "recipes/brew.toml", RECIPE.replace('"{port}"', "'{\"method\": {\"a\": 1}}', '{}'")
    )
    with pytest.raises(BadDescriptor, match=r"\{\}"):
        folder.load()
    folder.write("recipes/brew.toml", RECIPE.replace('"{port}"', '\'{"method": {"a": 1}}\''))
    folder.load()


def test_unknown_names_are_told_with_near_ones(folder):
    catalog = folder.load()
    with pytest.raises(UnknownRecipe, match="no recipe 'brwe' yet") as recipe:
        catalog.recipe("brwe")
    assert recipe.value.facts["near"] == ["brew"]
    assert "Did you mean brew?" in recipe.value.remedy
    with pytest.raises(UnknownBackend) as backend:
        catalog.backend(BackendId("brew", "cpuu"))
    assert backend.value.facts["near"] == ["brew:cpu"]
    with pytest.raises(UnknownRecipe):
        catalog.backend(BackendId("none", "cpu"))
    assert catalog.backends_of("none") == ()


def test_the_catalog_cannot_be_changed(folder):
    catalog = folder.load()
    with pytest.raises(TypeError):
        catalog.recipes["x"] = None
    with pytest.raises(TypeError):
        catalog.builtin_models()["x"] = None


def test_sections_have_what_options_can_be_set_by(folder):
    section = folder.load().sections()["brew"]
    assert section.defaults == {"args": "", "device": "gpu0"}
    assert section.title == "Brewer"


def test_a_model_of_an_undeclared_recipe_is_kept(folder):
    later = folder.load().builtin_models()["Later"]
    assert later.labels == ("image",)
    assert later.type == "image"


def test_a_model_without_a_mode_gets_the_recipes_first(folder):
    assert folder.load().builtin_models()["Ale-GGUF"].labels == ("hot", "chat")
