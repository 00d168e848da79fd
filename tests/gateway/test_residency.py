"""Which models are loaded, seen from outside, with a fake engine that has bad habits."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.serving import Serving, eventually, fake_catalog, fake_model, gone, serving


@pytest.fixture
def server(home: Path) -> Iterator[Serving]:
    catalog = fake_catalog(home)
    for name in ("one", "two", "three"):
        fake_model(catalog, name)
    fake_model(catalog, "vectors", label="embeddings")
    fake_model(catalog, "slow", args="--ready-after 60")
    fake_model(catalog, "slow-vectors", label="embeddings", args="--ready-after 60")
    fake_model(catalog, "stillborn", args="--exit-at-start 3")
    fake_model(catalog, "chatty", args="--chunks 2000 --slow-chunks 0.05")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as one:
        yield one


def stream(server: Serving, model: str) -> requests.Response:
    reply = server.chat(model, stream=True)
    assert reply.status_code == 200
    return reply


def first_line(reply: requests.Response) -> str:
    return next(line for line in reply.iter_lines(decode_unicode=True) if line)


def test_many_first_requests_start_one_engine(server: Serving) -> None:
    with ThreadPoolExecutor(12) as threads:
        replies = list(threads.map(lambda _: server.chat("one"), range(12)))
    assert {reply.status_code for reply in replies} == {200}
    assert server.log().count("one: starting ") == 1


def test_the_least_recently_used_model_makes_room(server: Serving) -> None:
    requests.post(f"{server.url}/internal/set", json={"max_loaded_models": 2}, timeout=10)
    for name in ("one", "two"):
        assert server.chat(name).status_code == 200
    pids = {name: row["pid"] for name, row in server.loaded().items()}
    assert server.chat("one").status_code == 200
    assert server.post("load", {"model_name": "three"}).status_code == 200
    assert set(server.loaded()) == {"one", "three"}
    assert gone(pids["two"])
    assert not gone(pids["one"])


def test_a_pinned_model_stays_and_the_refusal_names_it(server: Serving) -> None:
    assert server.post("load", {"model_name": "one", "pinned": True}).status_code == 200
    refused = server.chat("two")
    assert refused.status_code == 409
    error = refused.json()["error"]
    assert error["type"] == error["code"] == "slots_pinned_error"
    assert "one" in error["message"]
    assert set(server.loaded()) == {"one"}
    unpinned = requests.post(
        f"{server.url}/internal/pin", json={"model_name": "one", "pinned": False}, timeout=10
    )
    assert unpinned.status_code == 200
    assert server.chat("two").status_code == 200


def test_a_load_never_stalls_a_warm_model(server: Serving) -> None:
    assert server.chat("one").status_code == 200
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(server.post, "load", {"model_name": "slow-vectors"}, timeout=90)
        eventually(lambda: server.get("health").json()["models_loading"], "the slow load is on")
        for _ in range(20):
            assert server.chat("one").status_code == 200
        assert server.get("health").json()["models_loading"], "it loads still"
        assert server.post("unload", {"model_name": "slow-vectors"}).status_code == 200
        assert loading.result(30).status_code == 404


def test_an_evicted_model_finishes_its_running_request(server: Serving) -> None:
    reply = stream(server, "chatty")
    lines = reply.iter_lines(decode_unicode=True)
    assert next(lines).startswith("data: ")
    pid = server.loaded()["chatty"]["pid"]
    assert server.post("load", {"model_name": "one"}).status_code == 200
    assert server.loaded()["chatty"]["status"] == "evicting"
    assert next(line for line in lines if line).startswith("data: ")
    assert not gone(pid)
    reply.close()
    eventually(lambda: gone(pid), "the evicted engine ends when its last request has")
    eventually(lambda: set(server.loaded()) == {"one"}, "it is gone")


def test_models_of_different_types_load_side_by_side(server: Serving) -> None:
    with ThreadPoolExecutor(2) as threads:
        loads = [
            threads.submit(server.post, "load", {"model_name": name}, timeout=90)
            for name in ("slow", "slow-vectors")
        ]
        both = eventually(
            lambda: (
                [
                    row["model_name"]
                    for row in server.get("health").json()["models_loading"]
                    if row["step"] == "starting"
                ][1:]
                and True
            ),
            "both are starting at the same time",
        )
        assert both
        assert server.post("unload").status_code == 200
        assert {load.result(30).status_code for load in loads} == {404}


def test_a_failed_load_evicts_nobody_and_quotes_the_engine(server: Serving) -> None:
    assert server.chat("one").status_code == 200
    pid = server.loaded()["one"]["pid"]
    failed = server.chat("stillborn")
    assert failed.status_code == 500
    error = failed.json()["error"]
    assert error["type"] == error["code"] == "model_load_error"
    assert error["message"].startswith("Failed to load model")
    assert "status 3" in error["message"]
    assert error["facts"]["exit_status"] == 3
    assert error["facts"]["last_lines"]
    assert server.loaded()["one"]["pid"] == pid
    assert server.chat("one").status_code == 200
    left = server.get("logs?model=stillborn&lines=5")
    assert left.status_code == 200
    assert set(error["facts"]["last_lines"]) & set(left.text.splitlines())
    assert server.get("logs?model=two").status_code == 404


def test_a_load_with_other_options_replaces_the_engine(server: Serving) -> None:
    assert server.post("load", {"model_name": "one"}).status_code == 200
    pid = server.loaded()["one"]["pid"]
    assert server.post("load", {"model_name": "one"}).status_code == 200
    assert server.loaded()["one"]["pid"] == pid
    changed = server.post("load", {"model_name": "one", "fake_args": "--chunks 3"})
    assert changed.status_code == 200
    row = server.loaded()["one"]
    assert row["pid"] != pid
    assert gone(pid)
    assert "--chunks" in row["launch_command"]


def test_a_replacement_that_fails_leaves_the_old_engine(server: Serving) -> None:
    assert server.post("load", {"model_name": "one"}).status_code == 200
    pid = server.loaded()["one"]["pid"]
    failed = server.post("load", {"model_name": "one", "fake_args": "--exit-at-start 4"})
    assert failed.status_code == 500
    assert server.loaded()["one"]["pid"] == pid


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"fake_args": "--port 80"}, "--port"),
        ({"fake_args": "--chunks '3"}, "not closed"),
        ({"fake_arg": "--chunks 3"}, "fake_args"),
        ({"ctx_sizes": 12}, "ctx_sizes"),
        ({"fake_args": 12}, "fake_args"),
    ],
)
def test_refused_options_touch_nothing(
    server: Serving, options: dict[str, object], word: str
) -> None:
    assert server.chat("two").status_code == 200
    before = server.loaded()["two"]["pid"]
    refused = server.post("load", {"model_name": "one", **options})
    assert refused.status_code == 400
    assert word in json.dumps(refused.json())
    assert server.loaded()["two"]["pid"] == before
    assert "one: starting" not in server.log()


def test_saved_options_are_used_by_later_loads(server: Serving) -> None:
    body = {"model_name": "one", "fake_args": "--chunks 7", "save_options": True}
    assert server.post("load", body).status_code == 200
    assert server.post("unload", {"model_name": "one"}).status_code == 200
    assert server.chat("one").status_code == 200
    assert "--chunks" in server.loaded()["one"]["launch_command"]
    assert server.get("models/one").json()["recipe_options"]["fake_args"] == "--chunks 7"


def test_a_load_nobody_waits_for_is_given_up(server: Serving) -> None:
    with pytest.raises(requests.Timeout):
        server.post("load", {"model_name": "slow"}, timeout=1.0)
    eventually(
        lambda: not server.get("health").json()["models_loading"],
        "the load ends after its only waiter has left",
    )
    assert "given up" in server.log()


def test_a_crashed_engine_is_loaded_again_by_the_next_request(server: Serving) -> None:
    assert server.chat("one").status_code == 200
    row = server.loaded()["one"]
    os.kill(row["pid"], signal.SIGKILL)
    assert server.chat("one").status_code == 200
    assert server.loaded()["one"]["pid"] != row["pid"]


def test_unload_knows_what_is_loaded(server: Serving) -> None:
    assert server.post("unload", {"model_name": "one"}).status_code == 404
    assert server.chat("one").status_code == 200
    assert server.post("unload", {"model_name": "one"}).json()["status"] == "success"
    assert server.chat("one").status_code == 200
    broken = requests.post(f"{server.api}/unload", data=b'{"model_name": ', timeout=10)
    assert broken.status_code == 400
    assert set(server.loaded()) == {"one"}
    assert server.post("unload").status_code == 200
    assert server.loaded() == {}


@pytest.fixture
def cramped(home: Path) -> Iterator[Serving]:
    """A server whose engines cannot be there side by side: room is made before a start."""
    catalog = fake_catalog(home, slots="exclusive-npu")
    fake_model(catalog, "one")
    fake_model(catalog, "two")
    fake_model(catalog, "stillborn", args="--exit-at-start 3")
    fake_model(catalog, "chatty", args="--chunks 2000 --slow-chunks 0.05")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        yield server


def test_where_two_do_not_fit_the_first_is_gone_before_the_second_starts(cramped: Serving) -> None:
    assert cramped.chat("one").status_code == 200
    assert cramped.chat("two").status_code == 200
    assert set(cramped.loaded()) == {"two"}
    log = cramped.log()
    assert log.index("one: unloaded") < log.index("two: starting")


def test_who_had_to_leave_for_a_failed_load_comes_back(cramped: Serving) -> None:
    assert cramped.post("load", {"model_name": "one", "pinned": False}).status_code == 200
    before = cramped.loaded()["one"]["pid"]
    assert cramped.chat("stillborn").status_code == 500
    row = eventually(lambda: cramped.loaded().get("one"), "the evicted model is loaded again")
    assert row["pid"] != before
    assert cramped.chat("one").status_code == 200


def test_a_model_that_has_to_leave_first_still_finishes_its_request(cramped: Serving) -> None:
    reply = stream(cramped, "chatty")
    lines = reply.iter_lines(decode_unicode=True)
    assert next(lines).startswith("data: ")
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(cramped.chat, "one")
        eventually(lambda: "chatty" in cramped.loaded(), "it is leaving")
        eventually(
            lambda: cramped.loaded()["chatty"]["status"] == "evicting", "it is asked to leave"
        )
        assert next(line for line in lines if line).startswith("data: ")
        reply.close()
        assert other.result(30).status_code == 200
    assert set(cramped.loaded()) == {"one"}
