"""Structured logs: one line an event, for people or as JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any, Literal

LogFormat = Literal["text", "json"]
LOGGER = logging.getLogger("tinyseg.serve")


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """An event and what belongs to it. Never a token, a cookie or a query."""
    LOGGER.log(level, event, extra={"fields": fields})


class _Formatter(logging.Formatter):
    def __init__(self, kind: LogFormat) -> None:
        super().__init__()
        self._kind = kind

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        if record.exc_info and record.exc_info[1] is not None:
            fields = {**fields, "error": repr(record.exc_info[1])}
        if self._kind == "json":
            row = {"time": time, "level": record.levelname.lower(), "event": record.getMessage(), **fields}
            return json.dumps(row, default=str)
        # Strangers' text is shown as Python shows it: no line break or escape sequence reaches a terminal.
        shown = " ".join(
            f"{key}={value!r}" if isinstance(value, str) else f"{key}={value}" for key, value in fields.items()
        )
        return f"{time[11:19]} {record.levelname.lower()} {record.getMessage()} {shown}".rstrip()


class _HungUp(logging.Filter):
    """Drops uvicorn's error about a response that was cut off: streams do so to a viewer that takes nothing, and log it themselves."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.getMessage() != "ASGI callable returned without completing response."


def start_logging(kind: LogFormat, level: str = "info") -> None:
    """Log to standard error; uvicorn's own warnings come the same way."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(kind))
    for name in ("tinyseg.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    if kind == "json":  # the library's warnings too: whoever parses the log parses every line
        logging.getLogger("tinyseg").handlers = [handler]
    LOGGER.setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    errors = logging.getLogger("uvicorn.error")
    if not any(isinstance(each, _HungUp) for each in errors.filters):
        errors.addFilter(_HungUp())
