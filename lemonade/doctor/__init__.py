"""Floor 5: what is wrong on this machine, as findings with their fix. Looks and changes nothing.

Each check is a function that takes all it looks at, so recorded machines can be examined too.
"""

from lemonade.doctor.archive import write_archive
from lemonade.doctor.examination import CHECKS, examine
from lemonade.doctor.finding import Finding, Level, Report
from lemonade.doctor.surroundings import Surroundings, look_around

__all__ = [
    "CHECKS", "Finding", "Level", "Report", "Surroundings", "examine", "look_around",
    "write_archive",
]  # fmt: skip
