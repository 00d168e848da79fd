"""What could take the place of the libraries an engine brings along: variables, a system's ROCm.

Engines that Lemonade installed get a short list of variables and never the linker's, so a variable
matters in one of two ways, and each finding says which.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lemonade.doctor.finding import Finding, Notebook
from lemonade.hardware import Evidence, Machine

_LEADING_AWAY: Final = {
    "ROCM_PATH": "Where it points, engines look for ROCm before they look at their own.",
    "HIP_PATH": "Where it points, engines look for HIP before they look at their own.",
    "HSA_OVERRIDE_GFX_VERSION": "Every AMD GPU is taken for that one; a build for the GPU that is "
    "really here then fails with 'invalid device function', or computes wrongly.",
    "CUDA_HOME": "Where it points, engines look for CUDA before they look at their own.",
}
_VISIBLE: Final = {
    "HIP_VISIBLE_DEVICES": "amd",
    "ROCR_VISIBLE_DEVICES": "amd",
    "GPU_DEVICE_ORDINAL": "amd",
    "CUDA_VISIBLE_DEVICES": "nvidia",
    "NVIDIA_VISIBLE_DEVICES": "nvidia",
}
_NOTHING: Final = frozenset({"", "-1", "none", "void"})
_OWN_PROGRAMS: Final = (
    "Engines that Lemonade installed do not get it; your own (the variant `system`, or a path in "
    "the settings) do."
)


def check_shadowing(
    environ: Mapping[str, str], root: Path, machine: Machine
) -> tuple[Finding, ...]:
    """Look at variables, and for a ROCm of the system."""
    book = Notebook("libraries")
    vendors = {gpu.vendor for gpu in machine.gpus}
    for name, effect in _LEADING_AWAY.items():
        vendor = "nvidia" if name.startswith("CUDA") else "amd"
        if (value := environ.get(name)) and vendor in vendors:
            book.warn(
                "variable",
                f"{name} is set. {effect}",
                Evidence(f"${name}", value),
                fix=f"`unset {name}` where the server is started, unless an engine of your own "
                "needs it.",
            )
    _look_at_linker(book, environ)
    _look_at_visibility(book, environ, machine)
    _look_for_rocm(book, root)
    book.ok_unless_trouble("No variable leads engines away from the libraries they bring along.")
    return book.findings


def _look_at_linker(book: Notebook, environ: Mapping[str, str]) -> None:
    if value := environ.get("LD_LIBRARY_PATH"):
        leading = [part for part in value.split(os.pathsep) if _is_of_a_gpu(part)]
        book.note(
            "linker-path",
            f"LD_LIBRARY_PATH is set{', with libraries for GPUs in it' if leading else ''}. "
            f"{_OWN_PROGRAMS}",
            Evidence("$LD_LIBRARY_PATH", value),
            fix="`unset LD_LIBRARY_PATH` where the server is started, if an engine of your own "
            "fails with undefined symbols."
            if leading
            else "",
        )
    if value := environ.get("LD_PRELOAD"):
        book.note(
            "linker-preload",
            "LD_PRELOAD is set: those libraries are loaded into the server, not into the engines "
            "it starts.",
            Evidence("$LD_PRELOAD", value),
        )


def _is_of_a_gpu(part: str) -> bool:
    return any(word in part.lower() for word in ("rocm", "hip", "cuda"))


def _look_at_visibility(book: Notebook, environ: Mapping[str, str], machine: Machine) -> None:
    vendors = {gpu.vendor for gpu in machine.gpus}
    for name, vendor in _VISIBLE.items():
        value = environ.get(name)
        if value is None or vendor not in vendors:
            continue
        if value.strip().lower() in _NOTHING:
            book.warn(
                "devices-hidden",
                f"{name} hides every GPU from the engines.",
                Evidence(f"${name}", value or "(empty)"),
                fix=f"`unset {name}` where the server is started.",
            )
        else:
            book.note(
                "devices-chosen",
                f"{name} limits which GPUs engines see.",
                Evidence(f"${name}", value),
            )


def _look_for_rocm(book: Notebook, root: Path) -> None:
    found = sorted((root / "opt").glob("rocm*/lib/libamdhip64.so*"))
    folders = {f"/{path.parents[1].relative_to(root)}": path.parents[1] for path in found}
    linked = [
        f"/{path.relative_to(root)}"
        for path in sorted((root / "etc/ld.so.conf.d").glob("*.conf"))
        if "rocm" in _text(path)
    ]
    for shown, folder in folders.items():
        version = _text(folder / ".info/version").strip() or "of unknown version"
        book.note(
            "system-rocm",
            f"ROCm {version} is installed in {shown}"
            + (", and every program finds it" if linked else "")
            + ". Engines that Lemonade installs bring their own and look there first; an engine "
            "built for another version that lacks a library takes this one and may fail.",
            Evidence(shown, f"ROCm {version}"),
            *(Evidence(path, "leads the linker there") for path in linked),
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
