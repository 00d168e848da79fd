from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lemonade.telemetry import join_pages, relabel

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
        *("b 1", 'b{x="1"} 3'),
        "c 1",
    ]


def test_a_family_in_two_places_becomes_one() -> None:
    page = 'a{x="1"} 1\nb 1\na{x="2"} 1\n# TYPE a gauge\n# HELP a What it is.\n# TYPE a counter\n'
    assert join_pages([page]).splitlines() == [
        "# HELP a What it is.",
        "# TYPE a gauge",
        *('a{x="1"} 1', 'a{x="2"} 1', "b 1"),
    ]


@given(st.text(max_size=200))
def test_no_text_makes_it_fail(text: str) -> None:
    join_pages([relabel(text, LABELS, prefix="x_"), relabel(text, LABELS), text])
