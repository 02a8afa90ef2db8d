"""Where each HTTP/1.1 request of a connection begins and ends, found by httptools' parser.

In: the bytes of a client as they arrive. Out: pieces of bytes that each belong to one request, its
head whole in the first of them, for a server that speaks plain HTTP/1.1. Such a head has no wish
for another protocol (RFC 9110, 7.8), and in HTTP/1.0 it has nothing that this version does not
know.
"""

import re
from urllib.parse import quote

import httptools

from server.problems import (
    HeadTooLarge,
    MalformedRequest,
    Problem,
    UnsupportedTransferCoding,
    UnsupportedVersion,
)

# Browsers send a few kilobytes; gateways commonly accept 8 to 64.
MAX_HEAD_BYTES = 64 * 2**10
# Lines between chunks and trailers may have MAX_HEAD_BYTES and an eighth of the body's bytes: each
# line costs as much as a small head.
BYTES_PER_LINE_BYTE = 8
HEAD_END = b"\r\n\r\n"
HTTP2 = b"PRI * HTTP/2.0\r\n"  # how HTTP/2 begins (RFC 9113, 3.4)
TLS = b"\x16\x03"  # how TLS begins (RFC 8446, 5.1)
# Headers of a wish for another protocol (RFC 7540, 3.2, and RFC 6455, 4.1).
UPGRADING = {b"upgrade", b"http2-settings"}
KEPT_TOKENS = {b"close", b"keep-alive"}  # of `Connection`
# Host is a name or an address, and a port (RFC 3986, 3.2.2); empty where the target has none.
HOST = re.compile(rb"(\[[0-9A-Za-z:.%~_-]*\]|[\w.~!$&'()*+,;=%-]*)(:\d*)?")


