"""What holds for any sequence of changes."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.config import Configuration
from lemonade.config.tree import leaves, merge, prune, without
from lemonade.storage import directories
from tests.unit.config.conftest import SECTIONS

names = st.sampled_from("abc")
trees = st.recursive(
    st.dictionaries(names, st.integers(0, 2) | st.booleans() | st.none(), max_size=3),
    lambda inner: st.dictionaries(names, inner | st.integers(0, 2), max_size=3),
    max_leaves=6,
)

changes = st.fixed_dictionaries(
    {},
    optional={
        "port": st.sampled_from([13305, 80]),
        "ctx_size": st.sampled_from([-1, 4096, 8192]),
        "offline": st.booleans(),
        "auto_evict_threshold_pct": st.sampled_from([0.9, 1, 0.5]),
        "websocket_port": st.sampled_from(["auto", 0, 9000]),
        "brew": st.fixed_dictionaries(
            {},
            optional={
                "args": st.sampled_from(["", "-x"]),
                "backend": st.sampled_from(["auto", "cpu"]),
                "device": st.sampled_from(["", "gpu0"]),
                "threads": st.sampled_from([4, 8]),
            },
        ),
        "telemetry": st.fixed_dictionaries(
            {},
            optional={
                "enabled": st.booleans(),
                "otlp": st.fixed_dictionaries(
                    {}, optional={"headers": st.sampled_from([{}, {"a": "1"}, {"b": "2"}])}
                ),
                "session": st.fixed_dictionaries(
                    {"headers": st.fixed_dictionaries({"id": st.sampled_from([[], ["x"]])})}
                ),
            },
        ),
    },
).filter(bool)


@given(trees, trees)
def test_what_was_pruned_can_be_laid_back(tree, base):
    laid = dict(leaves(merge(base, prune(tree, base))))
    whole = dict(leaves(merge(base, tree)))
    assert repr(sorted(laid.items())) == repr(sorted(whole.items()))


@given(trees, trees)
def test_nothing_pruned_equals_the_base(tree, base):
    below = dict(leaves(base))
    for key, value in leaves(prune(tree, base)):
        assert key not in below or repr(below[key]) != repr(value)


@given(trees)
def test_everything_can_be_taken_away(tree):
    assert without(tree, tree) == {}
    assert without(tree, {}) == tree


@pytest.mark.slow
@given(st.lists(st.tuples(changes, st.booleans()), min_size=1, max_size=5))
def test_a_restart_finds_what_was_kept(tmp_path_factory, steps):
    folder = tmp_path_factory.getbasetemp() / "restarts"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    places = directories({}, cache=folder)
    live = Configuration(places, {}, sections=SECTIONS)
    for change, persist in steps:
        live.update(change, persist=persist)
        for key, value in leaves(change):
            assert dict(leaves(live.snapshot()))[key] == value
    kept = Configuration(places, {}, sections=SECTIONS)
    if all(persist for _, persist in steps):
        assert kept.snapshot() == live.snapshot()
    # Everything back to the default: nothing is left in the file.
    live.update(_defaults_of(steps, live.defaults()), persist=True)
    if live.file.exists():
        assert json.loads(live.file.read_text()) == {}
    assert Configuration(places, {}, sections=SECTIONS).snapshot() == live.defaults()


def _defaults_of(steps, defaults):
    """A change that takes every changed key back to its default."""
    back: dict = {}
    for change, _ in steps:
        back = merge(back, change)
    return _mapped(back, defaults)


def _mapped(tree, defaults):
    return {
        key: _mapped(value, defaults[key])
        if isinstance(value, dict) and isinstance(defaults[key], dict) and defaults[key]
        else defaults[key]
        for key, value in tree.items()
    }
