"""Whether kernel and driver do what the devices here need: CWSR, locked memory, the IOMMU.

Rules about one kind of GPU are `lemonade.planning`'s, so that this check and the refusal of a
backend never say different things.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lemonade.doctor.devices import described
from lemonade.doctor.finding import Finding, Notebook
from lemonade.hardware import Evidence, Machine
from lemonade.planning import lacking

_UNLIMITED: Final = -1
_IOMMU_OFF: Final = frozenset({"amd_iommu=off", "iommu=off"})


def check_kernel(machine: Machine, root: Path, memlock: int) -> tuple[Finding, ...]:
    """What kernel and driver lack for the devices that are here.

    Args:
        machine: its devices.
        root: where `/proc` is.
        memlock: bytes this process may lock in memory; -1 is no limit.
    """
    book = Notebook("kernel")
    for gpu in machine.gpus:
        for refused in lacking(gpu, machine):
            book.warn(refused.rule, refused.reason, *refused.evidence, fix=refused.fix)
    versions = {gpu.driver_version for gpu in machine.gpus if gpu.vendor == "amd"} - {""}
    for version in sorted(versions):
        book.note(
            "driver-from-outside",
            f"The driver amdgpu {version} does not come with the kernel but from a package "
            "(amdgpu-dkms), and may be older than the kernel's own.",
            Evidence("/sys/module/amdgpu/version", version),
        )
    if machine.npus:
        _look_after_npu(book, machine, root, memlock)
    version = f"{machine.os_version}, kernel {machine.kernel or 'unknown'}"
    book.ok_unless_trouble(f"{version}: nothing is known to be missing for what is here.")
    return book.findings


def _look_after_npu(book: Notebook, machine: Machine, root: Path, memlock: int) -> None:
    npu = described(machine.npus[0])
    if memlock != _UNLIMITED:
        book.warn(
            "memlock",
            f"{npu} needs its models locked in memory, and this user may lock only "
            f"{memlock // 1024} KiB.",
            Evidence("ulimit -l", str(memlock // 1024)),
            fix="Put `* - memlock unlimited` into /etc/security/limits.d/99-lemonade.conf and log "
            "in again; for a service, `LimitMEMLOCK=infinity`.",
        )
    try:
        words = (root / "proc/cmdline").read_text(errors="replace").split()
    except OSError:
        return
    for word in _IOMMU_OFF.intersection(words):
        book.warn(
            "iommu-off",
            f"{npu} works through the IOMMU, which was switched off at the start of the kernel.",
            Evidence("/proc/cmdline", word),
            fix=f"Take {word} out of the kernel's arguments (GRUB_CMDLINE_LINUX in "
            "/etc/default/grub, then `sudo update-grub`) and restart.",
        )
