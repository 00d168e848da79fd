"""What is drawn: the same each time, everything in time, and nothing an engine cannot suffer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lemonade.selftest.draw import HABITS, EngineKind, Fault, Moment, draw_round

BOTH = (EngineKind.FAKE, EngineKind.EMBEDDED)


@given(
    seed=st.integers(0, 10**9),
    engines=st.sampled_from([BOTH, BOTH[:1], BOTH[1:]]),
    workers=st.booleans(),
)
def test_a_seed_draws_the_same_round_again(
    seed: int, engines: tuple[EngineKind, ...], *, workers: bool
) -> None:
    one = draw_round(seed, engines, workers=workers)
    assert one == draw_round(seed, engines, workers=workers)
    assert workers or not one.strikes_worker, "there is nobody to strike"
    assert one.engine in engines
    assert 0 <= one.delay < 1
    assert 0 < one.frozen < 1
    if one.engine is EngineKind.EMBEDDED:
        assert not one.switches, "it has no bad habits to be told of"
        assert one.fault not in HABITS
        assert one.fault is not Fault.LOG_FLOOD


def test_everything_comes_in_time() -> None:
    draws = [draw_round(seed, BOTH, workers=True) for seed in range(1000)]
    assert len({(one.fault, one.moment) for one in draws}) == len(Fault) * len(Moment)
    engines = [draw_round(seed, BOTH).engine for seed in range(1000)]
    assert 100 < engines.count(EngineKind.EMBEDDED) < 300


def test_a_habit_that_is_drawn_is_told_once() -> None:
    rounds = [draw_round(seed, BOTH[:1]) for seed in range(300)]
    assert all(len(set(one.switches)) == len(one.switches) for one in rounds)
    assert all(one.switches for one in rounds if one.fault in HABITS)
    assert any(one.switches for one in rounds if one.fault not in HABITS)
