"""The server's own log as records: one JSON object a line, for collectors."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

_CHILD: Final = "lemonade.child."


class JsonLines(logging.Formatter):
    """Formats a record as one line, whatever is in it.

    `time`, `level`, `logger`, `pid`, `message`; `request_id` where a request is handled, `model`
    for what an engine printed, `exception` with its traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        when = datetime.fromtimestamp(record.created, UTC)
        shown: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        request_id = getattr(record, "request_id", "")
        if request_id and request_id != "-":
            shown["request_id"] = request_id
        if record.name.startswith(_CHILD):
            shown["model"] = record.name.removeprefix(_CHILD)
        if record.exc_info:
            shown["exception"] = self.formatException(record.exc_info)
        return json.dumps(shown)
