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
    assert relabel(PAGE, "x_", LABELS).splitlines() == [
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
    joined = join_pages(relabel(PAGE, "x_", {"model_name": name}) for name in ("one", "two"))
    assert joined.count("# TYPE x_seconds histogram") == 1
    families = {family.name: family for family in text_string_to_metric_families(joined)}
    assert len(families["x_seconds"].samples) == 8
    assert {sample.labels["model_name"] for sample in families["x_tokens"].samples} == {
        "one",
        "two",
    }


def test_what_is_no_metric_is_left_out() -> None:
    assert relabel('<html>\n{}\nname\nname{ 1\nname x\nname{a="b"} 1 2 3\n', "x_", {}) == ""
    assert relabel("", "x_", LABELS) == join_pages([]) == ""


@given(st.text(max_size=200))
def test_no_text_makes_it_fail(text: str) -> None:
    join_pages([relabel(text, "x_", LABELS), text])
