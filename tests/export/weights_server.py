"""A stand-in for Hugging Face's hub and for Google's storage, on loopback: no test has the network.

It speaks the hub's protocol as far as huggingface_hub asks for it (X-Repo-Commit, X-Linked-Etag),
and sends the headers of Google's storage (ETag, x-goog-hash, Range with If-Range). It can break a
connection, hold one, and send a wrong byte.
"""

import base64
import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import google_crc32c

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Weights:
    """What the server has and how it behaves; the tests change it while it runs."""

    url: str = ""
    hub: dict[str, bytes] = field(default_factory=dict)  # "ORG/NAME/FILE" -> content
    google: dict[str, bytes] = field(default_factory=dict)  # "BUCKET/OBJECT" -> content
    wrong_byte: bool = False  # in what is sent, not in what the headers say
    hold_after: int | None = None  # bytes of a large body, after which nothing more comes
    break_after: int | None = None  # bytes after which one connection is closed
    hashes: bool = True
    held: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # and the Range

    def asked(self, part: str) -> list[str | None]:
        """The ranges of the GET requests whose path has `part` in it."""
        return [span for method, path, span in self.requests if method == "GET" and part in path]


def crc32c(content: bytes) -> str:
    """As the storage writes it."""
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    weights: Weights

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        weights = self.weights
        weights.requests.append((self.command, self.path, self.headers.get("Range")))
        where, resolve, rest = self.path.lstrip("/").partition("/resolve/")
        headers: dict[str, str]
        if resolve:
            content = weights.hub.get(f"{where}/{rest.partition('/')[2]}")
            known = any(each.startswith(f"{where}/") for each in weights.hub)
            headers = {
                "X-Repo-Commit": COMMIT,
                "X-Error-Code": "EntryNotFound" if known else "RepoNotFound",
            }
            if content is not None:
                large = rest.endswith(".safetensors")
                git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
                digest = hashlib.sha256(content).hexdigest() if large else git.hexdigest()
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"'}
                headers |= {"X-Linked-Etag": f'"{digest}"'} if large else {}
        else:
            content = weights.google.get(self.path.lstrip("/"))
            headers = {}
            if content is not None:
                md5 = hashlib.md5(content, usedforsecurity=False)
                headers = {"ETag": f'"{md5.hexdigest()}"', "Accept-Ranges": "bytes"}
                headers |= {"x-goog-stored-content-length": str(len(content))}
                if weights.hashes:
                    named = base64.b64encode(md5.digest()).decode()
                    headers["x-goog-hash"] = f"crc32c={crc32c(content)},md5={named}"
        self._send(content, headers, body=body)

    def _send(self, content: bytes | None, headers: dict[str, str], *, body: bool) -> None:
        weights = self.weights
        begun, status = 0, 404 if content is None else 200
        span = self.headers.get("Range")
        # https://www.rfc-editor.org/rfc/rfc9110#name-if-range
        same = self.headers.get("If-Range", headers.get("ETag")) == headers.get("ETag")
        if content is not None and span and body and same:
            begun, status = int(span.removeprefix("bytes=").partition("-")[0]), 206
            headers["Content-Range"] = f"bytes {begun}-{len(content) - 1}/{len(content)}"
        sent = (content or b"")[begun:]
        if weights.wrong_byte and len(sent) > 1000:
            sent = sent[:999] + bytes([sent[999] ^ 1]) + sent[1000:]
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(sent))}).items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        with contextlib.suppress(OSError):  # the client may be killed
            if len(sent) > 1000 and weights.hold_after is not None:
                self._begin(sent[: weights.hold_after])
                weights.held.set()
                weights.ended.wait(60)
                self.close_connection = True
            elif len(sent) > 1000 and weights.break_after is not None:
                self._begin(sent[: weights.break_after])
                weights.break_after = None
                self.close_connection = True
            else:
                self._begin(sent)

    def _begin(self, content: bytes) -> None:
        self.wfile.write(content)
        self.wfile.flush()


@contextlib.contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[Weights]:
    """A running server."""
    weights = Weights()
    handler = type("Handler", (_Handler,), {"weights": weights})
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        weights.url = f"http://{address}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield weights
        finally:
            weights.ended.set()
            server.shutdown()
            thread.join()
