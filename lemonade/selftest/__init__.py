"""Floor 5: tries, on the user's own machine, whether this Lemonade does what it promises.

It starts a server of its own in a directory of its own, and touches nothing else.
"""

from lemonade.selftest.chaos import ChaosReport, run_chaos
from lemonade.selftest.check import Step, run_check
from lemonade.selftest.draw import EngineKind, Fault, Moment
from lemonade.selftest.round import RoundReport

__all__ = [
    "ChaosReport", "EngineKind", "Fault", "Moment", "RoundReport", "Step", "run_chaos",
    "run_check",
]  # fmt: skip
