"""How a child is started: command line, environment, ending."""

from __future__ import annotations

import pickle
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lemonade.core.bundle import Bundle
from lemonade.core.errors import BadDescriptor, Incomplete, ReservedArgument
from lemonade.core.ids import BackendId
from lemonade.planning import EffectiveOptions, parse_argv, plan_launch
from lemonade.planning.words import join_words
from tests.unit.planning.examples import a_recipe, backend, facts, model, recipe

PROGRAM = (
    "/bundles/llamacpp-wheel/1.0/bin/python",
    "-I",
    "/shipped/backends/llamacpp-wheel.overlay/server.py",
)
ALWAYS = (
    "-m",
    "/models/tiny.gguf",
    "--host",
    "127.0.0.1",
    "--port",
    "40123",
    "--alias",
    "Tiny",
    "--jinja",
    "--metrics",
    "--no-webui",
)


def options(text: str = "", **values: Any) -> EffectiveOptions:
    given = {"ctx_size": -1, "llamacpp_device": "", "merge_args": True}
    return EffectiveOptions(given | values, {}, parse_argv(text, "request"))


def test_the_plain_command_line() -> None:
    assert plan_launch(facts()).argv == PROGRAM + ALWAYS


def test_what_was_chosen_follows_in_the_recipes_order() -> None:
    spec = plan_launch(
        facts(
            options=options("--threads 1", ctx_size=4096, llamacpp_device="Vulkan0"),
            model=model(labels=["embeddings"]),
            files={"main": (Path("/m.gguf"),), "mmproj": (Path("/p.gguf"), Path("/other"))},
        )
    )
    assert spec.argv[len(PROGRAM) + len(ALWAYS) :] == (
        "--ctx-size",
        "4096",
        "--device",
        "Vulkan0",
        "--embeddings",
        "--mmproj",
        "/p.gguf",
        "--threads",
        "1",
    )


@pytest.mark.parametrize("size", [-1, 0])
def test_no_context_is_asked_for_unless_one_was_chosen(size: int) -> None:
    assert "--ctx-size" not in plan_launch(facts(options=options(ctx_size=size))).argv


def test_an_embedding_model_gets_no_context_of_ours_either() -> None:
    spec = plan_launch(facts(model=model(labels=["embeddings"])))
    assert spec.argv == (*PROGRAM, *ALWAYS, "--embeddings")


def test_an_empty_role_is_no_file() -> None:
    spec = plan_launch(facts(files={"main": (Path("/m.gguf"),), "mmproj": ()}))
    assert "--mmproj" not in spec.argv


def test_names_and_paths_may_hold_anything() -> None:
    spec = plan_launch(
        facts(served_name="a {port} b", files={"main": (Path("/my models/{x} é.gguf"),)})
    )
    assert "a {port} b" in spec.argv
    assert "/my models/{x} é.gguf" in spec.argv


def test_the_user_overrides_what_the_recipe_does_not_reserve() -> None:
    mill = a_recipe(argv={"always": ["--port", "{port}", "--stones", "2"], "reserved": ["--port"]})
    spec = plan_launch(facts(recipe=mill, options=options("--stones 4")))
    assert spec.argv[len(PROGRAM) :] == ("--port", "40123", "--stones", "4")


def test_a_reserved_argument_never_reaches_the_command_line() -> None:
    with pytest.raises(ReservedArgument):
        plan_launch(facts(options=options("--host 0.0.0.0")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--stop=--end --temp=1", ("--stop", "--end", "--temp", "1")),
        ("--stop=-e x", ("--stop", "-e", "x")),
        ("--stop= --temp=-1", ("--stop", "", "--temp", "-1")),
    ],
)
def test_an_engine_that_understands_no_joined_values_gets_none(
    text: str, words: tuple[str, ...]
) -> None:
    given = options(text)
    assert plan_launch(facts(options=given)).argv == (*PROGRAM, *ALWAYS, *words)
    assert parse_argv(join_words(given.arguments.words()), "saved").words() == (
        given.arguments.words()
    ), "what is kept of it can be read again"


