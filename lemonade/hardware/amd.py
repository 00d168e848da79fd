"""AMD GPUs, as the kernel's compute driver (KFD) and its display driver (DRM) describe them.

KFD lists what can compute, with the version of the instruction set; sizes of memory are in the
DRM device of the same number. What is on the bus and not in KFD's list is named with its reason.
Source: the kernel's `drivers/gpu/drm/amd/amdkfd/kfd_topology.c`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass
from lemonade.hardware.access import MayOpen, access_problem
from lemonade.hardware.facts import Evidence, Gpu, Problem
from lemonade.hardware.files import number, shown, text
from lemonade.hardware.instruments import Instruments
from lemonade.hardware.pci import PciDevice, pci_devices, pci_name

AMD: Final = 0x1002
DRIVER: Final = "amdgpu"

_NODES: Final = "sys/class/kfd/kfd/topology/nodes"
_ADDRESS: Final = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


@dataclass(frozen=True, slots=True)
class _Node:
    """One node of the topology.

    Attributes:
        values: its properties; `None` if the kernel does not let us read them, as it does to
            containers that were not given the device.
    """

    file: Path
    values: dict[str, str] | None

    def number(self, key: str) -> int | None:
        """A property; `None` if the kernel does not write it."""
        word = (self.values or {}).get(key, "")
        return int(word) if word.lstrip("-").isdigit() else None


def find_amd_gpus(root: Path, instruments: Instruments) -> tuple[Gpu, ...]:
    """Every AMD GPU; one that cannot be used has its `problem`.

    Raises:
        OSError: the topology is there but cannot be listed.
    """
    display = {device.address: device for device in pci_devices(root, AMD) if device.is_display}
    nodes = list(_topology(root))
    gpus = []
    for node in nodes:
        if node.number("gfx_target_version") and (node.number("drm_render_minor") or 0) > 0:
            gpu = _computing(root, node, display, instruments.may_open)
            display.pop(gpu.pci_address, None)
            gpus.append(gpu)
    refused = next((node.file for node in nodes if node.values is None), None)
    gpus += [_not_computing(root, device, refused) for device in display.values()]
    return tuple(gpus)


def compute_addresses(root: Path) -> dict[str, str]:
    """Where the GPUs are on the bus that KFD names by numbers of its own."""
    found = {}
    for node in _topology(root):
        minor = node.number("drm_render_minor")
        address = _address(node, root / f"sys/class/drm/renderD{minor}/device")
        if (name := text(node.file.parent / "gpu_id")) not in ("", "0") and address:
            found[name] = address
    return found


def gfx_name(version: int) -> str:
    """`gfx_target_version` as the compilers write it: 110501 is gfx1151, 90010 is gfx90a.

    Major decimal, minor and stepping hexadecimal.
    """
    major, minor, stepping = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{stepping:x}"


def _topology(root: Path) -> Iterator[_Node]:
    nodes = root / _NODES
    if not nodes.is_dir():
        return
    for node in sorted(nodes.iterdir(), key=lambda path: (len(path.name), path.name)):
        file = node / "properties"
        try:
            lines = file.read_text().splitlines()
        except OSError:
            yield _Node(file, None)
        else:
            yield _Node(file, dict(line.split(maxsplit=1) for line in lines if " " in line))


def _computing(root: Path, node: _Node, display: dict[str, PciDevice], allowed: MayOpen) -> Gpu:
    version = node.number("gfx_target_version") or 0
    minor = node.number("drm_render_minor")
    family = gfx_name(version)
    folder = root / f"sys/class/drm/renderD{minor}/device"
    address = _address(node, folder)
    device = display.get(address)
    render_node = f"/dev/dri/renderD{minor}"
    uuid = node.number("unique_id")
    return Gpu(
        vendor="amd",
        name=text(folder / "product_name")
        or (pci_name(root, device) if device else "")
        or f"AMD GPU {family}",
        family=family,
        # Only a board of its own has a serial number and a part number.
        integrated=not (folder / "board_info").is_file(),
        vram_bytes=number(folder / "mem_info_vram_total"),
        shared_bytes=number(folder / "mem_info_gtt_total"),
        pci_address=address,
        render_node=render_node,
        uuid=f"GPU-{uuid:016x}" if uuid else "",
        driver_version=text(root / f"sys/module/{DRIVER}/version"),
        cwsr_bytes=node.number("cwsr_size"),
        ctl_stack_bytes=node.number("ctl_stack_size"),
        seen=Evidence(shown(root, node.file), f"gfx_target_version {version}"),
        problem=access_problem(root, "/dev/kfd", allowed, DRIVER)
        or access_problem(root, render_node, allowed, DRIVER),
    )


def _address(node: _Node, folder: Path) -> str:
    """From the display driver's link, else out of KFD's own number for it."""
    name = folder.resolve().name
    if _ADDRESS.fullmatch(name):
        return name
    place, domain = node.number("location_id"), node.number("domain") or 0
    if place is None:
        return ""
    return f"{domain:04x}:{place >> 8 & 0xFF:02x}:{place >> 3 & 31:02x}.{place & 7}"


def _not_computing(root: Path, device: PciDevice, refused: Path | None) -> Gpu:
    return Gpu(
        vendor="amd",
        name=text(device.path / "product_name")
        or pci_name(root, device)
        or f"AMD GPU {device.device:04x}",
        family="",
        # Only its driver would know; without one a board of its own is likelier.
        integrated=device.driver == DRIVER and not (device.path / "board_info").is_file(),
        vram_bytes=number(device.path / "mem_info_vram_total"),
        shared_bytes=number(device.path / "mem_info_gtt_total"),
        pci_address=device.address,
        seen=Evidence(shown(root, device.path / "device"), f"{device.device:#06x}"),
        problem=_why_not_computing(root, device, refused),
    )


def _why_not_computing(root: Path, device: PciDevice, refused: Path | None) -> Problem:
    link = shown(root, device.path / "driver")
    if not device.driver:
        return Problem(
            "driver-missing",
            "No driver is bound to it.",
            Evidence(link, "No such file or directory"),
            f"`sudo modprobe {DRIVER}`; if that does not help, `sudo dmesg` says why: this "
            "kernel or its firmware may be older than the device.",
        )
    if device.driver != DRIVER:
        return Problem(
            "driver-other",
            f"The driver {device.driver} is bound to it, not {DRIVER}.",
            Evidence(link, device.driver),
            f"Give it back to {DRIVER}: remove what binds {device.driver} at start "
            "(kernel arguments, /etc/modprobe.d), and restart.",
        )
    if refused is not None:
        return Problem(
            "device-missing",
            "The kernel does not let this container see what it computes with.",
            Evidence(shown(root, refused), "it may not be read"),
            "Start the container with `--device /dev/kfd --device /dev/dri`.",
        )
    return Problem(
        "no-compute",
        f"The driver {DRIVER} offers no compute on it.",
        Evidence(f"/{_NODES}", f"no node for {device.address}"),
        "The kernel needs CONFIG_HSA_AMD, and the device must be one that its compute driver "
        "knows; `sudo dmesg | grep kfd` says more.",
    )
