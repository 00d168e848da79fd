"""Error bodies: three shapes of ours, and the engine's own refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lemonade.core import errors as e
from lemonade.core.inference import Operation
from lemonade.dialects import read_inference, render_error, wrap_backend_error


def test_a_string_error_is_one_text_that_says_what_to_do() -> None:
    error = e.NotLoaded("Tiny is not loaded.", remedy="Load it first.", facts={"model": "Tiny"})
    assert render_error(error, 404, shape="string") == {
        "error": "Tiny is not loaded. Load it first."
    }


def test_an_object_error_has_type_code_and_what_to_do() -> None:
    error = e.BadOption("No option 'x'.", remedy="Use 'y'.", facts={"near": ["y"]})
    assert render_error(error, 400, shape="object") == {
        "error": {
            "message": "No option 'x'. Use 'y'.",
            "type": "invalid_request_error",
            "code": "bad-option",
            "remedy": "Use 'y'.",
            "facts": {"near": ["y"]},
        }
    }


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (e.UnknownModel("x"), 404, "model_not_found"),
        (e.UnsupportedHere("x"), 404, "model_not_supported"),
        (e.UnknownRecipe("x"), 404, "model_not_supported"),
        (e.EverythingPinned("x"), 409, "slots_pinned_error"),
        (e.ExitedWhileStarting("x"), 500, "model_load_error"),
        (e.NeverReady("x"), 500, "model_load_error"),
        (e.Incomplete("x"), 500, "model_load_error"),
        (e.GatedRepository("x"), 403, "model_load_error"),
        (e.NotInstalled("x"), 500, "model_load_error"),
        (e.DoesNotFit("x"), 503, "model_load_error"),
        (e.LemonadeError("x"), 500, "model_load_error"),
    ],
)
def test_a_model_error_has_one_word_for_type_and_code(
    error: e.LemonadeError, status: int, kind: str
) -> None:
    error.facts["requested_model"] = "Tiny"
    body = render_error(error, status, shape="model")["error"]
    assert body["type"] == body["code"] == kind
    assert body["param"] == "model"
    assert body["requested_model"] == "Tiny"
    assert body["message"].startswith("Failed to load model") is (kind == "model_load_error")


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (e.MalformedRequest("x"), 400, "invalid_request_error", "invalid_request"),
        (e.WrongOperation("x"), 400, "unsupported_operation", "wrong-operation"),
        (e.NotLoaded("x"), 404, "model_not_loaded", "not-loaded"),
        (e.BadOption("x"), 400, "invalid_request_error", "bad-option"),
        (e.ReservedArgument("x"), 400, "invalid_request_error", "reserved-argument"),
        (e.ConnectionLost("x"), 502, "backend_error", "connection-lost"),
        (e.QueueFull("x"), 503, "server_error", "queue-full"),
        (e.ShuttingDown("x"), 503, "server_error", "shutting-down"),
        (e.NotAuthorised("x"), 401, "invalid_request_error", "not-authorised"),
    ],
)
@pytest.mark.parametrize("shape", ["object", "model"])
def test_what_has_nothing_to_do_with_loading_is_the_same_in_both_shapes(
    error: e.LemonadeError, status: int, kind: str, code: str, shape: Any
) -> None:
    body = render_error(error, status, shape=shape)["error"]
    assert (body["type"], body["code"]) == (kind, code)
    assert "param" not in body


def test_a_request_without_a_model_has_a_type_of_its_own() -> None:
    with pytest.raises(e.MalformedRequest) as caught:
        read_inference(Operation.CHAT, b"{}")
    body = render_error(caught.value, 400, shape="model")["error"]
    assert "no model specified" in body["message"]
    assert (body["type"], body["param"]) == ("invalid_request", "model")


def test_a_missing_route_says_which() -> None:
    error = e.NoSuchRoute("Nothing there.", facts={"path": "/v1/nothing"})
    body = render_error(error, 404, shape="object")["error"]
    assert (body["type"], body["path"]) == ("not_found", "/v1/nothing")


def test_every_error_renders_in_every_shape_as_json() -> None:
    def tree(kind: type[e.LemonadeError]) -> list[type[e.LemonadeError]]:
        return [kind, *(k for sub in kind.__subclasses__() for k in tree(sub))]

    for kind in tree(e.LemonadeError):
        error = kind("What.", remedy="Do.", facts={"model": "m"})
        for shape in ("string", "object", "model"):
            body = render_error(error, 500, shape=shape)  # type: ignore[arg-type]
            assert "What." in json.dumps(body), (kind, shape)


# ---- the engine's own


def engine_said(status: int, body: object) -> dict[str, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer: dict[str, Any] = wrap_backend_error(status, raw, "Engine")["error"]
    return answer


def test_an_engines_error_is_kept_and_wrapped() -> None:
    own = {"error": {"message": "no such template", "type": "template_error", "code": "t1"}}
    assert engine_said(400, own) == {
        "message": "no such template",
        "type": "template_error",
        "code": "t1",
        "status_code": 400,
        "details": {"backend": "Engine", "response": own},
    }


@pytest.mark.parametrize(
    ("status", "body", "message", "kind"),
    [
        (422, {"error": "bad input"}, "bad input", "invalid_request_error"),
        (500, {"error": {"message": "oh"}}, "oh", "backend_error"),
        (400, {"message": "flat", "type": None}, "flat", "invalid_request_error"),
        (503, {"error": {}}, "The engine answered with status 503.", "backend_error"),
        (500, b"", "The engine answered with status 500.", "backend_error"),
        (500, b"Internal Server Error", "Internal Server Error", "backend_error"),
        (404, b"\xff\xfe", "\ufffd\ufffd", "invalid_request_error"),
        (500, [1], "The engine answered with status 500.", "backend_error"),
        (500, {"error": None}, "The engine answered with status 500.", "backend_error"),
        (500, {"error": [1]}, "The engine answered with status 500.", "backend_error"),
    ],
)
def test_an_engine_may_answer_anything(status: int, body: object, message: str, kind: str) -> None:
    answer = engine_said(status, body)
    assert (answer["message"], answer["type"]) == (message, kind)
    assert answer["status_code"] == status
    assert "code" not in answer


@pytest.mark.parametrize(
    "error",
    [
        {"message": "too long", "type": "exceed_context_size_error", "code": 400},
        {"message": "the request exceeds the available context size, try increasing it"},
        {"message": "request (600 tokens) exceeds the available context size (512 tokens)"},
        {"message": "Context length exceeded"},
        {"message": "This model's maximum context length is 4096 tokens. However, you"},
        {"message": "Prompt exceeds maximum context length"},
    ],
)
def test_a_prompt_that_does_not_fit_has_one_code(error: dict[str, Any]) -> None:
    answer = engine_said(400, {"error": error})
    assert (answer["type"], answer["code"]) == ("invalid_request_error", "context_length_exceeded")


def test_other_words_about_context_are_something_else() -> None:
    answer = engine_said(400, {"error": {"message": "context shift is disabled"}})
    assert "code" not in answer