def test_an_engine_that_understands_joined_values_gets_them() -> None:
    spec = plan_launch(facts(recipe=a_recipe(), options=options("--stop=--end --temp=1")))
    assert spec.argv[-3:] == ("--stop=--end", "--temp", "1")


@pytest.mark.parametrize("value", ["--port", "--host=0.0.0.0", "-m", "--no-jinja"])
def test_nothing_reserved_gets_in_as_the_value_of_a_flag(value: str) -> None:
    with pytest.raises(ReservedArgument, match=value.partition("=")[0]):
        plan_launch(facts(options=options(f"--verbose={value}")))
    joined = a_recipe(argv={"always": ["--port", "{port}"], "reserved": ["--port"]})
    spec = plan_launch(facts(recipe=joined, options=options("--verbose=--port")))
    assert spec.argv[-1] == "--verbose=--port", "its engine reads that as one word"


def test_a_recipe_may_begin_with_words_that_are_no_flags() -> None:
    mill = a_recipe(argv={"always": ["serve", "{checkpoint.main}", "--port", "{port}"]})
    spec = plan_launch(facts(recipe=mill, options=options("--stones 4")))
    assert spec.argv[len(PROGRAM) :] == (
        "serve",
        "/models/tiny.gguf",
        "--port",
        "40123",
        "--stones",
        "4",
    )


def test_a_missing_file_is_named() -> None:
    with pytest.raises(Incomplete, match="'main'"):
        plan_launch(facts(files={}))


def test_an_unknown_placeholder_is_named() -> None:
    mill = a_recipe(argv={"always": ["--moon", "{moon}"]})
    with pytest.raises(BadDescriptor, match=r"\{moon\}"):
        plan_launch(facts(recipe=mill))


def test_json_in_a_template_is_no_placeholder() -> None:
    mill = a_recipe(argv={"always": ["--config", '{"method": "mtp"}']})
    assert '{"method": "mtp"}' in plan_launch(facts(recipe=mill)).argv


# ---- environment


def test_little_of_our_environment_passes() -> None:
    ours = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "1",
        "HF_TOKEN": "hf_secret",
        "LEMONADE_API_KEY": "key",
        "LEMONADE_ADMIN_API_KEY": "key",
        "PYTHONPATH": "/somewhere",
        "PYTHONHOME": "/somewhere",
        "LD_LIBRARY_PATH": "/somewhere",
        "LD_PRELOAD": "/somewhere.so",
        "http_proxy": "http://proxy",
        "LLAMA_ARG_PORT": "1",
        "AWS_SECRET_ACCESS_KEY": "key",
    }
    assert plan_launch(facts(environ=ours)).env == {
        "PATH": "/bin",
        "HOME": "/home/me",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "OMP_NUM_THREADS": "2",
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "LLAMA_API_KEY": "s3cret",
    }


def test_the_operators_own_program_keeps_its_library_path() -> None:
    own = Bundle(
        BackendId.parse("llamacpp:system"),
        "system",
        Path("/usr/bin"),
        ("/usr/bin/llama-server",),
        removable=False,
    )
    spec = plan_launch(
        facts(
            bundle=own, backend=backend("llamacpp-system"), environ={"LD_LIBRARY_PATH": "/opt/lib"}
        )
    )
    assert spec.env["LD_LIBRARY_PATH"] == "/opt/lib"
    assert spec.argv[0] == "/usr/bin/llama-server"
    assert spec.executable_root == Path("/usr/bin")


def test_recipe_and_backend_set_variables_the_backend_last() -> None:
    ours = backend().model_copy(
        update={"environment": {"A": "backend", "SHIM": "{overlay}/shim:{python}"}}
    )
    spec = plan_launch(facts(backend=ours, recipe=a_recipe(environment={"A": "recipe", "B": "b"})))
    assert spec.env["A"] == "backend"
    assert spec.env["B"] == "b"
    assert spec.env["SHIM"] == (
        "/shipped/backends/llamacpp-wheel.overlay/shim:/bundles/llamacpp-wheel/1.0/bin/python"
    )


