"""Reads protobuf's text format (config.pbtxt) with Python's standard library alone.

In: text in any spelling that protobuf accepts. Out: fields by name, each with the list of its
values in their order: dicts of fields, or unchanged text (without the quotation marks of a string).
NVIDIA's image, in which only the launcher runs, has neither protobuf nor Triton's message. All
other programs read these files with both, by `contracts/model_config.py`.
https://protobuf.dev/reference/protobuf/textformat-spec/
"""

import re
from collections.abc import Iterator
from typing import Union

Value = Union[str, "Fields"]
Fields = dict[str, list[Value]]

TOKEN = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>-?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?))
    |(?P<word>-?[A-Za-z_]\w*)
    |(?P<mark>[{}<>\[\]:;,])""",
    re.VERBOSE,
)
CLOSED_BY = {"{": "}", "<": ">"}


class TextFormatError(ValueError):
    """The text is not in protobuf's text format; the message says where."""


def parse(text: str) -> Fields:
    """The fields of a message. Raises TextFormatError."""
    reader = _Reader(text)
    return reader.message(end="")


def integer(value: Value) -> int:
    """The whole number that a value states, decimal, hexadecimal or octal. Raises ValueError."""
    text = str(value)
    return int(text, 8 if re.fullmatch(r"-?0[0-7]+", text) else 0)


def fields(value: Value) -> Fields:
    """The fields of a value that is a message. Raises TextFormatError."""
    if isinstance(value, str):
        raise TextFormatError(f"expected a message, found {value!r}")
    return value


class _Reader:
    """Reads tokens, and holds the next one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._scan()
        self._line = 1
        self._kind, self._token = next(self._tokens)

    def _scan(self) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(self._text):
            found = TOKEN.match(self._text, at)
            if found is None:
                raise self._error(f"found {self._text[at]!r}")
            self._line = self._text.count("\n", 0, at) + 1
            at = found.end()
            if found.lastgroup != "blank":
                yield str(found.lastgroup), found[0]
        yield "end", ""

    def _error(self, what: str) -> TextFormatError:
        return TextFormatError(f"line {self._line}: {what}")

    def _next(self) -> str:
        token = self._token
        self._kind, self._token = next(self._tokens)
        return token

    def _at(self, *marks: str) -> bool:
        return self._kind == "mark" and self._token in marks

    def _skip(self, *marks: str) -> bool:
        found = self._at(*marks)
        if found:
            self._next()
        return found

    def message(self, end: str) -> Fields:
        """Fields up to a mark, or to the end of the text."""
        fields: Fields = {}
        while self._token != end or (end == "") != (self._kind == "end"):
            if self._kind != "word":
                raise self._error(f"expected the name of a field, found {self._token!r}")
            name = self._next()
            self._skip(":")
            fields.setdefault(name, []).extend(self._values())
            self._skip(",", ";")
        if end:
            self._next()
        return fields

    def _values(self) -> list[Value]:
        if not self._skip("["):
            return [self._value()]
        values: list[Value] = []
        while not self._skip("]"):
            values.append(self._value())
            if not self._skip(",") and not self._at("]"):
                raise self._error(f"expected , or ] in a list, found {self._token!r}")
        return values

    def _value(self) -> Value:
        if self._at(*CLOSED_BY):
            return self.message(CLOSED_BY[self._next()])
        if self._kind == "string":
            text = ""
            while self._kind == "string":  # adjacent strings are one string
                text += self._next()[1:-1]
            return text
        if self._kind in {"number", "word"}:
            return self._next()
        raise self._error(f"expected a value, found {self._token!r}")
