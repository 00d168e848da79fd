"""Metrics of engines on our page: text to text.

A child's page is labelled with its model, and renamed if its recipe says so; then the pages of all
children are put together so that each family appears once. What is not Prometheus text, or cannot
stand on one page with what is there already, is left out.

Source: the Prometheus text format, version 0.0.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Final

from lemonade.core.records import dataclass

_NAME: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_COMMENT: Final = re.compile(rf"# (HELP|TYPE) ({_NAME})(?: (.*))?\Z")
_SAMPLE: Final = re.compile(
    rf"({_NAME})(?:\{{((?:[^\"}}]|\"(?:[^\"\\]|\\.)*\")*)\}})?[ \t]+(\S+(?:[ \t]+-?[0-9]+)?)\Z"
)
_VALUE: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+|Inf|NaN)(?:[ \t]+-?[0-9]+)?\Z"
)
_LABEL: Final = re.compile(
    r"[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*\"((?:[^\"\\]|\\.)*)\"[ \t]*(?:,|\Z)"
)
_SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("_sum", "_count"),
}
_TOTAL: Final = "_total"
_TYPES: Final = frozenset({"counter", "gauge", "histogram", "summary", "untyped"})


def relabel(
    text: str,
    labels: Mapping[str, str],
    *,
    prefix: str = "",
    besides: Mapping[str, str] | None = None,
) -> str:
    """A child's page with the labels of its model.

    Args:
        text: the page.
        labels: added to each sample, before its own; its own of the same names are renamed
            `exported_…`, as Prometheus itself does it.
        prefix: of new names: `engine:name` becomes `<prefix>name`, further colons become
            underscores. Without it names stay as they are.
        besides: labels added where a sample does not have them.
    """
    lines = []
    for line in text.split("\n"):
        comment = _COMMENT.match(line.rstrip("\r"))
        if comment is not None:
            kind, name, rest = comment.groups()
            lines.append(f"# {kind} {_renamed(name, prefix)} {rest or ''}".rstrip())
            continue
        sample = _SAMPLE.match(line.rstrip("\r"))
        if sample is None or not _VALUE.match(sample[3]):
            continue
        name, given, value = sample.groups()
        theirs = _labels(given or "")
        if theirs is None:
            continue
        for label in labels:
            if label in theirs:
                theirs = {f"exported_{n}" if n == label else n: v for n, v in theirs.items()}
        ours = {n: _escape(v) for n, v in labels.items()}
        ours |= {n: _escape(v) for n, v in (besides or {}).items() if n not in theirs}
        both = ",".join(f'{n}="{v}"' for n, v in (ours | theirs).items())
        lines.append(f"{_renamed(name, prefix)}{{{both}}} {value}")
    return "".join(f"{line}\n" for line in lines)


@dataclass(slots=True)
class _Family:
    """What one page, or all of them, say under one name.

    Attributes:
        kind: its type; empty if nobody says.
        samples: lines, by what stands before their values.
    """

    kind: str = ""
    help: str = ""
    samples: dict[str, str] = field(default_factory=dict)


def join_pages(pages: Iterable[str]) -> str:
    """Several pages as one: the lines of a family are brought together, its comments said once.

    Of a family that has another type than on an earlier page, and of a sample that was there
    before, the earlier one stays. A counter `x_total` beside a family `x` is told without a type:
    readers that drop `_total` would take both for one family, of two types.
    """
    joined: dict[str, _Family] = {}
    owners: dict[str, str] = {}
    for page in pages:
        for name, family in _families(page).items():
            known = joined.setdefault(name, _Family(family.kind, family.help))
            if known.kind != family.kind:
                continue
            known.help = known.help or family.help
            for key, line in family.samples.items():
                if owners.setdefault(_sample_name(key), name) == name:
                    known.samples.setdefault(key, line)
    for name, family in joined.items():
        if family.kind == "counter" and name.endswith(_TOTAL) and name[: -len(_TOTAL)] in joined:
            family.kind = "untyped"
    return "".join(f"{line}\n" for name, one in joined.items() for line in _lines(name, one))


def _families(page: str) -> dict[str, _Family]:
    """A page by family: histograms and summaries have samples of several names."""
    families: dict[str, _Family] = {}
    for line in page.split("\n"):
        comment = _COMMENT.match(line)
        if comment is None:
            continue
        kind, name, rest = comment.groups()
        family = families.setdefault(name, _Family())
        if kind == "HELP":
            family.help = family.help or rest or ""
        elif rest in _TYPES:
            family.kind = family.kind or rest
    several = {
        name + suffix: name
        for name, family in families.items()
        for suffix in _SUFFIXES.get(family.kind, ())
        if name + suffix not in families
    }
    for line in page.split("\n"):
        if not line or line.startswith("#"):
            continue
        end = line.rfind("}") + 1
        key = line[:end] if end else line.partition(" ")[0]
        name = _sample_name(key)
        families.setdefault(several.get(name, name), _Family()).samples.setdefault(key, line)
    return families


def _lines(name: str, family: _Family) -> Iterator[str]:
    if family.help:
        yield f"# HELP {name} {family.help}"
    if family.kind or family.samples:
        # Some readers take each sample without a heading for a family of its own.
        yield f"# TYPE {name} {family.kind or 'untyped'}"
    yield from family.samples.values()


def _sample_name(key: str) -> str:
    return key.partition("{")[0]


def _labels(text: str) -> dict[str, str] | None:
    """Labels as they stand there, values escaped; `None` if they are none, or one comes twice."""
    found: dict[str, str] = {}
    position = 0
    while position < len(text.rstrip(" \t")):
        label = _LABEL.match(text, position)
        if label is None or label[1] in found:
            return None
        found[label[1]] = label[2]
        position = label.end()
    return found


def _renamed(name: str, prefix: str) -> str:
    if not prefix:
        return name
    _, colon, rest = name.partition(":")
    return prefix + (rest if colon else name).replace(":", "_")


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
