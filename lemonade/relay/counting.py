"""What is said of a request when it is over."""

from __future__ import annotations

import time

from lemonade.core.events import RequestFinished
from lemonade.core.inference import Inference, Usage
from lemonade.telemetry import UsageTap


def finished(
    wanted: Inference,
    served_name: str,
    status: int,
    started: float,
    complete: bool,  # noqa: FBT001 - one of six facts of a finished request
    tap: UsageTap,
) -> RequestFinished:
    """The event of a request that ends now."""
    return RequestFinished(
        model=f"{served_name}:{wanted.adapter}" if wanted.adapter else served_name,
        operation=wanted.operation,
        status=status,
        stream=wanted.stream,
        duration=time.monotonic() - started,
        complete=complete,
        usage=tap.finish() if status == 200 else Usage(),
    )
