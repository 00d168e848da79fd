"""What the server itself logs: to where, in which form, and one line for each request."""

from __future__ import annotations

import logging

from lemonade.core.events import RequestFinished
from lemonade.gateway.garbage import SERVER_LOGGER, in_one_line
from lemonade.relay import REQUEST_ID

log = logging.getLogger(__name__)


def set_up_logging(level: str, form: logging.Formatter | None = None) -> None:
    """Log to the standard error output, this and everything graver, in that form."""
    names = {"trace": logging.DEBUG, "fatal": logging.CRITICAL, "none": logging.CRITICAL + 1}
    handler = logging.StreamHandler()
    words = "%(asctime)s %(levelname)-7s %(request_id)s %(name)s: %(message)s"
    handler.setFormatter(form or logging.Formatter(words))
    handler.addFilter(_add_request_id)
    logging.getLogger(SERVER_LOGGER).addFilter(in_one_line)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("lemonade").setLevel(
        names.get(level) or logging.getLevelNamesMapping()[level.upper()]
    )


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = REQUEST_ID.get()
    return True


def log_request(event: RequestFinished) -> None:
    """One line for each request; nothing of what was asked or answered is in it."""
    if not log.isEnabledFor(logging.INFO):
        return
    usage = event.usage
    log.info(
        "%s %s: %d in %.3f s%s%s%s",
        event.model,
        event.operation,
        event.status,
        event.duration,
        "" if event.complete else ", cut off",
        "" if usage.output_tokens is None else f", {usage.output_tokens} tokens",
        "" if not usage.tokens_per_second else f", {usage.tokens_per_second:.1f} tokens/s",
    )
