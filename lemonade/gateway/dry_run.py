"""A plan as JSON: what would be installed, from where, how large, and what stays.

The plan is made by the function that makes the one that is carried out.
"""

from __future__ import annotations

from dataclasses import replace

from lemonade.catalog import BackendSpec
from lemonade.core.errors import DownloadFailed
from lemonade.core.inference import JsonObject
from lemonade.gateway.parts import Parts
from lemonade.installer import ResolvedPlan
from lemonade.planning import Selection, plan_install, with_gpu


async def describe_plan(
    parts: Parts, backend: BackendSpec, *, arch: str, version: str
) -> JsonObject:
    """Plan it, ask the release what it is allowed to ask, and say all of it.

    Args:
        parts: the server's.
        backend: what would be installed.
        arch: family of a GPU it is planned for; empty is this machine.
        version: a release that is named; empty is the wanted one.

    Raises:
        LemonadeError: it cannot be planned, or the release does not have it.
    """
    machine = with_gpu(parts.machine, arch) if arch else parts.machine
    selection = parts.selections.of(backend, version, machine=machine)
    present = parts.bundles.present(backend)
    plan = plan_install(selection, machine, present, parts.bundles.root, force=True)
    settings = parts.configuration.settings
    online = not (settings.offline or settings.no_fetch_executables)
    try:
        resolved = await parts.installer.resolve(plan, online=online)
    except DownloadFailed as error:
        if plan.verdict is None or plan.verdict.supported:
            raise
        # Of what does not run there, the release may have nothing; that is not the news.
        resolved = await parts.installer.resolve(plan, online=False)
        resolved = replace(resolved, unknown=error.message)
    return _described(parts, selection, resolved, arch or plan.made_for)


def _described(
    parts: Parts, selection: Selection, resolved: ResolvedPlan, arch: str
) -> JsonObject:
    plan, pin = resolved.plan, selection.spec.pin
    release, verdict = plan.release, plan.verdict
    assert verdict is not None
    active = parts.bundles.active(selection)
    return {
        "recipe": plan.backend.recipe,
        "backend": plan.backend.variant,
        "arch": arch,
        "repo": pin.repository,
        "version": release.tag if release is not None else plan.version,
        "filename": release.asset.name if release is not None else _first_name(resolved),
        "url": resolved.files[0].url if resolved.files else "",
        "supports_split_archive": release is not None and release.asset.parts,
        "supported": verdict.supported,
        "title": selection.spec.title,
        "source": pin.source,
        "pin": selection.kind.value,
        "made_for": plan.made_for,
        "packages": [*plan.packages, *(f"{one.name}=={one.version}" for one in plan.locked)],
        "assets": [
            {
                "name": file.name,
                "url": file.url,
                "size_bytes": file.size_bytes or None,
                "sha256": file.sha256,
                "verified_by": file.vouched_by,
            }
            for file in resolved.files
        ],
        "download_bytes": resolved.download_bytes or None,
        "disk_needed_bytes": resolved.needed_bytes or None,
        "disk_free_bytes": resolved.free_bytes,
        "unknown": resolved.unknown,
        "target": str(plan.target),
        "keeps": list(plan.keeps),
        "active": parts.bundles.version_of(active) if active is not None else "",
        "already_installed": plan.present is not None,
        "verdict": {
            "supported": verdict.supported,
            "rule": verdict.rule,
            "reason": verdict.reason,
            "fix": verdict.fix,
            "evidence": [{"path": one.path, "value": one.value} for one in verdict.evidence],
        },
        "steps": list(plan.steps),
    }


def _first_name(resolved: ResolvedPlan) -> str:
    """The first file of packages; empty where only pip will know what they are called."""
    return resolved.files[0].name if resolved.files else ""
