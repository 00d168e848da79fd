"""Who must leave: a table, and what holds for all."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemonade.catalog.backend import SlotPolicy
from lemonade.core.errors import EverythingPinned
from lemonade.core.inference import ModelType
from lemonade.planning import Demand, ResidentFacts, plan_eviction, slot_policy
from tests.unit.planning.examples import a_recipe, backend
from tests.unit.planning.examples import recipe as recipe_of

LLM, EMBEDDING, SPEECH = ModelType.LLM, ModelType.EMBEDDING, ModelType.TRANSCRIPTION

_clock = itertools.count()

DEVICES: dict[SlotPolicy, tuple[str, ...]] = {
    "standard": ("gpu",),
    "exclusive-npu": ("npu",),
    "coexist-by-type": ("npu",),
    "unmetered": (),
}


def resident(
    name: str,
    kind: ModelType = LLM,
    slots: SlotPolicy = "standard",
    *,
    devices: tuple[str, ...] | None = None,
    pinned: bool = False,
    busy: bool = False,
    last_use: float | None = None,
) -> ResidentFacts:
    """Later ones were used later, unless said otherwise."""
    return ResidentFacts(
        model=name,
        type=kind,
        slots=slots,
        devices=DEVICES[slots] if devices is None else devices,
        pinned=pinned,
        last_use=float(next(_clock)) if last_use is None else last_use,
        busy=busy,
    )


def wanted(
    kind: ModelType = LLM,
    slots: SlotPolicy = "standard",
    devices: tuple[str, ...] | None = None,
    name: str = "new",
) -> Demand:
    return Demand(name, kind, slots, DEVICES[slots] if devices is None else devices)


@pytest.mark.parametrize(
    ("demand", "residents", "limit", "stop"),
    [
        pytest.param(wanted(), [], 1, (), id="an empty machine"),
        pytest.param(wanted(), [resident("a")], 1, ("a",), id="one slot"),
        pytest.param(wanted(), [resident("a")], 2, (), id="a free slot"),
        pytest.param(wanted(), [resident("a")], -1, (), id="no limit"),
        pytest.param(wanted(), [resident("e", EMBEDDING)], 1, (), id="another type"),
        pytest.param(
            wanted(), [resident("a"), resident("b")], 2, ("a",), id="the least recently used"
        ),
        pytest.param(
            wanted(),
            [resident("a", pinned=True), resident("b")],
            2,
            ("b",),
            id="a pinned one is passed over",
        ),
        pytest.param(
            wanted(),
            [resident("a", busy=True), resident("b")],
            2,
            ("b",),
            id="an idle one goes before a busy one",
        ),
        pytest.param(
            wanted(), [resident("a", busy=True)], 1, ("a",), id="a busy one goes if it must"
        ),
        pytest.param(
            wanted(),
            [resident("a"), resident("b"), resident("c")],
            2,
            ("a", "b"),
            id="the limit was lowered",
        ),
        pytest.param(
            wanted(), [resident("new"), resident("b")], 2, (), id="its own slot is used again"
        ),
        pytest.param(
            wanted(), [resident("cloud", slots="unmetered")], 1, (), id="unmetered ones hold none"
        ),
        pytest.param(
            wanted(slots="unmetered"), [resident("a")], 1, (), id="an unmetered one wants none"
        ),
        # the NPU for one
        pytest.param(
            wanted(slots="exclusive-npu"),
            [resident("s", SPEECH, "coexist-by-type"), resident("e", EMBEDDING, "exclusive-npu")],
            1,
            ("s", "e"),
            id="exclusive: everybody leaves the NPU",
        ),
        pytest.param(
            wanted(slots="exclusive-npu"),
            [resident("e", EMBEDDING), resident("s", SPEECH)],
            1,
            (),
            id="exclusive: others are not in its way",
        ),
        pytest.param(
            wanted(slots="exclusive-npu"),
            [resident("a"), resident("s", SPEECH, "coexist-by-type")],
            1,
            ("s", "a"),
            id="exclusive: and a slot of its type",
        ),
        pytest.param(
            wanted(slots="exclusive-npu"),
            [resident("a"), resident("n", slots="exclusive-npu")],
            2,
            ("n",),
            id="exclusive: who left the NPU left a slot too",
        ),
        pytest.param(
            wanted(SPEECH, "standard", ("npu",)),
            [resident("n", slots="exclusive-npu")],
            1,
            ("n",),
            id="a standard one on the NPU cannot stay beside an exclusive one",
        ),
        pytest.param(
            wanted(slots="exclusive-npu"),
            [resident("w", SPEECH, devices=("npu",))],
            1,
            ("w",),
            id="nor the other way round",
        ),
        # the NPU shared
        pytest.param(
            wanted(EMBEDDING, "coexist-by-type"),
            [resident("l", LLM, "coexist-by-type"), resident("s", SPEECH, "coexist-by-type")],
            1,
            (),
            id="coexist: other types stay",
        ),
        pytest.param(
            wanted(LLM, "coexist-by-type"),
            [resident("l", LLM, "coexist-by-type"), resident("s", SPEECH, "coexist-by-type")],
            -1,
            ("l",),
            id="coexist: one of a type, whatever the limit",
        ),
        pytest.param(
            wanted(SPEECH, "coexist-by-type"),
            [resident("n", slots="exclusive-npu")],
            -1,
            ("n",),
            id="coexist: the exclusive one leaves",
        ),
        pytest.param(
            wanted(LLM, "coexist-by-type"),
            [resident("g")],
            2,
            (),
            id="coexist: another device is not in its way",
        ),
    ],
)
def test_who_leaves(
    demand: Demand, residents: list[ResidentFacts], limit: int, stop: tuple[str, ...]
) -> None:
    plan = plan_eviction(demand, residents, limit)
    assert plan.stop == stop
    assert bool(plan.reason) is bool(stop)


def test_pinned_ones_are_named_with_what_to_do() -> None:
    with pytest.raises(EverythingPinned) as caught:
        plan_eviction(wanted(), [resident("b", pinned=True), resident("a", pinned=True)], 2)
    assert "a, b are pinned" in caught.value.message
    assert "at most 2" in caught.value.message
    assert "lemonade unload a" in caught.value.remedy
    assert caught.value.facts == {"pinned": ["a", "b"], "type": "llm", "model": "new"}


@pytest.mark.parametrize("slots", ["exclusive-npu", "coexist-by-type"])
def test_a_pin_holds_against_the_npu_too(slots: SlotPolicy) -> None:
    holder = resident("n", slots="exclusive-npu", pinned=True)
    with pytest.raises(EverythingPinned, match="n is pinned"):
        plan_eviction(wanted(SPEECH, slots), [holder, resident("g")], -1)


# ---- for all

SLOTS = st.sampled_from(list(DEVICES))
TYPES = st.sampled_from([LLM, EMBEDDING, SPEECH])


@st.composite
def crowds(draw: st.DrawFn) -> list[ResidentFacts]:
    return [
        resident(
            f"m{index}",
            draw(TYPES),
            draw(SLOTS),
            pinned=draw(st.booleans()),
            busy=draw(st.booleans()),
            last_use=draw(st.integers(0, 3)),
        )
        for index in range(draw(st.integers(0, 7)))
    ]


DEMANDS = st.builds(wanted, TYPES, SLOTS)
LIMITS = st.sampled_from([-1, 1, 2, 3])


def fits(demand: Demand, residents: list[ResidentFacts], limit: int) -> bool:
    """The rules again, said the other way round."""
    if demand.slots == "unmetered":
        return True
    metered = [r for r in residents if r.slots != "unmetered"]
    on_npu = [r for r in metered if "npu" in r.devices]
    if demand.slots == "exclusive-npu" and on_npu:
        return False
    if "npu" in demand.devices and any(r.slots == "exclusive-npu" for r in on_npu):
        return False
    if demand.slots == "coexist-by-type" and any(
        r.slots == "coexist-by-type" and r.type is demand.type for r in metered
    ):
        return False
    return limit == -1 or sum(r.type is demand.type for r in metered) < limit


@given(DEMANDS, crowds(), LIMITS)
def test_the_pinned_stay_and_the_wanted_fits(
    demand: Demand, residents: list[ResidentFacts], limit: int
) -> None:
    by_name = {r.model: r for r in residents}
    try:
        plan = plan_eviction(demand, residents, limit)
    except EverythingPinned:
        return
    assert len(set(plan.stop)) == len(plan.stop)
    assert not any(by_name[name].pinned for name in plan.stop)
    assert fits(demand, [r for r in residents if r.model not in plan.stop], limit)


@given(DEMANDS, crowds(), LIMITS)
def test_nobody_leaves_for_nothing(
    demand: Demand, residents: list[ResidentFacts], limit: int
) -> None:
    try:
        plan = plan_eviction(demand, residents, limit)
    except EverythingPinned:
        return
    for spared in plan.stop:
        left = [r for r in residents if r.model == spared or r.model not in plan.stop]
        assert not fits(demand, left, limit)


@given(DEMANDS, crowds(), LIMITS)
def test_it_is_refused_only_if_the_unpinned_do_not_suffice(
    demand: Demand, residents: list[ResidentFacts], limit: int
) -> None:
    possible = fits(demand, [r for r in residents if r.pinned], limit)
    try:
        plan_eviction(demand, residents, limit)
        planned = True
    except EverythingPinned:
        planned = False
    assert planned is possible


@given(DEMANDS, crowds(), LIMITS, st.randoms())
def test_the_order_of_residents_does_not_matter(
    demand: Demand, residents: list[ResidentFacts], limit: int, random: object
) -> None:
    shuffled = residents[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    try:
        expected = plan_eviction(demand, residents, limit)
    except EverythingPinned:
        with pytest.raises(EverythingPinned):
            plan_eviction(demand, shuffled, limit)
    else:
        assert plan_eviction(demand, shuffled, limit) == expected


@pytest.mark.parametrize(
    ("of_recipe", "of_backend", "holds"),
    [
        ("standard", None, "standard"),
        ("exclusive-npu", None, "exclusive-npu"),
        ("exclusive-npu", "standard", "standard"),
        ("standard", "exclusive-npu", "exclusive-npu"),
        ("coexist-by-type", "unmetered", "unmetered"),
    ],
)
def test_a_backend_may_share_otherwise_than_its_recipe(
    of_recipe: SlotPolicy, of_backend: SlotPolicy | None, holds: SlotPolicy
) -> None:
    recipe = a_recipe(slots=of_recipe)
    spec = backend().model_copy(update={"slots": of_backend})
    assert slot_policy(recipe, spec) == holds
    assert slot_policy(recipe, None) == of_recipe, "while nobody knows which it will be"


@pytest.mark.parametrize(
    ("file", "policy"), [("ryzenai-llm-npu", "exclusive-npu"), ("ryzenai-llm-cpu", "standard")]
)
def test_only_what_is_on_the_npu_makes_others_leave_it(file: str, policy: SlotPolicy) -> None:
    spec = backend(file)
    slots = slot_policy(recipe_of("ryzenai-llm"), spec)
    assert slots == policy
    speech = resident("speech", SPEECH, "coexist-by-type")
    plan = plan_eviction(wanted(LLM, slots, spec.devices), [speech], 1)
    assert plan.stop == (("speech",) if policy == "exclusive-npu" else ())
