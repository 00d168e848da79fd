"""An engine that answers for its health and nothing else is found; a busy one is left alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.gateway.vllm_like import vllm_like_catalog
from tests.serving import Serving, eventually, fake_catalog, fake_model, gone, serving, survivors


@pytest.fixture
def server(home: Path) -> Iterator[Serving]:
    catalog = fake_catalog(home)
    fake_model(catalog, "wedged", args="--answers never --spawn-engine")
    fake_model(catalog, "steady", args="--slow-chunks 0.2 --chunks 12")
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as one:
        yield one
    assert not survivors(home)


@pytest.mark.slow
def test_who_answers_nobody_is_ended_and_loaded_again(server: Serving) -> None:
    body = {"model_name": "wedged", "stall_timeout": 0.4, "save_options": True}
    assert server.post("load", body).status_code == 200
    pid = server.loaded()["wedged"]["pid"]
    replies: list[requests.Response] = []
    asking = threading.Thread(target=lambda: replies.append(server.chat("wedged")))
    asking.start()
    eventually(lambda: gone(pid), "the engine is ended")
    asking.join()
    assert replies[0].status_code >= 500, "it was asked a second time, and stood still again"
    error = replies[0].json()["error"]
    assert error["facts"]["how"] == "hang"
    assert "answered nobody" in error["message"]
    assert "it answers nobody and did nothing for 0.4 s" in server.log()
    eventually(lambda: server.loaded() == {}, "it is not loaded any more")


@pytest.mark.slow
def test_comments_that_keep_a_stream_alive_are_no_work(home: Path) -> None:
    catalog = vllm_like_catalog(home, {"pinging": "--only-pings"})
    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        body = {"model_name": "pinging", "stall_timeout": 0.4, "save_options": True}
        assert server.post("load", body).status_code == 200
        pid = server.loaded()["pinging"]["pid"]
        with server.chat("pinging", stream=True) as reply:
            assert '"how": "hang"' in reply.text
        assert gone(pid)
        assert server.log().count("pinging: starting") == 2, (
            "they were no answer: it was asked again"
        )


@pytest.mark.slow
def test_whose_counters_rise_is_busy_and_what_they_said_is_in_the_record(home: Path) -> None:
    page = home / "page.txt"
    args = f"--answers never --metrics {page}"
    catalog = vllm_like_catalog(home, {"counting": args})
    recipe = catalog / "recipes" / "fake.toml"
    progress = 'progress = ["fake:made_total"]\nmetrics = '
    recipe.write_text(recipe.read_text().replace("metrics = ", progress, 1))
    made = 0

    def looked(times: int) -> bool:
        nonlocal made
        made += 1
        fresh = home / "fresh.txt"
        fresh.write_text(f'# TYPE fake:made_total counter\nfake:made_total{{a="b"}} {made}\n')
        fresh.replace(page)
        return server.log().count("nobody has heard of it") >= times

    with serving(home, env={"LEMONADE_CATALOG": str(catalog)}) as server:
        looked(0)
        body = {"model_name": "counting", "stall_timeout": 1.0, "save_options": True}
        assert server.post("load", body).status_code == 200
        pid = server.loaded()["counting"]["pid"]
        asking = threading.Thread(target=lambda: server.chat("counting"))
        asking.start()
        eventually(lambda: looked(3), "it is looked at again and again")
        assert not gone(pid)
        eventually(lambda: gone(pid), "it makes nothing any more, and is ended")
        asking.join()  # the question was put to a new one, which does no better
        one = server.get("incidents?model=counting").json()["incidents"][-1]
        assert (one["kind"], one["how"]) == ("hung", "hang")
        record = server.get(f"incidents/{one['id']}").json()
        assert record["metrics"]["samples"] == [f'fake:made_total{{a="b"}} {made}']
        assert record["memory"]["resident_bytes"] > 1 << 20
        assert record["process"]["port"] > 0
        assert record["process"]["stall_timeout"] == 1.0
        assert isinstance(record["kernel"], list)


@pytest.mark.slow
def test_who_is_heard_of_is_not_even_asked(server: Serving) -> None:
    body = {"model_name": "steady", "stall_timeout": 0.8}
    assert server.post("load", body).status_code == 200
    pid = server.loaded()["steady"]["pid"]
    reply = server.chat("steady", stream=True)
    assert b"[DONE]" in reply.content
    assert server.loaded()["steady"]["pid"] == pid
    assert "nobody has heard of it" not in server.log()


def test_unloading_tells_what_was_freed(server: Serving) -> None:
    assert server.post("load", {"model_name": "wedged"}).status_code == 200
    answer = server.post("unload", {"model_name": "wedged"}).json()
    assert answer["status"] == "success"
    assert answer["freed_bytes"] > 1 << 20
    assert answer["still_held"] == []
    assert answer["took_s"] > 0
    assert answer["devices_quarantined"] == []
    assert server.post("unload").json()["freed_bytes"] == 0
