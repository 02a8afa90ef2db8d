"""web/framing.py: where a request ends, and that h11 sees the same."""

import random
from collections.abc import Iterator

import h11
import pytest

from server.problems import HeadTooLarge, MalformedRequest, Problem
from server.web.framing import MAX_HEAD_BYTES, Framing
from tests.server.web.exchanges import EXCHANGES, IMAGE, JPEG, LIVE, chunk, post

LENGTH = b"Content-Length: 5\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
# Several requests each, of which each is one for h11, too.
STREAMS = [
    pytest.param(LIVE * 3, id="no bodies"),
    pytest.param(post(LENGTH, b"a\r\n\r\n") * 2 + LIVE, id="bodies like the end of a head"),
    pytest.param(post(CHUNKED, chunk(b"\r\n0\r\n\r\n") + b"0\r\n\r\n") * 2, id="chunks like ends"),
    pytest.param(
        post(CHUNKED, chunk(b"a", b"%x;b=c\r\n") + chunk(b"d") + b"000\r\nX: y\r\nZ: \r\n\r\n") * 2,
        id="extensions and trailers",
    ),
    pytest.param(post(IMAGE + b"Content-Length: 0\r\n", b"") + LIVE, id="an empty body"),
    pytest.param(
        post(b"Content-Length: %d\r\n" % len(JPEG)) + post(CHUNKED, chunk(JPEG) + b"0\r\n\r\n"),
        id="an image",
    ),
]


def requests(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The requests of a stream that arrives in pieces."""
    framing = Framing()
    found = [b""]
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        piece, at = stream[begin:end], 0
        while at < len(piece):
            taken, at = framing.take(piece, at)
            found[-1] += taken
            if framing.whole:
                found.append(b"")
    assert found.pop() == b""
    return found


def as_h11_sees_them(stream: bytes) -> Iterator[bytes]:
    """The same by another library."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(stream)
    while stream:
        while connection.their_state not in {h11.DONE, h11.MUST_CLOSE}:
            assert connection.next_event() is not h11.NEED_DATA
        behind, _ = connection.trailing_data
        yield stream[: len(stream) - len(behind)]
        stream = behind
        connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        if stream:
            connection.start_next_cycle()


@pytest.mark.parametrize("stream", STREAMS)
def test_requests_end_where_h11_sees_the_end_however_they_are_cut(stream: bytes) -> None:
    right = list(as_h11_sees_them(stream))
    assert b"".join(right) == stream
    assert requests(stream, []) == right
    rng = random.Random(1)  # noqa: S311 - for cuts, not for secrets
    for count in (1, 2, 5, 40):
        for _ in range(50):
            assert requests(stream, sorted(rng.choices(range(len(stream)), k=count))) == right
    if len(stream) < 1000:
        assert requests(stream, list(range(1, len(stream)))) == right


@pytest.mark.parametrize(
    "stream",
    [each.pieces[0] for each in EXCHANGES if each.statuses == (400,) and not each.half_close],
)
def test_what_is_malformed_is_so_byte_by_byte_and_at_once(stream: bytes) -> None:
    def first_problem(size: int) -> type[Problem] | None:
        framing = Framing()
        for begin in range(0, len(stream), size):
            piece, at = stream[begin : begin + size], 0
            while at < len(piece):
                try:
                    _, at = framing.take(piece, at)
                except Problem as problem:
                    return type(problem)
        return None

    assert first_problem(1) is first_problem(len(stream))


def head_of(request: bytes) -> bytes:
    """What a server gets to see of it."""
    taken, _ = Framing().take(request, 0)
    return taken


def test_a_wish_for_another_protocol_is_left_out() -> None:
    wish = b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"
    for body, framed in ((LENGTH, b"abcde"), (CHUNKED, chunk(b"abc") + b"0\r\n\r\n")):
        request = post(wish + body, framed)
        assert head_of(request) == post(b"connection: close\r\n" + body, framed)
        assert head_of(request.replace(b"Upgrade:", b"UPGRADE:")) == head_of(request)


def test_of_http_1_0_the_server_sees_what_it_can_keep_alive() -> None:
    kept = b"Connection: keep-alive\r\n"
    head = head_of(post(kept + b"Expect: 100-continue\r\n" + LENGTH, b"abcde", version=b"1.0"))
    assert head == post(kept.lower() + LENGTH, b"abcde")
    assert head_of(post(LENGTH, b"abcde", version=b"1.0")) == post(LENGTH, b"abcde", version=b"1.0")


@pytest.mark.parametrize("size", [1, 100, 2**20])
def test_a_head_has_an_end(size: int) -> None:
    fits = LIVE[:-2] + b"X: " + b"x" * (MAX_HEAD_BYTES - len(LIVE) - 5) + b"\r\n\r\n"
    assert len(fits) == MAX_HEAD_BYTES
    assert len(requests(fits, list(range(size, len(fits), size)))) == 1
    longer = fits.replace(b"X: ", b"X: x")
    with pytest.raises(HeadTooLarge):
        requests(longer, list(range(size, len(longer), size)))


@pytest.mark.parametrize(
    "line", [b"1\r\na\r\n", b"1;" + b"x" * 5000 + b"\r\na\r\n", b"0\r\n" + b"A: b\r\n" * 20_000]
)
def test_lines_between_chunks_have_an_end(line: bytes) -> None:
    stream = post(CHUNKED, line * (2**20 // len(line) + 1))
    with pytest.raises(HeadTooLarge):
        requests(stream, [])


def test_chunks_of_a_usual_size_have_none() -> None:
    many = b"".join(chunk(bytes(100)) for _ in range(20_000)) + b"0\r\n\r\n"
    assert len(requests(post(CHUNKED, many), [])) == 1


def test_a_long_extension_within_one_line_is_refused_before_it_ends() -> None:
    with pytest.raises(HeadTooLarge):
        requests(post(CHUNKED, b"5;" + b"x" * 2 * MAX_HEAD_BYTES), [])


def test_a_fault_of_the_parser_says_what_it_saw() -> None:
    with pytest.raises(MalformedRequest, match="Invalid method"):
        requests(b"rubbish\r\n\r\n", [])
