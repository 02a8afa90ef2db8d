"""What can go wrong with a request: one exception class for each problem, with its HTTP status.

In: an exception raised anywhere on a request's way. Out: the `application/problem+json` document
of RFC 9457 that answers it. The classes are the table of statuses; nothing else chooses one.
"""

import json
from http import HTTPStatus
from typing import ClassVar

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:mixer-serving:problem:"


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """A request that cannot be answered as asked; `detail` says what was wrong and what is right.

    `retry_after` is the number of seconds after which the answer may differ. `closes` says whether
    the connection is closed after the answer.
    """

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    name: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "The gateway failed"
    closes: ClassVar[bool] = False
    retry_after: int | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def forget(self) -> None:
        """Release the frames of the traceback, once they are no longer needed.

        The frames hold the request and its image, and often an object that holds the problem: all
        of that would stay in memory until the next garbage collection.
        """
        self.__traceback__ = self.__context__ = None

    @classmethod
    def type_uri(cls) -> str:
        """The URI by which a client tells problems apart."""
        return TYPE_PREFIX + cls.name

    def document(self) -> dict[str, str | int]:
        """The members of RFC 9457, section 3.1."""
        return {
            "type": self.type_uri(),
            "title": self.title,
            "status": int(self.status),
            "detail": self.detail,
        }

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that belong to the problem, Content-Type included."""
        headers = [(b"content-type", MEDIA_TYPE.encode())]
        if self.retry_after is not None:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        return headers

    def body(self, request_id: str) -> bytes:
        """The document as JSON, with the id under which the gateway logged the request."""
        return json.dumps(
            {**self.document(), "request_id": request_id}, ensure_ascii=False
        ).encode()


class NoImage(Problem):
    """The request carries no image where one is due."""

    status = HTTPStatus.BAD_REQUEST
    name = "no-image"
    title = "No image in the request"


class BadBody(Problem):
    """The body is not the JSON, or not the tensors, that this call takes."""

    status = HTTPStatus.BAD_REQUEST
    name = "bad-body"
    title = "The body is not what this call takes"


class MalformedRequest(Problem):
    """What came is not HTTP/1.1."""

    status = HTTPStatus.BAD_REQUEST
    name = "malformed-request"
    title = "Not an HTTP request"


class HeadTooLarge(Problem):
    """The request line and headers are over the limit."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    name = "head-too-large"
    title = "Request head too large"


class UnsupportedTransferCoding(Problem):
    """The body is framed by a transfer coding that is not understood (RFC 9112, 6.1)."""

    status = HTTPStatus.NOT_IMPLEMENTED
    name = "unsupported-transfer-coding"
    title = "Transfer coding not understood"


class UnsupportedVersion(Problem):
    """The request is of another version of HTTP than 1.0 and 1.1."""

    status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    name = "unsupported-version"
    title = "HTTP version not supported"


class Unauthorized(Problem):
    """The request carries no API key that the server knows."""

    status = HTTPStatus.UNAUTHORIZED
    name = "unauthorized"
    title = "An API key is needed"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"www-authenticate", b"Bearer")]


class NotFound(Problem):
    """No such path."""

    status = HTTPStatus.NOT_FOUND
    name = "not-found"
    title = "No such path"


class UnknownModel(Problem):
    """Triton's repository has no model of this name."""

    status = HTTPStatus.NOT_FOUND
    name = "unknown-model"
    title = "No such model"


class MethodNotAllowed(Problem):
    """The path exists, but not for this method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    name = "method-not-allowed"
    title = "Method not allowed"

    def __init__(self, detail: str, allow: str) -> None:
        super().__init__(detail)
        self.allow = allow

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"allow", self.allow.encode())]


class SlowRequest(Problem):
    """The client did not send the whole request in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    name = "slow-request"
    title = "The request came too slowly"
    closes = True  # RFC 9110, 15.5.9


class BodyTooLarge(Problem):
    """The body is over the limit. The rest of it is not read."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    name = "body-too-large"
    title = "Request body too large"


class TooManyPixels(Problem):
    """The image is over the limit. It is not decoded."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    name = "too-many-pixels"
    title = "Image has too many pixels"


class UnsupportedType(Problem):
    """Neither the declared type nor the bytes are those of an image that the gateway reads."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    name = "unsupported-type"
    title = "Not an image type that is read"


class UnsupportedEncoding(Problem):
    """The body has a `Content-Encoding`, and none is undone."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    name = "unsupported-encoding"
    title = "Content encoding not supported"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"accept-encoding", b"identity")]  # RFC 9110, 15.5.16


class UnreadableImage(Problem):
    """The bytes begin like an image, but cannot be decoded."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    name = "unreadable-image"
    title = "Image cannot be decoded"


class BadParameter(Problem):
    """A parameter or a field of the form is unknown, out of range or in the wrong place."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    name = "bad-parameter"
    title = "Bad parameter"


class TooBusy(Problem):
    """The gateway has more work than it can do in time; the request was not begun."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    name = "too-busy"
    title = "Too busy to answer in time"
    retry_after = 1

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class ContractBroken(Problem):
    """The model, or its answer, is not what the gateway can serve."""

    status = HTTPStatus.BAD_GATEWAY
    name = "contract-broken"
    title = "The model broke its contract"


class TritonAway(Problem):
    """Triton cannot be reached."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    name = "triton-away"
    title = "The inference server is away"
    retry_after = 1


class ModelNotReady(Problem):
    """Triton knows the model, but cannot serve it now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    name = "model-not-ready"
    title = "The model is not ready"
    retry_after = 1


class DecodingStuck(Problem):
    """Images wait to be decoded, and none is: what decodes is stopped or stuck."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    name = "decoding-stuck"
    title = "Decoding is stuck"
    retry_after = 1


class Draining(Problem):
    """The gateway is about to end: it still answers, but wants no new clients."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    name = "draining"
    title = "The gateway is shutting down"
    retry_after = 1


class DeadlinePassed(Problem):
    """The request took longer than it may."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    name = "deadline-passed"
    title = "The deadline passed"


class InternalError(Problem):
    """A fault of the gateway itself; its log has the cause under the request's id."""


CLASSES: tuple[type[Problem], ...] = tuple(Problem.__subclasses__())
