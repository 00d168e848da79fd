"""Metrics of engines, told under our names: text to text.

A child's page is renamed and labelled with its model, then the pages of all children are put
together so that each family appears once. What is not Prometheus text is left out, line by line.

Source: the Prometheus text format, version 0.0.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

_NAME: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_COMMENT: Final = re.compile(rf"# (HELP|TYPE) ({_NAME})(?: (.*))?\Z")
_SAMPLE: Final = re.compile(
    rf"({_NAME})(?:\{{((?:[^\"}}]|\"(?:[^\"\\]|\\.)*\")*)\}})?[ \t]+(\S+(?:[ \t]+-?[0-9]+)?)\Z"
)
_VALUE: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+|Inf|NaN)(?:[ \t]+-?[0-9]+)?\Z"
)
_SUFFIXES: Final = ("_bucket", "_sum", "_count")


def relabel(text: str, prefix: str, labels: Mapping[str, str]) -> str:
    """A child's page under our names.

    `engine:name` becomes `<prefix>name`, further colons become underscores.

    Args:
        text: the page.
        prefix: of the new names, e.g. made of `lemonade_`, the recipe and `_`.
        labels: added to each sample, before its own; its own of the same names are renamed
            `exported_…`, as Prometheus itself does it.
    """
    ours = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    lines = []
    for line in text.splitlines():
        comment = _COMMENT.match(line)
        if comment is not None:
            kind, name, rest = comment.groups()
            lines.append(f"# {kind} {_renamed(name, prefix)} {rest or ''}".rstrip())
            continue
        sample = _SAMPLE.match(line)
        if sample is None or not _VALUE.match(sample[3]):
            continue
        name, theirs, value = sample.groups()
        theirs = (theirs or "").strip(" \t,")
        for label in labels:
            theirs = re.sub(rf"(?:(?<=,)|^){label}=", f"exported_{label}=", theirs)
        both = ",".join(part for part in (ours, theirs) if part)
        lines.append(f"{_renamed(name, prefix)}{{{both}}} {value}")
    return "".join(f"{line}\n" for line in lines)


def join_pages(pages: Iterable[str]) -> str:
    """Several pages as one: the lines of a family are brought together, its comments said once."""
    comments: dict[str, dict[str, str]] = {}
    samples: dict[str, list[str]] = {}
    for page in pages:
        for line in page.splitlines():
            comment = _COMMENT.match(line)
            if comment is not None:
                kind, name, _ = comment.groups()
                comments.setdefault(name, {}).setdefault(kind, line)
                samples.setdefault(name, [])
                continue
            name = line.partition("{")[0].partition(" ")[0]
            if name:
                samples.setdefault(_family(name, comments), []).append(line)
    lines: list[str] = []
    for name, rows in samples.items():
        said = comments.get(name, {})
        lines.extend(said[kind] for kind in ("HELP", "TYPE") if kind in said)
        lines.extend(rows)
    return "".join(f"{line}\n" for line in lines)


def _family(name: str, known: Mapping[str, object]) -> str:
    """The family a sample belongs to: histograms and summaries have several names."""
    if name not in known:
        for suffix in _SUFFIXES:
            if name.removesuffix(suffix) in known:
                return name.removesuffix(suffix)
    return name


def _renamed(name: str, prefix: str) -> str:
    _, colon, rest = name.partition(":")
    return prefix + (rest if colon else name).replace(":", "_")


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
