"""Floor 2: what the machine is and how busy it is. Facts only; plans are made above."""

from lemonade.hardware.detect import detect
from lemonade.hardware.device_memory import device_memory
from lemonade.hardware.facts import Cpu, Evidence, Gpu, Machine, Npu, Problem, RocmRoot
from lemonade.hardware.instruments import Instruments, real_instruments
from lemonade.hardware.usage import SystemUsage, usage

# fmt: off
__all__ = [
    "Cpu", "Evidence", "Gpu", "Instruments", "Machine", "Npu", "Problem", "RocmRoot",
    "SystemUsage", "detect", "device_memory",
    "real_instruments", "usage",
]
