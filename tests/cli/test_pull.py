"""`pull`: what is asked of the server, and what a person sees of it."""

from __future__ import annotations

from tests.cli.conftest import Cli, Server

MANY = "acme/Many-GGUF"


def test_a_registered_name_is_pulled_with_progress(cli: Cli, server: Server) -> None:
    done = cli("pull", "Demo-1B-GGUF")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Pulling model: Demo-1B-GGUF",
        "Total: 0.9 GB, 2 files",
        "[1/2] config.json (0.0 MB) (already downloaded)",
        "[2/2] demo-q4_k_m.gguf (860.1 MB)",
        "  Progress: 21% (180.6/860.1 MB)",
        "  Progress: 42% (361.2/860.1 MB)",
        "  Progress: 100% (860.1/860.1 MB)",
        "Model pulled successfully: Demo-1B-GGUF",
    ]
    assert server.asked("/pull")[0]["body"] == {
        "model_name": "Demo-1B-GGUF",
        "do_not_upgrade": False,
        "stream": True,
    }


def test_what_fails_says_so_and_exits_1(cli: Cli) -> None:
    for name, words in (
        ("Broken", "The hub does not know it."),
        ("Cut", "The connection ended before the server said that it was done."),
        ("Unknown", "There is no such model. `lemonade pull OWNER/REPO`"),
    ):
        done = cli("pull", name)
        assert done.returncode == 1
        assert words in done.stderr
        assert "successfully" not in done.stdout


def test_a_model_of_ones_own_is_registered(cli: Cli, server: Server) -> None:
    done = cli(
        "pull", "user.Mine", "--checkpoint", "main", "https://huggingface.co/acme/Mine/tree/main",
        "--checkpoint", "mmproj", "acme/Mine:mmproj.gguf", "--recipe", "llamacpp",
        "--label", "vision", "--label", "chat",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert server.asked("/pull")[0]["body"] == {
        "model_name": "user.Mine",
        "recipe": "llamacpp",
        "checkpoints": {"main": "acme/Mine", "mmproj": "acme/Mine:mmproj.gguf"},
        "source": "huggingface",
        "labels": ["vision", "chat"],
        "do_not_upgrade": False,
        "stream": True,
    }
    done = cli(
        "pull", "user.Mine", "--checkpoint", "main", "https://huggingface.co/acme/Mine",
        "--recipe", "llamacpp", "--source", "modelscope",
    )  # fmt: skip
    assert done.returncode == 2


def test_components_are_all_the_words_up_to_the_next_option(cli: Cli, server: Server) -> None:
    done = cli("pull", "user.Kit", "--components", "A", "B", "--recipe", "collection.omni")
    assert done.returncode == 0, done.stderr
    assert server.asked("/pull")[0]["body"]["components"] == ["A", "B"]


def test_a_named_variant_asks_nothing(cli: Cli, server: Server) -> None:
    done = cli("pull", f"{MANY}:q8_0")
    assert done.returncode == 0, done.stderr
    assert server.asked("/pull")[0]["body"] == {
        "model_name": "user.Many-GGUF-Q8_0",
        "checkpoint": f"{MANY}:Q8_0",
        "recipe": "llamacpp",
        "source": "huggingface",
        "labels": ["chat", "vision"],
        "mmproj": "mmproj-F16.gguf",
        "do_not_upgrade": False,
        "stream": True,
    }
    assert done.stdout.splitlines()[0] == "Pulling model: user.Many-GGUF-Q8_0"


def test_the_only_variant_and_the_only_draft_are_taken(cli: Cli, server: Server) -> None:
    assert cli("pull", "acme/Drafted-GGUF").returncode == 0
    body = server.asked("/pull")[0]["body"]
    assert body["checkpoints"] == {
        "main": "acme/Drafted-GGUF:Q4_K_M",
        "draft": "acme/Drafted-GGUF:dflash.gguf",
    }
    assert body["source"] == "modelscope"


def test_variants_are_offered(cli: Cli, server: Server) -> None:
    done = cli("pull", MANY, stdin="2\n\n")
    assert done.returncode == 0, done.stderr
    assert "  1) Q4_K_M  (1 file, 860.1 MB)" in done.stderr
    assert "  2) Q8_0  (2 files, 1.7 GB)" in done.stderr
    assert "  6) Browse all 7" in done.stderr
    assert "Q3" not in done.stderr
    assert server.asked("/pull")[0]["body"]["model_name"] == "user.Many-GGUF-Q8_0"


def test_all_variants_can_be_browsed_and_the_model_named(cli: Cli, server: Server) -> None:
    done = cli("pull", MANY, stdin="6\n9\n7\nMine\n")
    assert done.returncode == 0, done.stderr
    assert "There is no number 9." in done.stderr
    body = server.asked("/pull")[0]["body"]
    assert (body["model_name"], body["checkpoint"]) == ("user.Mine", f"{MANY}:Q3")


def test_no_choice_is_no_pull(cli: Cli, server: Server) -> None:
    for stdin in ("", "\n"):
        done = cli("pull", MANY, stdin=stdin)
        assert done.returncode == 1
        assert f"Name one: `lemonade pull {MANY}:Q4_K_M`." in done.stderr
    assert server.asked("/pull") == []


def test_a_repository_that_is_not_there(cli: Cli) -> None:
    done = cli("pull", "acme/Nothing", "--source", "huggingface")
    assert done.returncode == 1
    assert "acme/Nothing was not found on huggingface" in done.stderr


def test_what_nothing_runs_is_not_downloaded(cli: Cli, server: Server) -> None:
    done = cli("pull", "acme/Onnx:x")
    assert done.returncode == 1
    assert "Nothing that runs flm is installed." in done.stderr
    assert "'x' is ignored" in done.stderr
    assert server.asked("/pull") == []
