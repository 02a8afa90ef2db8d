"""server/observability/logs.py: records as JSON and as text."""

import json
import logging
import sys

from server.observability import logs


def record(message: str, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("server.x", logging.WARNING, "x.py", 1, message, None, None)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def failed() -> logging.LogRecord:
    try:
        int("wrong")
    except ValueError:
        reason = sys.exc_info()
    return record("it failed", exc_info=reason)


def test_json_is_one_line_whatever_is_said() -> None:
    formatter = logs.JsonFormatter()
    token = logs.request_id.set("abc")
    try:
        line = formatter.format(record("a\nb\x1b[31m “c”", fields={"status": 200}))
    finally:
        logs.request_id.reset(token)
    assert "\n" not in line
    said = json.loads(line)
    assert said["message"] == "a\nb\x1b[31m “c”"
    assert (said["level"], said["logger"]) == ("warning", "server.x")
    assert (said["request_id"], said["status"]) == ("abc", 200)
    trace = formatter.format(failed())
    assert "\n" not in trace
    assert "ValueError: invalid literal" in json.loads(trace)["exception"]
    assert "request_id" not in json.loads(trace)


def test_text_cannot_be_forged() -> None:
    formatter = logs.TextFormatter()
    line = formatter.format(record("a\n12:00:00 INFO b\x1b[31m", fields={"milliseconds": 1.5}))
    assert line.endswith(r"WARNING server.x: a\n12:00:00 INFO b\x1b[31m milliseconds=1.5")
    assert "\n" not in line
    assert "ValueError: invalid literal" in formatter.format(failed())
