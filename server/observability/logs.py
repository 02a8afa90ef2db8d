"""The log, as JSON lines for machines or as text for people.

In: records of Python's `logging`. Out: lines on standard error, each with the id of the request
that it is about, if there is one. A record may carry a dict `fields`: it becomes members of the
JSON object, and `name=value` in text.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

Format = Literal["auto", "json", "text"]

# Set for the task that answers a request, and so for every task that it starts.
request_id: ContextVar[str] = ContextVar("request_id", default="")
# Below 32 are control characters: with a line break a client could forge lines of the log.
VISIBLE = {number: f"\\x{number:02x}" for number in (*range(32), 127) if chr(number) not in "\n\t"}


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time (RFC 3339, UTC), level, logger, message, …"""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        line: dict[str, object] = {
            "time": _when(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if request := request_id.get():
            line["request_id"] = request
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """A line to read: time, level, logger, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        message = record.getMessage().replace("\n", "\\n").translate(VISIBLE)
        fields = dict(getattr(record, "fields", {}))
        for known in ("method", "path", "status"):  # the message of an access line has them
            fields.pop(known, None)
        if request := request_id.get():
            fields.setdefault("request_id", request)
        parts = [
            _when(record).astimezone().strftime("%H:%M:%S"),
            record.levelname,
            f"{record.name}:",
            message,
            *(f"{name}={value}" for name, value in fields.items()),
        ]
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def set_up(level: str, form: Format) -> None:
    """Send every record of at least `level` to standard error; `auto` is text on a terminal."""
    handler = logging.StreamHandler()
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _when(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
