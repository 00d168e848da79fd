"""What clients send, in the log: one line each, whatever characters it holds.

What reaches the port and cannot be read is such a line too, instead of a traceback.
"""

from __future__ import annotations

import logging
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

SERVER_LOGGER: Final = "aiohttp.server"

_LONGEST: Final = 200


def printable(text: str) -> str:
    """What a client wrote, fit for a line of the log: it begins no line, and colours nothing."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def in_one_line(record: logging.LogRecord) -> bool:
    """A filter for the web server's own log; everything passes, the clients' mistakes in short."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError | web.RequestPayloadError):
        record.msg = "A client sent what cannot be read: %s"
        record.args = (printable(" ".join(str(error).split())[:_LONGEST]),)
        record.exc_info = None
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
    return True
