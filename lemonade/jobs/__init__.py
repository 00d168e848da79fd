"""Floor 1: deeds that take long. Who owns their tasks, and jobs that many may wait for."""

from lemonade.jobs.board import Jobs
from lemonade.jobs.job import Job, Kind, Status
from lemonade.jobs.outliving import outliving
from lemonade.jobs.owner import TaskOwner

__all__ = ["Job", "Jobs", "Kind", "Status", "TaskOwner", "outliving"]