class Framing:
    """The requests of one connection, one after the other.

    `whole` tells that the latest request has come to its end, or that none has begun; `in_head`
    that one has begun whose head has not ended. Of the latest head that has ended, `old` is whether
    it is of HTTP/1.0, `keep_alive` whether the client wants to go on after the answer, `length` how
    many bytes its body has, None if that is not known before, and `asks` whether the client asked
    if it should send them (`Expect`).
    """

    def __init__(self) -> None:
        self.whole = True
        self.in_head = False
        self.old = False
        self.keep_alive = True
        self.length: int | None = 0
        self.asks = False
        self._head = bytearray()  # of a head that has not ended
        self._left = 0  # bytes to come of a body or chunk whose length is known
        self._line = bytearray()  # a line between chunks that has not ended
        self._line_bytes = 0
        self._body_bytes = 0
        self._in_trailers = False
        self._new_parser()

    @property
    def head_bytes(self) -> int:
        """How much is held of a head that has not ended."""
        return len(self._head)

    def take(self, data: bytes, at: int) -> tuple[bytes, int]:
        """The part of `data` from `at` on that belongs to the request, and where the rest begins.

        The part is empty until a head has ended; then the whole head comes at once. Raises
        `MalformedRequest`, `HeadTooLarge`, `UnsupportedVersion` or `UnsupportedTransferCoding`.
        """
        if self.whole:
            self.whole, self.in_head = False, True
        if not self.in_head:
            stop = self._take_body(data, at)
            return data[at:stop], stop
        end = self._take_head(data, at)
        if self.in_head:
            return b"", end
        head = bytes(self._head)
        self._head.clear()
        begun = len(head) > end - at
        rewritten = self._ready(head)
        stop = self._take_body(data, end)
        if begun or rewritten is not head:
            return rewritten + data[end:stop], stop
        return data[at:stop], stop

    def close(self) -> None:
        """Release the parser, which holds this object."""
        del self._parser

    def _new_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        # Without it the second request after `Connection: close` would be an error, not ignored.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self._head_ended = False
        self._ended = False

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._url = b""
        self.fields = []
        self._head_ended = self._ended = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_ended:  # else a trailer (RFC 9112, 7.1.2), which may be thrown away
            self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._head_ended = True

    def on_message_complete(self) -> None:
        self._ended = True

    def _parse(self, data: bytes | memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the head is read once more, without the wish
        except httptools.HttpParserCallbackError:
            raise  # a fault of this class, not of the client
        except httptools.HttpParserError as error:
            raise self._no_request(error) from None

    def _no_request(self, why: object) -> Problem:
        if self._head.startswith(HTTP2):
            return UnsupportedVersion("HTTP/2 is not spoken here, use HTTP/1.1")
        if self._head.startswith(TLS):
            return MalformedRequest("this is TLS, expected is plain HTTP/1.1")
        what = "a chunked body" if self._head_ended else "a request of HTTP/1.1"
        return MalformedRequest(f"this is not {what}: {why}")

    def _take_head(self, data: bytes, at: int) -> int:
        """Read on in the head from `at`; where `data` or the head ends."""
        seen = len(self._head)
        limit = at + MAX_HEAD_BYTES - seen
        before = bytes(self._head[1 - len(HEAD_END) :])
        if before:
            found = (before + data[at:limit]).find(HEAD_END)
            end = -1 if found < 0 else at + found - len(before) + len(HEAD_END)
        else:
            found = data.find(HEAD_END, at, limit)
            end = found + len(HEAD_END)
        if found < 0:
            end = len(data)
        if end > limit:
            raise HeadTooLarge(f"the head has more than the {MAX_HEAD_BYTES} bytes accepted")
        part = data[at:end]
        self._head += part
        self._parse(part)
        # A parser that takes a bare line feed for a line's end would see the end elsewhere.
        if self._head_ended != (found >= 0):
            raise self._no_request("lines end with CR LF")
        self.in_head = found < 0
        return end

    def _ready(self, head: bytes) -> bytes:
        """Check a whole head and get ready for its body; returns the head that the server gets."""
        version = self._parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise UnsupportedVersion(f"the request is of HTTP/{version}, expected is HTTP/1.1")
        if self._parser.get_method() == b"CONNECT":
            raise MalformedRequest("CONNECT is not served here, this is no proxy")
        self._check_target()
        self.old = version == "1.0"
        self.keep_alive = self._parser.should_keep_alive()
        self._left = self._line_bytes = self._body_bytes = 0
        self._in_trailers = False
        self.asks = upgrading = False
        hosts = 0
        codings = b""
        for name, value in self.fields:
            if name == b"host":
                hosts += 1
                if not HOST.fullmatch(value.strip()):
                    raise MalformedRequest(f"Host is {value[:60]!r}, expected a host and a port")
            elif name == b"content-length":
                self._left = int(value.strip().lstrip(b"0") or b"0")
            elif name == b"transfer-encoding":
                codings += b"," + value
            elif name == b"upgrade":
                upgrading = True
            elif name == b"expect":
                self.asks = not self.old  # HTTP/1.0 knows no 100 (RFC 9110, 10.1.1)
        if hosts != 1 and not (self.old and not hosts):
            raise MalformedRequest(f"the request has {hosts} headers Host, one is expected")
        self._check_codings(codings)
        if not (upgrading or self.old):
            self.whole = self._ended
            return head
        rewritten = self._without_wishes(head)
        if upgrading:
            self._new_parser()
            self._parse(rewritten)
        self.whole = self._ended
        return rewritten

    def _check_target(self) -> None:
        if self._url.startswith(b"/"):
            return
        try:
            path = httptools.parse_url(self._url).path
        except httptools.HttpParserError:
            path = None
        if path is None:
            raise MalformedRequest(
                f"the target of the request is {quote(self._url[:60])!r}, which has no path"
            )

    def _check_codings(self, codings: bytes) -> None:
        self.length = None if codings else self._left
        if not codings:
            return
        if self.old:
            raise MalformedRequest("HTTP/1.0 has no Transfer-Encoding (RFC 9112, 6.1)")
        names = [name.strip().lower() for name in codings[1:].split(b",")]
        if names != [b"chunked"]:
            given = b", ".join(names)[:60].decode("latin-1")
            raise UnsupportedTransferCoding(
                f"Transfer-Encoding is {given!r}, chunked alone is understood"
            )

    def _without_wishes(self, head: bytes) -> bytes:
        first, *lines = head.removesuffix(HEAD_END).split(b"\r\n")
        if self.old and self.keep_alive:
            first = first.removesuffix(b"1.0") + b"1.1"
        kept = [first]
        for line in lines:
            name, _, value = line.partition(b":")
            match name.lower():
                case b"connection":
                    tokens = (token.strip().lower() for token in value.split(b","))
                    kept += [b"connection: " + token for token in tokens if token in KEPT_TOKENS]
                case b"expect" if self.old:
                    pass
                case lower if lower not in UPGRADING:
                    kept.append(line)
        return b"\r\n".join(kept) + HEAD_END

    def _take_body(self, data: bytes, at: int) -> int:
        """Read on in the body from `at`; where `data` or the body ends."""
        view = memoryview(data)
        while at < len(data) and not self.whole:
            if self._left:
                stop = min(len(data), at + self._left)
                self._left -= stop - at
                self._body_bytes += stop - at
                self._parse(view[at:stop])
            else:
                stop = self._take_line(data, at)
            at = stop
            self.whole = self._ended
        return at

    def _take_line(self, data: bytes, at: int) -> int:
        """Read on in the size of a chunk or a trailer; the parser knows which, and what is one."""
        found = data.find(b"\n", at)
        stop = found + 1 or len(data)
        self._line += data[at:stop]
        self._line_bytes += stop - at
        if self._line_bytes > MAX_HEAD_BYTES + self._body_bytes // BYTES_PER_LINE_BYTE:
            raise HeadTooLarge(
                "the lines between chunks, or the trailers, are too long for so little of a body"
            )
        self._parse(data[at:stop])
        if found >= 0:
            size = re.match(rb"[0-9a-fA-F]+(?=[;\r])", self._line)
            # Behind the last chunk, of no bytes, come trailers until the parser sees the end.
            if size is not None and not self._in_trailers and (length := int(size[0], 16)):
                self._left = length + 2
            else:
                self._in_trailers = True
            self._line.clear()
        return stop
