"""Pieces of `/proc`, `/sys` and `/dev` of machines that are not here, and whole ones made of them.

Values are those that real machines showed; what was not seen is left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lemonade.hardware import Instruments

X86 = """processor\t: {number}
vendor_id\t: AuthenticAMD
model name\t: AMD Ryzen AI MAX+ 395
physical id\t: 0
core id\t\t: {core}
flags\t\t: fpu lm avx2 f16c fma
"""
ARM = """processor\t: {number}
BogoMIPS\t: 50.00
Features\t: fp asimd aes
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0c
"""
MEMINFO = "MemTotal: 1000000 kB\nMemFree: 100000 kB\nMemAvailable: 600000 kB\nHugePages_Total: 0\n"
MEMORY = 1_024_000_000
GIB = 1 << 30

NODES = "sys/class/kfd/kfd/topology/nodes"
CPU_NODE = "cpu_cores_count 16\nsimd_count 0\ngfx_target_version 0\ndrm_render_minor 0\n"
DISPLAY = "0x030000"

FENCED = Instruments(may_open=lambda _: False)
"""A user who may open no device."""


# ---- pieces


def write(root: Path, path: str, text: str = "") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def base(root: Path, cpuinfo: str = "", kernel: str = "6.14.0-test") -> Path:
    """A machine with eight threads on four cores and nothing else."""
    processors = "\n".join(X86.format(number=n, core=n // 2) for n in range(8))
    write(root, "proc/cpuinfo", cpuinfo or processors)
    write(root, "proc/meminfo", MEMINFO)
    write(root, "proc/sys/kernel/osrelease", f"{kernel}\n")
    write(root, "proc/self/cgroup", "0::/\n")
    write(root, "etc/os-release", 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12"\n')
    return root


def device_node(root: Path, path: str) -> Path:
    """A device of the group render, as udev makes it; the group's number is any we may give."""
    node = write(root, path)
    if os.geteuid() == 0:
        os.chown(node, -1, 992)
    node.chmod(0o660)
    write(root, "etc/group", f"root:x:0:\nrender:x:{node.stat().st_gid}:somebody\n")
    return node


def pci(root: Path, address: str, driver: str = "", **numbers: str) -> Path:
    """A device on the bus; `kind` is its class."""
    folder = root / "sys/bus/pci/devices" / address
    for name, value in {"revision": "0x00", **numbers}.items():
        write(folder, {"kind": "class"}.get(name, name), value + "\n")
    if driver:
        target = root / "sys/bus/pci/drivers" / driver
        target.mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(target)
    return folder


def amd_gpu(
    root: Path,
    minor: int,
    version: int,
    *,
    address: str = "",
    device: str = "0x1586",
    vram: int = 512 << 20,
    gtt: int = 64 << 30,
    discrete: bool = False,
    nodes: bool = True,
    properties: str = "",
) -> Path:
    """A GPU with compute driver; returns its folder on the bus."""
    address = address or f"0000:{minor:02x}:00.0"
    folder = pci(root, address, "amdgpu", vendor="0x1002", device=device, kind=DISPLAY)
    write(folder, "mem_info_vram_total", f"{vram}\n")
    write(folder, "mem_info_gtt_total", f"{gtt}\n")
    if discrete:
        write(folder, "board_info", "type : oam\n")
    render = root / f"sys/class/drm/renderD{minor}"
    render.mkdir(parents=True)
    (render / "device").symlink_to(folder)
    write(root, f"{NODES}/0/properties", CPU_NODE)
    lines = f"gfx_target_version {version}\ndrm_render_minor {minor}\n{properties}"
    write(root, f"{NODES}/{minor - 127}/properties", lines)
    if nodes:
        device_node(root, "dev/kfd")
        device_node(root, f"dev/dri/renderD{minor}")
    return folder


def npu(root: Path, driver: str = "amdxdna", *, device_made: bool = True) -> Path:
    folder = pci(
        root,
        "0000:c5:00.1",
        driver,
        vendor="0x1022",
        device="0x17f0",
        kind="0x118000",
        revision="0x11",
    )
    if driver == "amdxdna":
        (folder / "accel" / "accel0").mkdir(parents=True)
        write(folder, "vbnv", "RyzenAI-npu5\n")
        write(folder, "fw_version", "1.1.2.65\n")
        if device_made:
            device_node(root, "dev/accel/accel0")
    return folder


def nvidia_gpu(
    root: Path, address: str, model: str, device: str, *, driver: str = "nvidia"
) -> Path:
    folder = pci(root, address, driver, vendor="0x10de", device=device, kind=DISPLAY)
    if driver == "nvidia":
        write(
            root,
            f"proc/driver/nvidia/gpus/{address}/information",
            f"Model: \t\t {model}\nIRQ:   \t\t 120\nBus Type: \t PCIe\n",
        )
        write(
            root,
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n",
        )
        write(root, "dev/nvidiactl")
    return folder


