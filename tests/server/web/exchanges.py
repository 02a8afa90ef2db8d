"""Requests as bytes, as clients really send them or should not, and what has to come back.

In: nothing. Out: `EXCHANGES`, each with the answers that RFC 9112 (framing) or RFC 9110 (meaning)
asks for. A case stands for a kind, so most kinds have several.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.photos import photo

JPEG = photo(0, 320, 240)
OTHER = photo(1, 64, 48)
HOST = b"Host: x\r\n"
IMAGE = b"Content-Type: image/jpeg\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(JPEG)
PLAIN = IMAGE + LENGTH
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True)
class Exchange:
    """What a client sends on one connection, and what it must get.

    `pieces` are sent one after the other, with a pause between them. `statuses` are those of the
    answers, in their order; after them at most one 400 or 408 may come, for what was no request.
    `says` stands in the last of them; `never` stands in no byte that comes. `half_close`: the
    client closes its sending side at the end. `closes`: the server has to close the connection,
    with `kept` it must not.
    """

    name: str
    pieces: tuple[bytes, ...]
    statuses: tuple[int, ...]
    says: bytes = b""
    never: bytes = b"Traceback"
    half_close: bool = False
    closes: bool = False
    kept: bool = False


def post(
    headers: bytes,
    body: bytes = JPEG,
    path: bytes = b"/classify",
    version: bytes = b"1.1",
    host: bytes = HOST,
) -> bytes:
    """A request."""
    return b"POST %s HTTP/%s\r\n%s%s\r\n%s" % (path, version, host, headers, body)


def chunk(data: bytes, size: bytes = b"%x\r\n", end: bytes = b"\r\n") -> bytes:
    """One chunk of a body."""
    return size % len(data) + data + end


def form(disposition: bytes) -> bytes:
    """A request to /classify/batch with one part."""
    body = b"--b\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n--b--\r\n" % (disposition, JPEG)
    head = b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n" % len(body)
    return post(head, body, b"/classify/batch")


LAST = b"0\r\n\r\n"
WHOLE = chunk(JPEG) + LAST


def _bodies() -> Iterator[Exchange]:
    """RFC 9112, 6 and 7: where a body ends."""
    yield Exchange("plain", (post(PLAIN),), (200,), kept=True)
    yield Exchange("in pieces", (post(PLAIN)[:30], post(PLAIN)[30:400], post(PLAIN)[400:]), (200,))
    yield Exchange("chunked", (post(IMAGE + CHUNKED, WHOLE),), (200,), kept=True)
    halves = chunk(JPEG[:100]), chunk(JPEG[100:], b"%x;a=b;c\r\n"), b"0\r\nX-Sum: 1\r\n\r\n"
    head = post(IMAGE + CHUNKED, b"")
    yield Exchange("extensions and trailers", (head + b"".join(halves),), (200,), kept=True)
    yield Exchange("chunks in pieces", (head, *halves), (200,))
    yield Exchange("within a chunk's size", (head + b"00", WHOLE), (200,))
    yield Exchange("no body", (post(IMAGE + b"Content-Length: 0\r\n", b""),), (400,), kept=True)
    for name, codings, status in (
        ("gzip, chunked", b"gzip, chunked", 501),
        ("chunked after gzip, in two headers", b"gzip\r\nTransfer-Encoding: chunked", 501),
        ("deflate,chunked", b"deflate,chunked", 501),
        ("gzip alone", b"gzip", 400),
        ("identity", b"identity", 400),
        ("chunked, gzip", b"chunked, gzip", 400),
        ("chunked twice", b"chunked, chunked", 400),
        ("quoted", b'"chunked"', 400),
    ):
        request = post(IMAGE + b"Transfer-Encoding: %s\r\n" % codings, WHOLE)
        yield Exchange(f"coding {name}", (request,), (status,), closes=True)
    request = post(IMAGE + CHUNKED, WHOLE, version=b"1.0")
    yield Exchange("chunked in HTTP/1.0", (request,), (400,), closes=True)
    for name, lengths in (
        ("and chunked", LENGTH + CHUNKED),
        ("behind chunked", CHUNKED + LENGTH),
        ("twice", LENGTH + b"Content-Length: 1\r\n"),
        ("twice the same", LENGTH * 2),
        ("as a list", b"Content-Length: 5, 5\r\n"),
        ("with a sign", b"Content-Length: +5\r\n"),
        ("negative", b"Content-Length: -5\r\n"),
        ("in hexadecimal", b"Content-Length: 0x5\r\n"),
        ("empty", b"Content-Length:\r\n"),
        ("beyond 64 bits", b"Content-Length: 99999999999999999999\r\n"),
    ):
        yield Exchange(f"length {name}", (post(IMAGE + lengths, WHOLE),), (400,), closes=True)


def _chunks() -> Iterator[Exchange]:
    """RFC 9112, 7.1: a malformed chunk is told, whether anybody waits for it or not."""
    head = post(IMAGE + CHUNKED, b"")
    for name, body in (
        ("size with a sign", chunk(JPEG, b"+%x\r\n") + LAST),
        ("size with 0x", chunk(JPEG, b"0x%x\r\n") + LAST),
        ("size with a blank before", chunk(JPEG, b" %x\r\n") + LAST),
        ("no size", b"\r\n" + JPEG),
        ("size that is none", b"zz\r\n" + JPEG),
        ("size beyond 64 bits", b"1" * 17 + b"\r\n" + JPEG),
        ("size with a bare line feed", chunk(JPEG, b"%x\n") + LAST),
        ("longer than its size", chunk(JPEG, end=b"XX\r\n") + LAST),
        ("shorter than its size", chunk(JPEG[:50], b"%x0\r\n") + LAST + JPEG),
        ("end with a bare line feed", chunk(JPEG, end=b"\n") + LAST),
        ("extension with a bare line feed", chunk(JPEG, b"%x;a\nb\r\n") + LAST),
        ("extension with a zero byte", chunk(JPEG, b"%x;a=\0\r\n") + LAST),
        ("trailer that is none", chunk(JPEG) + b"0\r\nno colon\r\n\r\n"),
        ("trailer that is a length", chunk(JPEG) + b"0\r\nContent-Length: 4\r\n\r\n"),
    ):
        yield Exchange(f"chunk: {name}", (head + body,), (400,), closes=True)
        yield Exchange(f"later, chunk: {name}", (head, body), (400,), closes=True)
    several = chunk(JPEG[:99]), chunk(JPEG[99:], b"+%x\r\n")
    yield Exchange("the second chunk", (head, *several), (400,), closes=True)


def _ends() -> Iterator[Exchange]:
    """RFC 9112, 9: what comes behind a request, and how a connection ends."""
    yield Exchange("two in one packet", (post(PLAIN) + LIVE,), (200, 200), kept=True)
    yield Exchange("three, cut anywhere", (*_cut(post(PLAIN) * 2 + LIVE),), (200, 200, 200))
    two = post(IMAGE + CHUNKED, WHOLE) + post(IMAGE + CHUNKED, WHOLE)
    yield Exchange("two chunked in one packet", (two,), (200, 200), kept=True)
    for name, body in (("length", post(PLAIN)), ("chunks", post(IMAGE + CHUNKED, WHOLE))):
        yield Exchange(f"{name}, a line end behind", (body + b"\r\n",), (200,), kept=True)
        yield Exchange(f"{name}, ten bytes behind", (body + b"x" * 10,), (200,), closes=True)
        yield Exchange(f"{name}, zeros behind", (body + bytes(10),), (200,), closes=True)
        later = (body, b"\x16\x03\x01")
        yield Exchange(f"{name}, something behind, later", later, (200,), closes=True)
        yield Exchange(f"{name}, then the end", (body,), (200,), half_close=True, closes=True)
        both = (body + LIVE,)
        yield Exchange(f"{name}, two, then the end", both, (200, 200), half_close=True, closes=True)
        half = (body + LIVE[:9],)
        yield Exchange(f"{name}, half, then the end", half, (200,), half_close=True, closes=True)
        cut = (body[:-100],)
        yield Exchange(f"{name}, the end within", cut, (400,), half_close=True, closes=True)
    # The end comes in the turn of the event loop in which the last answer is written.
    quick = (LIVE * 3,)
    yield Exchange("quick ones, then the end", quick, (200,) * 3, half_close=True, closes=True)
    slow = (post(PLAIN, path=b"/classify?model=linear"),)
    yield Exchange("a slow model, then the end", slow, (200,), half_close=True, closes=True)
    yield Exchange("the end within a head", (LIVE[:20],), (400,), half_close=True, closes=True)
    yield Exchange("nothing and the end", (b"",), (), half_close=True, closes=True)
    closing = (post(PLAIN + b"Connection: close\r\n") + LIVE,)
    yield Exchange("close, and more behind", closing, (200,), closes=True)


def _cut(data: bytes) -> Iterator[bytes]:
    step = len(data) // 7
    yield from (data[at : at + step] for at in range(0, len(data), step))


def _heads() -> Iterator[Exchange]:
    """RFC 9112, 2, 3 and 5: the request line and the headers."""
    for name, host in (
        ("none", b""),
        ("two", HOST * 2),
        ("two different ones", HOST + b"Host: y\r\n"),
        ("with a path", b"Host: x/y\r\n"),
        ("with a user", b"Host: a@x\r\n"),
        ("with a blank", b"Host: x y\r\n"),
        ("a list", b"Host: x, y\r\n"),
    ):
        yield Exchange(f"Host: {name}", (post(PLAIN, host=host),), (400,), closes=True)
    for name, host in (
        ("empty", b"Host:\r\n"),
        ("with a port", b"Host: example.org:8000\r\n"),
        ("an address", b"Host: [::1]:8000\r\n"),
        ("with an underscore", b"Host: my_server\r\n"),
    ):
        yield Exchange(f"Host: {name}", (post(PLAIN, host=host),), (200,), kept=True)
    yield Exchange("HTTP/1.0 without Host", (post(PLAIN, version=b"1.0", host=b""),), (200,))
    whole = b"GET http://example.org/livez HTTP/1.1\r\nHost: x\r\n\r\n"
    yield Exchange("an absolute target", (whole,), (200,), kept=True)
    for name, head, status in (
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("HTTP/2.0 in the line", LIVE.replace(b"1.1", b"2.0"), 505),
        ("HTTP/0.9", b"GET /livez\r\n\r\n", 505),
        ("HTTP/1.2", LIVE.replace(b"1.1", b"1.2"), 400),
        ("TLS", b"\x16\x03\x01\x02\0\1\0\1\xfc\3\3", 400),
        ("bare line feeds", LIVE.replace(b"\r", b""), 400),
        ("a blank before the colon", LIVE.replace(b"Host:", b"Host :"), 400),
        ("a folded header", LIVE.replace(b": x", b": x\r\n y"), 400),
        ("a header without colon", LIVE.replace(b"\r\n\r\n", b"\r\nno\r\n\r\n"), 400),
        ("a zero byte in a header", LIVE.replace(b": x", b": x\r\nA: \0"), 400),
        ("a bare CR in a header", LIVE.replace(b": x", b": x\r\nA: b\rc"), 400),
        ("a blank in the target", LIVE.replace(b"livez", b"li vez"), 400),
        ("a method in small letters", LIVE.replace(b"GET", b"get"), 400),
    ):
        yield Exchange(f"head: {name}", (head,), (status,), closes=True)
    empty = (b"\r\n\r\n" + LIVE,)
    yield Exchange("empty lines before a request", empty, (200,), kept=True)


def _old() -> Iterator[Exchange]:
    """HTTP/1.0: no 100 (RFC 9110, 10.1.1), and kept alive where asked (RFC 9112, 9.3)."""
    expect = b"Expect: 100-continue\r\n"
    old = post(PLAIN + expect, version=b"1.0")
    yield Exchange("Expect in HTTP/1.0", (old,), (200,), never=b" 100 ", closes=True)
    keeping = PLAIN + b"Connection: Keep-Alive\r\n"
    both = post(keeping + expect, version=b"1.0")
    yield Exchange("Expect in a kept HTTP/1.0", (both,), (200,), never=b" 100 ", kept=True)
    kept = post(keeping, version=b"1.0")
    yield Exchange("kept HTTP/1.0", (kept, kept), (200, 200), kept=True)
    yield Exchange("kept HTTP/1.0 in one packet", (kept + kept,), (200, 200), kept=True)
    yield Exchange("then not kept", (kept, post(PLAIN, version=b"1.0")), (200, 200), closes=True)
    yield Exchange("not kept", (post(PLAIN, version=b"1.0"),), (200,), closes=True)
    asked = post(PLAIN + expect, b"")
    yield Exchange("Expect", (asked, JPEG), (200,), kept=True)
    yield Exchange("Expect in capitals", (asked.replace(b"100-c", b"100-C"), JPEG), (200,))
    huge = IMAGE + b"Content-Length: 99999999\r\n" + expect
    yield Exchange("Expect, refused", (post(huge, b""),), (413,), never=b" 100 ", closes=True)


def _media() -> Iterator[Exchange]:
    """RFC 9110, 8: what a body is said to be."""
    for coding in (b"gzip", b"br", b"deflate", b"GZIP", b"gzip, identity"):
        head = PLAIN + b"Content-Encoding: %s\r\n" % coding
        name = f"Content-Encoding: {coding.decode()}"
        yield Exchange(name, (post(head),), (415,), says=b"Content-Encoding")
        batch = (post(head, path=b"/classify/batch"),)
        yield Exchange(f"{name}, batch", batch, (415,), says=b"Content-Encoding")
    plain = (post(PLAIN + b"Content-Encoding: identity\r\n"),)
    yield Exchange("Content-Encoding: identity", plain, (200,), kept=True)
    form_type = b"Content-Type: application/x-www-form-urlencoded\r\n"
    for name, kind, body, status in (
        ("curl --data-binary, urllib, axios", form_type, JPEG, 200),
        ("the same with a charset", form_type.replace(b"\r", b"; charset=utf-8\r"), JPEG, 200),
        ("a web form", form_type, b"image=cat.jpg", 415),
        ("a web form with nothing", form_type, b"", 415),
        ("curl -T: none", b"", JPEG, 200),
        ("application/octet-stream", b"Content-Type: application/octet-stream\r\n", JPEG, 200),
        ("another image type", b"Content-Type: image/png\r\n", JPEG, 200),
    ):
        head = kind + b"Content-Length: %d\r\n" % len(body)
        yield Exchange(f"type: {name}", (post(head, body),), (status,), kept=True)
    for name, disposition, filename in (
        ("UTF-8", b"filename*=UTF-8''%E6%97%A5.jpg", "日.jpg"),
        ("beside a plain one", b"filename=\"x.jpg\"; filename*=UTF-8''%E6%97%A5.jpg", "日.jpg"),
        ("before a plain one", b"filename*=utf-8'en'%e6%97%a5.jpg; filename=\"x.jpg\"", "日.jpg"),
        ("Latin-1", b"filename*=ISO-8859-1''caf%E9.jpg", "café.jpg"),
        ("an unknown charset", b"filename=\"x.jpg\"; filename*=KOI8-R''%C4.jpg", "x.jpg"),
        ("within a plain one", b"filename=\"a; filename*=UTF-8''b.jpg\"", "a; filename*=UTF-8''b"),
        ("half of it", b'filename*; filename="x.jpg"; filename*9=y', "x.jpg"),
    ):
        said = (form(b'name="image"; ' + disposition),)
        yield Exchange(f"filename*: {name}", said, (200,), says=filename.encode())


EXCHANGES = [*_bodies(), *_chunks(), *_ends(), *_heads(), *_old(), *_media()]
