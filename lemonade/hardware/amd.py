"""AMD GPUs, as the kernel's compute driver (KFD) and its display driver (DRM) describe them.

KFD lists what can compute, with the version of the instruction set; sizes of memory are in the
DRM device of the same number. Source: the kernel's `drivers/gpu/drm/amd/amdkfd/kfd_topology.c`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lemonade.hardware.facts import Gpu
from lemonade.hardware.pci import PciDevice, number, pci_devices, pci_name

AMD: Final = 0x1002


def find_amd_gpus(root: Path) -> tuple[Gpu, ...]:
    """Every AMD GPU; one that cannot compute has its `problem`.

    Raises:
        OSError: the topology is there but cannot be read.
    """
    display = {device.address: device for device in pci_devices(root, AMD) if device.is_display}
    gpus = []
    for properties in _topology(root):
        minor = int(properties.get("drm_render_minor", "-1") or "-1")
        version = int(properties.get("gfx_target_version", "0") or "0")
        if version == 0 or minor <= 0:
            continue
        folder = root / f"sys/class/drm/renderD{minor}/device"
        device = display.pop(folder.resolve().name, None)
        gpus.append(_computing(root, folder, device, gfx_name(version), minor))
    gpus.extend(_not_computing(root, device) for device in display.values())
    return tuple(gpus)


def gfx_name(version: int) -> str:
    """`gfx_target_version` as the compilers write it: 110501 is gfx1151, 90010 is gfx90a.

    Major decimal, minor and stepping hexadecimal.
    """
    major, minor, stepping = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{stepping:x}"


def _topology(root: Path) -> Iterator[dict[str, str]]:
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    if not nodes.is_dir():
        return
    for node in sorted(nodes.iterdir(), key=lambda path: (len(path.name), path.name)):
        text = (node / "properties").read_text()
        yield dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)


def _computing(root: Path, folder: Path, device: PciDevice | None, family: str, minor: int) -> Gpu:
    render_node = f"/dev/dri/renderD{minor}"
    return Gpu(
        vendor="amd",
        name=_text(folder / "product_name")
        or (pci_name(root, device) if device else "")
        or f"AMD GPU {family}",
        family=family,
        # Only a board of its own has a serial number and a part number.
        integrated=not (folder / "board_info").is_file(),
        vram_bytes=number(folder / "mem_info_vram_total"),
        shared_bytes=number(folder / "mem_info_gtt_total"),
        render_node=render_node,
        driver_version=_text(root / "sys/module/amdgpu/version"),
        problem=_problem(root, render_node),
    )


def _not_computing(root: Path, device: PciDevice) -> Gpu:
    if not device.driver:
        problem = "No driver is bound to it; load amdgpu."
    elif device.driver != "amdgpu":
        problem = f"The driver {device.driver} is bound to it, not amdgpu."
    else:
        problem = "The driver amdgpu offers no compute on it."
    name = pci_name(root, device) or f"AMD GPU {device.device:04x}"
    return Gpu(vendor="amd", name=name, family="", integrated=False, problem=problem)


def _problem(root: Path, render_node: str) -> str:
    for node in ("/dev/kfd", render_node):
        path = root / node.lstrip("/")
        if not path.exists():
            return f"{node} is missing; a container must be given it."
        if not os.access(path, os.R_OK | os.W_OK):
            return f"{node} may not be opened by this user; join its group (render or video)."
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
