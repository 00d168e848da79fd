"""The machine, what runs on it, and what it has done: system-info, stats, metrics."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, Final

from aiohttp import web

from lemonade.catalog import BackendSpec, RecipeSpec, RunsOnSpec, not_run
from lemonade.core.errors import LemonadeError
from lemonade.core.inference import ModelType
from lemonade.core.units import render_size
from lemonade.gateway.errors import json_response
from lemonade.gateway.parts import Parts, parts_of
from lemonade.gateway.routing import Route
from lemonade.hardware import Evidence, Machine, Problem, usage
from lemonade.planning import LATEST, choose_backend, download_name, judge, slot_policy
from lemonade.residency import Availability, Phase, Resident, scrape
from lemonade.telemetry import CONTENT_TYPE as METRICS_CONTENT_TYPE
from lemonade.telemetry import HostLoad, LoadedModel, join_pages, relabel

GIB: Final = 1 << 30


def system_routes() -> tuple[Route, ...]:
    """The routes of this file."""
    return (
        Route("GET", "/system-info", system_info),
        Route("GET", "/system-stats", system_stats),
        Route("GET", "/stats", stats),
        Route("GET", "/metrics", metrics, prefixed=False),
    )


async def system_info(request: web.Request) -> web.Response:
    """The machine, and what each recipe can do on it."""
    parts = parts_of(request)
    every = parts.catalog.backends.values()
    followed = [one for one in every if parts.selections.pin(one) == LATEST]
    parts.latest.refresh_soon(map(parts.selections.described, followed))
    return json_response(await asyncio.to_thread(_describe, parts))


def _describe(parts: Parts) -> dict[str, Any]:
    machine = parts.machine
    settings = parts.configuration.settings
    body: dict[str, Any] = {
        "OS Version": machine.os_version,
        "Processor": machine.cpu.name,
        "Physical Memory": f"{machine.memory_bytes / GIB:.1f} GB",
        "devices": _devices(parts.quarantine.machine),
        "recipes": {
            recipe.id: _describe_recipe(parts, recipe)
            for recipe in sorted(parts.catalog.recipes.values(), key=lambda r: (r.order, r.id))
        },
        "unavailable_recipes": _unavailable(parts),
        "no_fetch_executables": settings.no_fetch_executables,
        "model_storage": _storage(parts),
        "cloud": {"providers": []},
    }
    if machine.problems:
        body["error"] = " ".join(machine.problems)
    return body


def _devices(machine: Machine) -> dict[str, Any]:
    cpu = machine.cpu
    amd: list[dict[str, Any]] = []
    nvidia: list[dict[str, Any]] = []
    for gpu in machine.gpus:
        row: dict[str, Any] = {
            "name": gpu.name,
            "available": gpu.problem is None,
            "family": gpu.family,
            "integrated": gpu.integrated,
            "vram_gb": round(gpu.vram_bytes / GIB, 1),
        }
        known = {
            "driver_version": gpu.driver_version,
            "pci_address": gpu.pci_address,
            "uuid": gpu.uuid,
        }
        row |= {key: value for key, value in known.items() if value}
        row |= _problem(gpu.problem)
        if gpu.vendor == "amd":
            row["virtual_mem_gb"] = round(gpu.shared_bytes / GIB, 1)
            amd.append(row)
        else:
            row["index"] = len(nvidia)
            if gpu.family:
                row["compute_capability"] = _capability(gpu.family)
            nvidia.append(row)
    devices: dict[str, Any] = {
        "cpu": {
            "name": cpu.name,
            "cores": cpu.cores,
            "threads": cpu.threads,
            "available": True,
            "family": cpu.family,
        },
        "amd_gpu": amd,
        "nvidia_gpu": nvidia,
    }
    if machine.npus:
        npu = machine.npus[0]
        devices["amd_npu"] = {
            "name": npu.name,
            "available": npu.problem is None,
            "family": npu.family,
            **_problem(npu.problem),
        }
    return devices


def _capability(family: str) -> str:
    """`sm_86` as NVIDIA writes it elsewhere: `8.6`."""
    digits = family.removeprefix("sm_")
    return f"{digits[:-1]}.{digits[-1:]}"


def _problem(problem: Problem | None) -> dict[str, Any]:
    """What a device's row says if it cannot be used."""
    if problem is None:
        return {}
    return {
        "error": problem.reason,
        "action": problem.fix,
        "evidence": _evidence((problem.evidence,)),
    }


def _evidence(evidence: Sequence[Evidence]) -> list[dict[str, str]]:
    return [{"path": one.path, "value": one.value} for one in evidence]


def _describe_recipe(parts: Parts, recipe: RecipeSpec) -> dict[str, Any]:
    candidates, rows, support = [], {}, []
    for backend in map(parts.selections.described, parts.catalog.backends_of(recipe.id)):
        variant = backend.backend_id.variant
        status = parts.selections.status(backend)
        verdict = judge(backend, parts.machine)
        candidates.append((backend, verdict, status.usable))
        rows[variant] = {
            "devices": list(backend.devices),
            "state": status.state,
            "message": " ".join(filter(None, (status.message, parts.swapper.problem(backend)))),
            "action": status.action or verdict.fix,
            "evidence": _evidence(verdict.evidence),
            "title": backend.title,
            "embedded": backend.embedded,
            "slot_policy": slot_policy(recipe, backend).replace("-", "_"),
            "can_uninstall": status.can_uninstall,
        }
        if not recipe.runs and status.state == "installable":
            rows[variant]["message"] = not_run(recipe)
        if version := status.version or backend.pin.version:
            rows[variant]["version"] = version
        if file := download_name(parts.selections.wanted(backend), parts.machine):
            rows[variant]["download_filename"] = file
        if backend.pin.release_url:
            rows[variant]["release_url"] = backend.pin.release_url
        support.append(_support(backend))
    section = parts.configuration.settings.section(recipe.section)
    described: dict[str, Any] = {
        "backends": rows,
        "order": recipe.order,
        "display_name": recipe.title,
        "web_display_name": recipe.title,
        "selectable_backend": recipe.selectable_backend,
        "uses_ctx_size": recipe.uses_ctx_size,
        "modality": recipe.modality,
        "experimental": recipe.experimental,
        "runs": recipe.runs,
        "slot_policy": recipe.slots.replace("-", "_"),
        "support": support,
        "options": [
            {
                "name": option.name,
                "cli_flag": option.flag,
                "default": option.default,
                "type_name": option.type,
                "help": option.help,
                "group": option.group,
            }
            for option in recipe.option
        ],
    }
    try:
        chosen = choose_backend(
            recipe,
            candidates,
            wanted=str(section.get("backend") or ""),
            prefer_system=bool(section.get("prefer_system", True)),
        )
        described["default_backend"] = chosen.backend_id.variant
    except LemonadeError:
        pass  # none runs here; the rows say why
    return described


