from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lemonade.core.bus import Bus
from lemonade.telemetry import (
    HostLoad,
    LoadedModel,
    Metrics,
    Statistics,
    join_pages,
    relabel,
)
from tests.metrics_page import families_of

PAGE = """\
# HELP engine:tokens_total Number of tokens.
# TYPE engine:tokens_total counter
engine:tokens_total 12
# an ordinary comment

# HELP engine:requests:running Requests.
# TYPE engine:requests:running gauge
engine:requests:running{slot="0",model_name="inner, \\"x\\""} 1.5e3 1700000000000
plain NaN
# TYPE engine:seconds histogram
engine:seconds_bucket{le="0.5"} 1
engine:seconds_bucket{le="+Inf"} 2
engine:seconds_sum 3
engine:seconds_count 2
"""
LABELS = {"model_name": 'a"b\\c', "type": "llm"}


def test_names_get_a_prefix_and_samples_the_labels_of_the_model() -> None:
    ours = 'model_name="a\\"b\\\\c",type="llm"'
    assert relabel(PAGE, LABELS, prefix="x_").splitlines() == [
        "# HELP x_tokens_total Number of tokens.",
        "# TYPE x_tokens_total counter",
        f"x_tokens_total{{{ours}}} 12",
        "# HELP x_requests_running Requests.",
        "# TYPE x_requests_running gauge",
        f'x_requests_running{{{ours},slot="0",exported_model_name="inner, \\"x\\""}}'
        " 1.5e3 1700000000000",
        f"x_plain{{{ours}}} NaN",
        "# TYPE x_seconds histogram",
        f'x_seconds_bucket{{{ours},le="0.5"}} 1',
        f'x_seconds_bucket{{{ours},le="+Inf"}} 2',
        f"x_seconds_sum{{{ours}}} 3",
        f"x_seconds_count{{{ours}}} 2",
    ]


def test_pages_of_several_engines_become_one() -> None:
    joined = join_pages(
        relabel(PAGE, {"model_name": name}, prefix="x_") for name in ("one", "two")
    )
    assert joined.count("# TYPE x_seconds histogram") == 1
    families = {family.name: family for family in text_string_to_metric_families(joined)}
    assert len(families["x_seconds"].samples) == 8
    assert {sample.labels["model_name"] for sample in families["x_tokens"].samples} == {
        "one",
        "two",
    }


def test_what_is_no_metric_is_left_out() -> None:
    text = '<html>\n{}\nname\nname{ 1\nname x\nname{a="b"} 1 2 3\nname{a="b",a="c"} 1\nname{a} 1\n'
    assert relabel(text, {}) == ""
    assert relabel("", LABELS) == join_pages([]) == ""


def test_names_and_labels_stay_where_nothing_else_is_wanted() -> None:
    page = 'vllm:x{engine="0", model_name="inner",model="a,model=b"} 1\r\nvllm:y 2\n'
    besides = {"model_name": "outer", "type": "llm"}
    assert relabel(page, {"model": "m"}, besides=besides).splitlines() == [
        'vllm:x{model="m",type="llm",engine="0",model_name="inner",exported_model="a,model=b"} 1',
        'vllm:y{model="m",model_name="outer",type="llm"} 2',
    ]


def test_a_label_may_hold_whatever_ends_lines_elsewhere() -> None:
    (line,) = relabel('x{a="\u2028\x85\x0b}"} 1\n', {"model": "m"}).split("\n")[:-1]
    assert line == 'x{model="m",a="\u2028\x85\x0b}"} 1'


def test_of_two_types_and_of_two_samples_the_first_stays() -> None:
    joined = join_pages(
        [
            '# TYPE a counter\na 1\n# TYPE h histogram\nh_bucket{le="1"} 1\nh_count 1\nb 1\n',
            '# TYPE a gauge\na{x="1"} 5\nh_count{x="1"} 5\nb 2\nb{x="1"} 3\n# TYPE c info\nc 1\n',
        ]
    )
    assert joined.splitlines() == [
        *("# TYPE a counter", "a 1"),
        *("# TYPE h histogram", 'h_bucket{le="1"} 1', "h_count 1"),
        *("# TYPE b untyped", "b 1", 'b{x="1"} 3'),
        *("# TYPE c untyped", "c 1"),
    ]


def test_a_counter_beside_what_is_called_like_it_has_no_type() -> None:
    theirs = "# TYPE x_total counter\nx_total 5\n# TYPE y_total counter\ny_total 1\n"
    for pages in (["# TYPE x gauge\nx 1\n", theirs], [theirs, "# TYPE x gauge\nx 1\n"]):
        joined = join_pages(pages)
        families = families_of(joined)
        assert {name: one.type for name, one in families.items()} == {
            "x": "gauge", "x_total": "unknown", "y_total": "counter"
        }  # fmt: skip
        assert families["x_total"].samples[0].value == 5
    assert families_of(join_pages([theirs]))["x_total"].type == "counter"


@pytest.mark.parametrize(
    "page",
    [
        "# TYPE x gauge\nx 1\n# TYPE x_total counter\nx_total 1\n",
        "# TYPE x gauge\nx 1\n# TYPE y gauge\ny 1\n# TYPE x gauge\nx 2\n",
        '# TYPE x gauge\nx{a="1",b="2"} 1\nx{b="2",a="1"} 1\n',
    ],
    ids=["by two types", "in two places", "a sample twice"],
)
def test_a_page_that_says_something_twice_is_found(page: str) -> None:
    with pytest.raises(AssertionError, match="x"):
        families_of(page)


def test_our_own_page_says_everything_once() -> None:
    statistics = Statistics(Bus())
    models = [LoadedModel(name, "o/r", "llm", "cpu", "mill") for name in ("one", "two")]
    own = Metrics(statistics, version="1").render(
        models, HostLoad(1.0, 1, 1.0, 1, 1.0), {"llm": 1}, {"one": True, "two": False}
    )
    theirs = [relabel(PAGE, model.labels(), prefix="lemonade_model_") for model in models]
    families = families_of(join_pages([own, *theirs]))
    assert families["lemonade_model_input_tokens"].type == "gauge"
    assert families["lemonade_model_input_tokens_total"].samples
    assert families["lemonade_model_requests_total"].type == "counter"


def test_a_family_in_two_places_becomes_one() -> None:
    page = 'a{x="1"} 1\nb 1\na{x="2"} 1\n# TYPE a gauge\n# HELP a What it is.\n# TYPE a counter\n'
    assert join_pages([page]).splitlines() == [
        "# HELP a What it is.",
        "# TYPE a gauge",
        *('a{x="1"} 1', 'a{x="2"} 1'),
        *("# TYPE b untyped", "b 1"),
    ]


@given(st.text(max_size=200))
def test_no_text_makes_it_fail(text: str) -> None:
    join_pages([relabel(text, LABELS, prefix="x_"), relabel(text, LABELS), text])
