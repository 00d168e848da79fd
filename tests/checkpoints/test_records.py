"""The note of what was fetched, with several servers that share one directory."""

from __future__ import annotations

from pathlib import Path

from lemonade.checkpoints.records import Records
from lemonade.planning.checkpoint import CheckpointPlan, RepoFile


def plan(name: str) -> CheckpointPlan:
    file = RepoFile(f"{name}.gguf", 5)
    return CheckpointPlan(f"o/{name}", "c" * 40, "main", "Q4", (file,), (file.path,), file.path)


def test_two_servers_note_side_by_side(tmp_path: Path) -> None:
    one, other = Records(tmp_path), Records(tmp_path)
    assert one.of("a", "Q4") is other.of("b", "Q4") is None  # both have read it now
    one.add([("a", plan("a"))])
    other.add([("b", plan("b"))])
    one.remove("c")
    afterwards = Records(tmp_path)
    assert afterwards.of("a", "Q4") is not None
    assert afterwards.of("b", "Q4") is not None