# ---- machines


def plain(root: Path) -> Path:
    """A processor and nothing else."""
    return base(root)


def arm(root: Path) -> Path:
    return base(root, "\n".join(ARM.format(number=n) for n in range(2)))


def strix_halo(root: Path, *, fixed: bool = True, dkms: str = "") -> Path:
    """Radeon 8060S with half of 128 GB carved out; `fixed`: the kernel says what CWSR needs."""
    base(root, kernel="6.18.4" if fixed else "6.17.0-5-generic")
    sizes = "cwsr_size 19185664\nctl_stack_size 16384\n" if fixed else ""
    amd_gpu(
        root,
        128,
        110501,
        address="0000:c3:00.0",
        vram=64 * GIB,
        gtt=33_500_000_000,
        properties=f"simd_count 80\nsimd_per_cu 2\nlocation_id 49920\ndomain 0\n{sizes}",
    )
    if dkms:
        write(root, "sys/module/amdgpu/version", f"{dkms}\n")
    return root


def strix_halo_unfixed(root: Path) -> Path:
    return strix_halo(root, fixed=False)


def strix_halo_dkms(root: Path) -> Path:
    """A good kernel whose driver is replaced by an older one."""
    strix_halo(root, fixed=False, dkms="6.16.13")
    write(root, "proc/sys/kernel/osrelease", "6.18.4\n")
    return root


def strix_point(root: Path) -> Path:
    amd_gpu(base(root), 128, 110500, device="0x150e", gtt=16 * GIB)
    return root


def rdna3(root: Path) -> Path:
    """RX 7900 XTX."""
    amd_gpu(
        base(root),
        128,
        110000,
        address="0000:03:00.0",
        device="0x744c",
        vram=25_753_026_560,
        discrete=True,
        properties="location_id 768\n",
    )
    return root


def rdna4(root: Path, minor: int = 128) -> Path:
    """Radeon AI PRO R9700."""
    amd_gpu(
        base(root),
        minor,
        120001,
        address="0000:05:00.0",
        device="0x7551",
        vram=34_208_743_424,
        discrete=True,
        properties="simd_count 128\nlocation_id 1280\ncwsr_size 30699520\nctl_stack_size 28672\n",
    )
    return root


def apu_and_card(root: Path) -> Path:
    """A Strix Halo whose kernel lacks the fix, and a card of its own, which comes second."""
    strix_halo(root, fixed=False)
    return rdna4(root, 129)


def desktop(root: Path) -> Path:
    """The processor's own small GPU beside a card."""
    rdna3(root)
    amd_gpu(root, 129, 100306, device="0x164e", address="0000:13:00.0")
    return root


def instinct(root: Path) -> Path:
    """MI300X."""
    amd_gpu(
        base(root),
        128,
        90402,
        address="0000:75:00.0",
        device="0x74a1",
        vram=206_142_726_144,
        discrete=True,
        properties="simd_count 1216\nsimd_per_cu 4\nunique_id 5752170827923136638\n",
    )
    return root


def npu_ready(root: Path) -> Path:
    npu(base(root))
    return root


def npu_without_driver(root: Path) -> Path:
    npu(base(root), "")
    return root


def npu_in_container(root: Path) -> Path:
    npu(base(root), device_made=False)
    return root


NVIDIA_SMI = """\
0, GPU-6d3e7c35-5f1b-4f6b-9a68-0d6f1c0e9d11, NVIDIA GeForce RTX 3090, 8.6, 570.86.15, 24576, 00000000:01:00.0
1, GPU-0b0a3a52-7a86-4f0d-8f0f-4b2f6f5a3c22, NVIDIA GeForce RTX 5090, 12.0, 570.86.15, 32607, 00000000:02:00.0
"""  # noqa: E501 - the lines as the program prints them


def nvidia_mixed(root: Path) -> Path:
    """Two cards of two architectures."""
    nvidia_gpu(base(root), "0000:01:00.0", "NVIDIA GeForce RTX 3090", "0x2204")
    nvidia_gpu(root, "0000:02:00.0", "NVIDIA GeForce RTX 5090", "0x2b85")
    return root


def container(root: Path) -> Path:
    """A container on a Strix Halo that was given no devices: sysfs is the host's, /dev is not."""
    strix_halo(root)
    npu(root, device_made=False)
    for node in ("dev/kfd", "dev/dri/renderD128"):
        (root / node).unlink()
    return root


Tree = Callable[[Path], Path]


def printing(text: str | None) -> tuple[Instruments, list[tuple[str, ...]]]:
    """Instruments whose every program prints that, and the commands they were asked for."""
    asked: list[tuple[str, ...]] = []

    def run(argv: object, within: float) -> str | None:
        assert within > 0
        asked.append(tuple(argv))  # type: ignore[call-overload]
        return text

    return Instruments(run=run), asked
