"""Why a model is not offered here."""

from __future__ import annotations

import pytest

from lemonade.catalog import ModelSpec, not_run_reason, unavailable_reason
from tests.unit.catalog.conftest import RECIPE

GB = 10**9


def model(recipe="brew", origin="builtin", size=4.0):
    return ModelSpec(
        name="X", origin=origin, recipe=recipe, checkpoints={"main": "a/b:Q4"}, size_gb=size
    )


CASES = [
    (model(), None, 8 * GB, None),
    (model(), None, 0, None),
    (model(), None, 4 * GB, None),
    (model(), None, 4 * GB - 1, "It takes 4.0 GB"),
    (model(origin="user"), None, 1, None),
    (model(origin="extra"), None, 1, None),
    (model(size=0.0), None, 1, None),
    (model(), "No backend runs here.", 8 * GB, "No backend runs here."),
    (model(origin="user"), "No backend runs here.", 8 * GB, "No backend runs here."),
    (model(recipe="unheard-of"), None, 8 * GB, "This version has no recipe 'unheard-of' yet."),
    (model(recipe="collection.omni"), None, 8 * GB, "cannot run collections"),
]


def test_what_is_declared_and_not_run(folder):
    head, _, rest = RECIPE.partition("[upstream]")
    folder.write(
        "recipes/brew.toml", f"{head}runs = false\n[settings]{rest.partition('[settings]')[2]}"
    )
    catalog = folder.load()
    assert not catalog.recipe("brew").runs
    told = "Lemonade can install Brewer but does not run it yet."
    assert unavailable_reason(model(), catalog, lambda _: "No backend.", 1) == told
    assert not_run_reason(model(), catalog) == told
    assert not_run_reason(model(recipe="whole"), catalog) is None
    assert not_run_reason(model(recipe="unheard-of"), catalog) is None


@pytest.mark.parametrize(("spec", "unsupported", "pool", "reason"), CASES)
def test_reason(folder, spec, unsupported, pool, reason):
    found = unavailable_reason(spec, folder.load(), lambda _: unsupported, pool)
    assert found is None if reason is None else reason in found