# ---- secrets


def test_the_key_is_in_the_environment_and_nowhere_to_be_seen() -> None:
    planned = facts()
    spec = plan_launch(planned)
    assert spec.env["LLAMA_API_KEY"] == "s3cret"
    assert spec.secrets == ("s3cret",)
    assert "s3cret" not in repr(spec)
    assert "s3cret" not in repr(planned)
    assert "s3cret" not in " ".join(spec.shown_argv())


def test_an_engine_that_knows_no_keys_gets_none() -> None:
    spec = plan_launch(facts(recipe=a_recipe()))
    assert spec.secrets == ()
    assert "s3cret" not in str(spec.env)


# ---- the rest


def test_a_model_may_have_its_own_patience() -> None:
    chosen = options(ready_timeout=7200, stall_timeout=0)
    probe = plan_launch(facts(options=chosen)).probe
    assert (probe.ready_within, probe.stall_timeout) == (7200, 120), "0 leaves it to the recipe"


def test_probe_stop_and_labels_come_from_the_recipe() -> None:
    spec = plan_launch(facts(log_file=Path("/logs/tiny.log")))
    assert spec.probe.path == "/health"
    assert (spec.probe.ready_within, spec.probe.stall_timeout) == (3600, 120)
    assert spec.probe.milestones[0].phase == "weights"
    assert spec.stop.grace == recipe().upstream.stop_grace
    assert spec.stop.on_parent_death == signal.SIGKILL
    assert spec.endpoint.port == 40123
    assert spec.log_file == Path("/logs/tiny.log")
    assert spec.executable_root == Path("/bundles/llamacpp-wheel/1.0")
    assert spec.labels == {
        "backend": "llamacpp:wheel",
        "version": "1.0",
        "recipe": "llamacpp",
        "model": "builtin.Tiny",
    }
    gentle = a_recipe(
        upstream={"ready": "/r", "operations": {}, "on_parent_death": "TERM", "stop_grace": "2s"}
    )
    assert plan_launch(facts(recipe=gentle)).stop.on_parent_death == signal.SIGTERM


def test_a_plan_can_be_sent_to_another_machine() -> None:
    spec = plan_launch(facts())
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_planning_twice_gives_the_same_plan() -> None:
    assert plan_launch(facts()) == plan_launch(facts())


def test_a_launch_can_be_planned_before_the_bundle_is_installed() -> None:
    not_yet = Bundle(backend().backend_id, "", Path("/"), backend().bundle.argv)
    spec = plan_launch(facts(bundle=not_yet))
    assert spec.argv[3:] == ALWAYS


def test_a_default_yields_to_a_variable_of_the_servers_own() -> None:
    mine = backend().model_copy(update={"defaults": {"MEMORY": "2", "PLACE": "{overlay}/x"}})
    env = plan_launch(facts(backend=mine, environ={"MEMORY": "8", "OTHER": "1"})).env
    assert env["MEMORY"] == "8"
    assert env["PLACE"].endswith(".overlay/x")
    assert "OTHER" not in env


def test_folders_of_a_runtime_come_before_its_own() -> None:
    ours = backend().model_copy(update={"environment": {"LD_LIBRARY_PATH": "{runtime}{folder}"}})
    bundle = facts().bundle
    libraries = (Path("/runtimes/rocm/lib"), Path("/runtimes/rocm/lib64"))
    spec = plan_launch(facts(backend=ours, bundle=replace(bundle, libraries=libraries)))
    own = str(Path(bundle.argv[0]).parent)
    assert spec.env["LD_LIBRARY_PATH"] == f"/runtimes/rocm/lib:/runtimes/rocm/lib64:{own}"
    spec = plan_launch(facts(backend=ours, bundle=bundle))
    assert spec.env["LD_LIBRARY_PATH"] == own, "no empty folder, which would be the current one"