def _support(backend: BackendSpec) -> dict[str, Any]:
    systems = sorted({name for row in backend.runs_on for name in row.os})
    devices = [
        {"device": device, "families": list(families)}
        for row in backend.runs_on
        for device, families in _families(row)
    ]
    return {
        "backend": backend.backend_id.variant,
        "os": systems,
        "devices": devices,
        "device_summary": ", ".join(
            f"{row['device']} ({', '.join(row['families'])})" for row in devices
        )
        or "any",
    }


def _families(row: RunsOnSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
    for device, families in (("cpu", row.cpu), ("gpu", row.gpu), ("npu", row.npu)):
        if families:
            yield device, families


def _unavailable(parts: Parts) -> list[str]:
    """Recipes none of whose models can run: here, or at all in this version."""
    reasons = Availability(parts.catalog, parts.configuration, parts.machine)
    usable: dict[str, bool] = {}
    for spec in parts.registry.all():
        usable[spec.recipe] = usable.get(spec.recipe, False) or reasons.of(spec) is None
    usable |= {recipe.id: False for recipe in parts.catalog.recipes.values() if not recipe.runs}
    return sorted(recipe for recipe, can in usable.items() if not can)


def _storage(parts: Parts) -> dict[str, Any]:
    path = parts.store.hub_cache
    existing = path
    while not existing.exists():
        existing = existing.parent
    try:
        disk = shutil.disk_usage(existing)
    except OSError as error:
        return {
            "path": str(path),
            "used_bytes": None,
            "total_bytes": None,
            "free_bytes": None,
            "error": os.strerror(error.errno or 0),
        }
    return {
        "path": str(path),
        "used_bytes": disk.used,
        "total_bytes": disk.total,
        "free_bytes": disk.free,
        "free": render_size(disk.free),
    }


async def system_stats(_request: web.Request) -> web.Response:
    """How busy the machine is now; what cannot be known is null."""
    return json_response(await asyncio.to_thread(_usage))


def _usage() -> dict[str, Any]:
    now = usage()
    return {
        "cpu_percent": now.cpu_percent,
        "memory_gb": round(now.memory_bytes / GIB, 1),
        "gpu_percent": now.gpu_percent,
        "vram_gb": None if now.vram_bytes is None else round(now.vram_bytes / GIB, 1),
        "npu_percent": now.npu_percent,
    }


async def stats(request: web.Request) -> web.Response:
    """The last request's performance, and totals."""
    return json_response(parts_of(request).statistics.as_json())


def _loaded(resident: Resident) -> LoadedModel:
    return LoadedModel(
        model_name=resident.served_name,
        checkpoint=resident.spec.checkpoints.get("main", ""),
        type=resident.spec.type,
        device="|".join(resident.devices),
        recipe=resident.recipe.id,
    )


async def metrics(request: web.Request) -> web.Response:
    """Prometheus text: our own, and what the engines say of themselves."""
    parts = parts_of(request)
    now = await asyncio.to_thread(usage)
    host = HostLoad(
        now.cpu_percent, now.memory_bytes, now.gpu_percent, now.vram_bytes, now.npu_percent
    )
    serving = [r for r in parts.pool.residents() if r.phase is Phase.SERVING]
    most = parts.configuration.settings.max_loaded_models
    limits = {str(kind): most for kind in ModelType}
    async with asyncio.TaskGroup() as group:
        scrapes = [
            (resident, group.create_task(scrape(resident)))
            for resident in serving
            if resident.recipe.upstream.metrics
        ]
    pages = [(resident, scrape.result()) for resident, scrape in scrapes]
    had = {resident.served_name: page is not None for resident, page in pages}
    own = parts.metrics.render([_loaded(r) for r in serving], host, limits, had)
    text = await asyncio.to_thread(_join, own + parts.crew.page(), pages)
    return web.Response(body=text.encode(), headers={"Content-Type": METRICS_CONTENT_TYPE})


def _join(own: str, pages: Sequence[tuple[Resident, bytes | None]]) -> str:
    """Our page, and those of the engines with the labels of their models."""
    joined = [own]
    for resident, page in pages:
        recipe, backend = resident.recipe, resident.backend
        labels = {"model": resident.served_name, "backend": backend.id if backend else ""}
        text = (page or b"").decode("utf-8", "replace")
        if recipe.upstream.metrics_names == "own":
            joined.append(relabel(text, labels))
        else:
            prefix = f"lemonade_{recipe.id.replace('-', '_')}_"
            besides = _loaded(resident).labels()
            joined.append(relabel(text, labels, prefix=prefix, besides=besides))
    return join_pages(joined)
