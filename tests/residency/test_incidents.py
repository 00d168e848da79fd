"""The records of failures: their names, their number, and a disk that cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from lemonade.core.errors import UnknownIncident
from lemonade.residency.incidents import Incidents


def failure(model: str = "one", **more: object) -> dict[str, object]:
    return {"kind": "crashed", "cause": "", "model": model, **more}


async def test_names_sort_by_time_and_are_never_used_twice(tmp_path: Path) -> None:
    async with Incidents(tmp_path / "i", version="1") as incidents:
        names = [incidents.add(failure()).id for _ in range(30)]
        assert names == sorted(set(names))
        assert [one["id"] for one in await incidents.newest(limit=3)] == names[:-4:-1]
    assert sorted(path.stem for path in (tmp_path / "i").iterdir()) == names


async def test_names_go_on_where_a_second_ends(tmp_path: Path) -> None:
    async with Incidents(tmp_path / "i", version="1") as incidents:
        names = [incidents.add(failure()).id for _ in range(1500)]
        assert names == sorted(set(names))


async def test_the_oldest_give_way(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    async with Incidents(folder, version="1", most=3) as incidents:
        names = [incidents.add(failure(str(number))).id for number in range(5)]
    async with Incidents(folder, version="1", most=3) as incidents:
        assert [one["model"] for one in await incidents.newest()] == ["4", "3", "2"]
        with pytest.raises(UnknownIncident):
            await incidents.read(names[0])
        assert (await incidents.read(names[4]))["lemonade"] == "1"


async def test_they_are_found_by_model(tmp_path: Path) -> None:
    async with Incidents(tmp_path / "i", version="1") as incidents:
        for model in ("one", "two", "one"):
            incidents.add(failure(model))
        assert len(await incidents.newest(model="one")) == 2


async def test_a_disk_that_cannot_be_written_costs_the_record_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "i").write_text("a file where the folder should be")
    async with Incidents(tmp_path / "i", version="1") as incidents:
        name = incidents.add(failure()).id
        assert (await incidents.read(name))["model"] == "one"
    assert "cannot be kept" in caplog.text


async def test_what_is_no_record_is_not_shown(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    folder.mkdir()
    (folder / "notes.json").write_text("{}")
    (folder / "261121-115604-312.json").write_text("not JSON")
    async with Incidents(folder, version="1") as incidents:
        assert await incidents.newest() == []
