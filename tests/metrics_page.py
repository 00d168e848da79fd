"""A page of metrics, read as Prometheus' own Python client reads it."""

from __future__ import annotations

from collections import Counter, defaultdict

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


def families_of(text: str) -> dict[str, Metric]:
    """Every family by the name its samples begin with; refuses a page that has one twice.

    A reader may drop `_total` from the name of a counter, and then take what is called so for the
    same family: that counts as twice, too.
    """
    families = list(text_string_to_metric_families(text))
    kinds = defaultdict(list)
    for family in families:
        kinds[family.name].append(family.type)
    twice = {name: found for name, found in kinds.items() if len(found) > 1}
    assert not twice, f"families that stand on the page more than once: {twice}"
    headings = Counter(line for line in text.splitlines() if line.startswith("#"))
    assert max(headings.values(), default=0) <= 1, headings.most_common(3)
    samples = Counter(
        (sample.name, *sorted(sample.labels.items()))
        for family in families
        for sample in family.samples
    )
    assert max(samples.values(), default=0) <= 1, samples.most_common(3)
    return {one.name + "_total" * (one.type == "counter"): one for one in families}
