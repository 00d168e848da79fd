"""A server that says what the documented interface says, for tests of what asks it.

It has no engine and no files: models are rows, downloads are frames, answers are fixed words. What
it was asked is kept and handed out at `/asked`, together with who left before the end. Names make
it misbehave: a model called `Slow...` never finishes, `Steady...` takes its time,
`Cut...` breaks off, `Broken...` fails.

`python stand_in.py [--key KEY] [--port PORT]` prints the port it listens on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MODELS: list[dict[str, Any]] = [
    {
        "id": "Demo-1B-GGUF",
        "recipe": "llamacpp",
        "checkpoint": "acme/Demo-1B-GGUF:Q4_K_M",
        "checkpoints": {"main": "acme/Demo-1B-GGUF:Q4_K_M"},
        "downloaded": True,
        "labels": ["chat", "hot"],
        "size": 0.84,
        "components": [],
    },
    {
        "id": "extra.Alpha-GGUF",
        "recipe": "llamacpp",
        "checkpoint": "/models/alpha.gguf",
        "checkpoints": {"main": "/models/alpha.gguf"},
        "downloaded": True,
        "labels": ["chat"],
        "components": [],
    },
    {
        "id": "Far-2B-GGUF",
        "recipe": "llamacpp",
        "checkpoint": "acme/Far-2B-GGUF:Q4_K_M",
        "checkpoints": {"main": "acme/Far-2B-GGUF:Q4_K_M"},
        "downloaded": False,
        "labels": ["chat", "tool-calling"],
        "size": 1.5,
        "components": [],
    },
    {
        "id": "Demo-Omni",
        "recipe": "collection.omni",
        "checkpoint": "",
        "checkpoints": {},
        "downloaded": False,
        "labels": [],
        "components": ["Far-2B-GGUF", "Unmeasured-GGUF"],
    },
]
LOADED: dict[str, Any] = {
    "model_name": "Demo-1B-GGUF",
    "checkpoint": "acme/Demo-1B-GGUF:Q4_K_M",
    "type": "llm",
    "device": "gpu",
    "recipe": "llamacpp",
    "backend": "llamacpp:vulkan",
    "backend_url": "http://127.0.0.1:41234/v1",
    "pid": 4321,
    "status": "ready",
    "pinned": True,
    "recipe_options": {"llamacpp_backend": "vulkan"},
    "last_use": 1000,
}
JOBS: list[dict[str, Any]] = [
    {"id": "model:Demo-1B-GGUF", "status": "downloading", "file": "demo-q4_k_m.gguf",
     "total_download_size": 860_140_000, "overall_bytes_downloaded": 361_000_000},
    {"id": "backend:llamacpp:cpu", "status": "error", "file": "find release",
     "error": "Nobody answers."},
]  # fmt: skip
CONFIG: dict[str, Any] = {
    "config_version": 2,
    "ctx_size": -1,
    "extra_models_dir": "",
    "offline": False,
    "llamacpp": {"args": "", "backend": "auto"},
    "vllm": {"args": "", "backend": "auto"},
    "telemetry": {"enabled": False, "otlp": {"batch_timeout_s": 1.0}},
}
RECIPES: dict[str, Any] = {
    "vllm": {
        "order": 20,
        "backends": {
            "rocm": {
                "state": "unsupported",
                "message": "No supported GPU.",
                "action": "Join the group render.",
                "evidence": [{"path": "/dev/kfd", "value": "mode 0660, group render"}],
            },
            "cpu": {
                "state": "update_required",
                "message": "0.31.0 is installed, 0.32.0 is wanted.",
                "action": "lemonade backends install vllm:cpu",
                "version": "0.31.0",
            },
        },
    },
    "llamacpp": {
        "order": 10,
        "default_backend": "vulkan",
        "backends": {
            "vulkan": {"state": "installed", "message": "", "action": "", "version": "b10375"},
            "cpu": {
                "state": "installable",
                "message": "Not installed.",
                "action": "lemonade backends install llamacpp:cpu",
                "version": "b10375",
            },
        },
    },
    "flm": {
        "order": 30,
        "backends": {"npu": {"state": "installable", "message": "", "action": ""}},
    },
}
VARIANTS: dict[str, Any] = {
    "acme/Many-GGUF": {
        "repo_kind": "gguf",
        "recipe": "llamacpp",
        "source": "huggingface",
        "suggested_name": "Many-GGUF",
        "suggested_labels": ["chat", "vision"],
        "mmproj_files": ["mmproj-F16.gguf"],
        "draft_files": [],
        "variants": [
            {"name": name, "files": [f"{name}.gguf"] * count, "size_bytes": 860_100_000 * count}
            for name, count in (
                ("Q4_K_M", 1),
                ("Q8_0", 2),
                ("Q4_0", 1),
                ("F16", 3),
                ("IQ2", 1),
                ("Q2", 1),
                ("Q3", 1),
            )
        ],
    },
    "acme/Drafted-GGUF": {
        "repo_kind": "gguf",
        "recipe": "llamacpp",
        "source": "modelscope",
        "suggested_name": "Drafted-GGUF",
        "suggested_labels": [],
        "mmproj_files": [],
        "draft_files": ["dflash.gguf"],
        "variants": [{"name": "Q4_K_M", "files": ["a.gguf"], "size_bytes": 1000}],
    },
    "acme/Onnx": {
        "repo_kind": "onnx-ryzenai",
        "recipe": "flm",
        "source": "huggingface",
        "suggested_name": "Onnx",
        "variants": [{"name": "default", "files": [], "size_bytes": 0}],
    },
}


class StandIn:
    """The state that requests change, and what was asked."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.stop = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        self.models = copy.deepcopy(MODELS)
        self.loaded = [dict(LOADED)]
        self.config = copy.deepcopy(CONFIG)
        self.asked: list[dict[str, Any]] = []
        self.left: list[str] = []
        self.answers: dict[str, Any] = {}  # what a test wants said at a path

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in ("/live", "/asked", "/reset"):
            return await handler(request)
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "The key is wrong."}, status=401)
        raw = await request.read()
        self.asked.append(
            {
                "method": request.method,
                "path": request.path,
                "query": dict(request.query),
                "body": json.loads(raw) if raw else None,
            }
        )
        if request.path in self.answers:
            return web.json_response(self.answers[request.path])
        try:
            return await handler(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left.append(request.path)
            raise

    # ---- the server

    async def live(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def report(self, _request: web.Request) -> web.Response:
        return web.json_response({"asked": self.asked, "left": self.left})

    async def start_over(self, request: web.Request) -> web.Response:
        self.reset()
        for key, value in (await request.json()).items():
            setattr(self, key, value)
        return web.json_response({})

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "status": "ok",
                "version": "11.7.0",
                "websocket_port": 41233,
                "model_loaded": self.loaded[0]["model_name"] if self.loaded else None,
                "all_models_loaded": self.loaded,
                "models_loading": [],
                "max_models": {"llm": 1},
                "pinned_models": {"llm": sum(m["pinned"] for m in self.loaded)},
            }
        )

    async def system_info(self, _request: web.Request) -> web.Response:
        return web.json_response({"recipes": RECIPES, "unavailable_recipes": ["flm"]})

    async def stats(self, _request: web.Request) -> web.Response:
        return web.json_response({"tokens_per_second": 50.0, "cache_tokens": None})

    async def show_config(self, _request: web.Request) -> web.Response:
        return web.json_response(self.config)

    async def set_config(self, request: web.Request) -> web.Response:
        changes = await request.json()
        for key in changes:
            known = key in self.config or key.partition("_")[0] in self.config
            if not known:
                return web.json_response({"error": f"Unknown config key: '{key}'"}, status=400)
        updated: dict[str, Any] = {}
        for key, value in changes.items():
            section, _, name = key.partition("_")
            if key not in self.config:
                updated.setdefault(section, {})[name] = value
            else:
                updated[key] = value
        for key, value in updated.items():
            if isinstance(value, dict):
                self.config[key].update(value)
            else:
                self.config[key] = value
        return web.json_response({"status": "success", "updated": updated, "message": "Noted."})

    async def shutdown(self, _request: web.Request) -> web.Response:
        self.stop.set()
        return web.json_response({"status": "shutting down"})

    async def logs(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("model") == "Nobody":
            return web.json_response({"error": "Nobody is not loaded."}, status=404)
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        lines = [f"line {number}" for number in range(1, 6)][-int(request.query["lines"]) :]
        await response.write("".join(f"{line}\n" for line in lines).encode())
        if request.query.get("follow") == "true":
            await response.write("grüße\n".encode())
            await asyncio.Event().wait()
        return response

    # ---- models

    def _find(self, name: str) -> dict[str, Any] | None:
        if name.startswith(("Slow", "Cut", "Broken", "Thinking")):
            return {**MODELS[0], "id": name, "downloaded": name.endswith("-here")}
        return next((model for model in self.models if model["id"] == name), None)

    async def list_models(self, request: web.Request) -> web.Response:
        every = request.query["show_all"] == "true"
        return web.json_response({"data": [m for m in self.models if every or m["downloaded"]]})

    async def show_model(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if (model := self._find(name)) is not None:
            return web.json_response(model)
        return web.json_response(
            {"error": {"message": f"There is no model '{name}'.", "code": "model_not_found"}},
            status=404,
        )

    async def downloads(self, _request: web.Request) -> web.Response:
        return web.json_response(JOBS)

    async def control(self, request: web.Request) -> web.Response:
        body = await request.json()
        job = next((job for job in JOBS if job["id"] == body["id"]), None)
        if body["action"] == "remove":
            return web.json_response({"status": "ok", **({} if job else {"missing": True})})
        if job is None:
            return web.json_response(
                {"error": f"There is no download '{body['id']}'."}, status=404
            )
        return web.json_response({**job, "status": f"{body['action']}d".replace("ld", "lled")})

    async def pull(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("subscribe") is False:
            return web.json_response({**JOBS[0], "id": f"model:{body['model_name']}"})
        return await self._transfer(request, body["model_name"])

    async def install(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["backend"] == "npu":
            return web.json_response({"action": "https://example.invalid/npu.html"})
        if body.get("subscribe") is False:
            return web.json_response(JOBS[1])
        return await self._transfer(request, f"{body['recipe']}:{body['backend']}")

    async def _transfer(self, request: web.Request, name: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(event: str, **data: object) -> None:
            await response.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())

        common = {"total_files": 2, "total_download_size": 860_140_000}
        small = {"file": "config.json", "file_index": 1, "bytes_total": 40_000}
        await send(
            "progress",
            **common,
            **small,
            bytes_downloaded=40_000,
            bytes_previously_downloaded=40_000,
        )
        big = {"file": "demo-q4_k_m.gguf", "file_index": 2, "bytes_total": 860_100_000}
        steady = name.startswith("Steady")
        for percent in (0, 21, 42, 63) if steady else (0, 21, 42):
            if steady and percent:
                await asyncio.sleep(0.6)  # a speed is an average over a while
            await send("progress", **common, **big, bytes_downloaded=8_601_000 * percent)
        if name.startswith("Slow"):
            await asyncio.Event().wait()
        elif name.startswith("Broken"):
            await send("error", error="The hub does not know it.")
        elif name == "Unknown":
            await send("error", error="There is no such model.", code="unknown_model")
        elif not name.startswith("Cut"):
            await send("complete", **common, **big, bytes_downloaded=860_100_000, percent=100)
        return response

    async def variants(self, request: web.Request) -> web.Response:
        offer = VARIANTS.get(request.query["checkpoint"])
        if offer is None:
            return web.json_response({"error": "No such repository."}, status=404)
        return web.json_response({**offer, "checkpoint": request.query["checkpoint"]})

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["model_name"]
        if name.startswith("Slow"):
            await asyncio.Event().wait()
        if name.startswith("Broken"):
            error = {"message": "Failed to load model: it died.", "code": "model_load_error"}
            return web.json_response({"error": error}, status=500)
        return web.json_response({"status": "success", "model_name": name, "recipe": "llamacpp"})

    async def done(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("model_name") == "Nobody":
            return web.json_response({"error": "There is no model 'Nobody'."}, status=422)
        return web.json_response({"status": "success"})

    # ---- inference

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        question = body["messages"][-1]["content"]
        text = f"You said {question}."
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        if not body["stream"]:
            message = {"role": "assistant", "content": text}
            return web.json_response({"choices": [{"message": message}], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(data: object) -> None:
            await response.write(f"data: {json.dumps(data)}\n\n".encode())

        async for delta in _pieces(body["model"], text):
            await send({"choices": [{"delta": delta, "finish_reason": None}]})
        if question == "stay":
            await asyncio.Event().wait()
        if question == "fail":
            await send({"error": {"message": "The engine died.", "type": "backend_error"}})
            return response
        if question != "cut":
            await send({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            await send({"choices": [], "usage": usage, "timings": {"predicted_per_second": 123.4}})
            await response.write(b"data: [DONE]\n\n")
        return response


async def _pieces(model: str, text: str) -> AsyncIterator[dict[str, str]]:
    yield {"role": "assistant", "content": ""}
    if model.startswith("Thinking"):
        yield {"reasoning_content": "Let me "}
        yield {"reasoning_content": "see."}
    for word in text.split(" "):
        yield {"content": word if word == "You" else f" {word}"}


def application(stand_in: StandIn) -> web.Application:
    app = web.Application(middlewares=[stand_in.middleware])
    p = "/api/v1"
    app.add_routes(
        [
            web.get("/live", stand_in.live),
            web.get("/asked", stand_in.report),
            web.post("/reset", stand_in.start_over),
            web.get(f"{p}/health", stand_in.health),
            web.get(f"{p}/system-info", stand_in.system_info),
            web.get(f"{p}/stats", stand_in.stats),
            web.get(f"{p}/logs", stand_in.logs),
            web.get(f"{p}/models", stand_in.list_models),
            web.get(f"{p}/models/{{id:.+}}", stand_in.show_model),
            web.get(f"{p}/downloads", stand_in.downloads),
            web.post(f"{p}/downloads/control", stand_in.control),
            web.get(f"{p}/pull/variants", stand_in.variants),
            web.post(f"{p}/pull", stand_in.pull),
            web.post(f"{p}/install", stand_in.install),
            web.post(f"{p}/uninstall", stand_in.done),
            web.post(f"{p}/load", stand_in.load),
            web.post(f"{p}/unload", stand_in.done),
            web.post(f"{p}/delete", stand_in.done),
            web.post(f"{p}/chat/completions", stand_in.chat),
            web.get("/internal/config", stand_in.show_config),
            web.post("/internal/set", stand_in.set_config),
            web.post("/internal/shutdown", stand_in.shutdown),
        ]
    )
    return app


async def serve(key: str, port: int) -> None:
    stand_in = StandIn(key)
    runner = web.AppRunner(
        application(stand_in), handler_cancellation=True, access_log=None, shutdown_timeout=0.1
    )
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", port))
    await web.SockSite(runner, listener).start()
    print(listener.getsockname()[1], flush=True)
    await stand_in.stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--key", default="")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.key, options.port))
