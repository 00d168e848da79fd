"""Floor 2: what the machine is and how busy it is. Facts only; plans are made above."""

from lemonade.hardware.detect import detect
from lemonade.hardware.facts import Cpu, Gpu, Machine, Npu
from lemonade.hardware.usage import SystemUsage, usage

__all__ = ["Cpu", "Gpu", "Machine", "Npu", "SystemUsage", "detect", "usage"]
