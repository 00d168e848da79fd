"""Pieces of `/proc`, `/sys` and `/dev` of machines that are not here."""

from __future__ import annotations

from pathlib import Path

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


def write(root: Path, path: str, text: str = "") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def base(root: Path, cpuinfo: str = "") -> Path:
    """A machine with eight threads on four cores and nothing else."""
    processors = "\n".join(X86.format(number=n, core=n // 2) for n in range(8))
    write(root, "proc/cpuinfo", cpuinfo or processors)
    write(root, "proc/meminfo", MEMINFO)
    write(root, "proc/sys/kernel/osrelease", "6.14.0-test\n")
    write(root, "proc/self/cgroup", "0::/\n")
    write(root, "etc/os-release", 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12"\n')
    return root


def arm(root: Path) -> Path:
    return base(root, "\n".join(ARM.format(number=n) for n in range(2)))


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
    root: Path, minor: int, version: int, *, discrete: bool = False, nodes: bool = True
) -> Path:
    """A GPU with compute driver; returns its folder on the bus."""
    address = f"0000:{minor:02x}:00.0"
    folder = pci(root, address, "amdgpu", vendor="0x1002", device="0x1586", kind="0x030000")
    write(folder, "mem_info_vram_total", "536870912\n")
    write(folder, "mem_info_gtt_total", "68719476736\n")
    if discrete:
        write(folder, "board_info", "type : oam\n")
    render = root / f"sys/class/drm/renderD{minor}"
    render.mkdir(parents=True)
    (render / "device").symlink_to(folder)
    topology = "sys/class/kfd/kfd/topology/nodes"
    write(root, f"{topology}/0/properties", "cpu_cores_count 16\ngfx_target_version 0\n")
    write(
        root,
        f"{topology}/{minor - 127}/properties",
        f"simd_count 80\ngfx_target_version {version}\ndrm_render_minor {minor}\n",
    )
    if nodes:
        write(root, "dev/kfd")
        write(root, f"dev/dri/renderD{minor}")
    return folder


def npu(root: Path, driver: str = "amdxdna", *, device_node: bool = True) -> Path:
    folder = pci(root, "0000:c5:00.1", driver, vendor="0x1022", device="0x17f0", kind="0x118000")
    if driver == "amdxdna":
        (folder / "accel" / "accel0").mkdir(parents=True)
        write(folder, "vbnv", "RyzenAI-npu5\n")
        if device_node:
            write(root, "dev/accel/accel0")
    return folder
