"""TLS of the gateway itself: its certificate, read again when it changes, and its last day.

In: the paths of a certificate with its chain and of its key, both PEM. Out: a context for the
sockets. A renewed certificate is used for later connections; if it cannot be read, the log says so
and the previous certificate stays in use.
"""

import asyncio
import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

from server.observability import metrics

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
# Tags of DER (ITU-T X.690); the other form of a time has a year of four digits.
SEQUENCE, UTC_TIME = 0x30, 0x17
VERSION = 0xA0  # of a certificate (RFC 5280, 4.1), where it has one
LONG = 0x80  # the other bits: how many bytes of a length follow


class CertificateError(RuntimeError):
    """The certificate or its key cannot be used; the message says why and what is expected."""


class Certificate:
    """A certificate and its key in files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises CertificateError."""
        self._files = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = self._read()
        self._use()

    async def watch(self) -> None:
        """Use the files' new content whenever it has changed, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                now = await asyncio.to_thread(self._read)
                if now != self._seen:
                    self._use()
                    self._seen = now
                    logger.info("the certificate %s was read again", self._files[0])
            except CertificateError as error:
                logger.error("%s; the one before is used", error)  # noqa: TRY400  (no trace)

    def _read(self) -> tuple[bytes, ...]:
        try:
            return tuple(file.read_bytes() for file in self._files)
        except OSError as error:
            raise CertificateError(f"{error.filename}: {error.strerror or error}") from error

    def _use(self) -> None:
        certificate, key = self._files
        try:
            # First into a separate context: a certificate without its key would spoil the context
            # in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, _no_password)
            self.context.load_cert_chain(certificate, key, _no_password)
            ends = not_after(certificate.read_text(encoding="ascii", errors="replace"))
        except (OSError, ValueError) as error:
            raise CertificateError(
                f"--tls-cert {certificate} and --tls-key {key}: {error}; expected are a "
                "certificate with its chain and its own key without a password, both as PEM"
            ) from error
        metrics.certificate_expires.set(ends.timestamp())


def _no_password() -> str:
    """Refuse a key with a password; else OpenSSL would ask for it on the terminal."""
    raise ValueError("the key has a password")


def not_after(text: str) -> datetime:
    """When the first certificate of a PEM file ends. Raises ValueError."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    _, found, rest = text.partition(begin)
    body, ends, _ = rest.partition(end)
    if not (found and ends):
        raise ValueError("there is no certificate in it")
    der = ssl.PEM_cert_to_DER_cert(begin + body + end)
    try:
        to_be_signed = _content(_content(der, SEQUENCE)[0], SEQUENCE)[0]
        rest_of = to_be_signed
        if rest_of[0] == VERSION:
            rest_of = _content(rest_of, VERSION)[1]
        for _ in ("serial number", "signature", "issuer"):
            rest_of = _content(rest_of)[1]
        validity = _content(rest_of, SEQUENCE)[0]
        last = _content(validity)[1]
        time = _content(last)[0].decode("ascii")
        # RFC 5280, 4.1.2.5: two digits mean 1950 to 2049, as strptime does from 1969 on.
        form = "%y%m%d%H%M%SZ" if last[0] == UTC_TIME else "%Y%m%d%H%M%SZ"
        return datetime.strptime(time, form).replace(tzinfo=UTC)
    except IndexError as error:
        raise ValueError("its certificate is cut off") from error


def _content(der: bytes, tag: int | None = None) -> tuple[bytes, bytes]:
    """The content of the first element, and what follows it. Raises ValueError, IndexError."""
    if tag is not None and der[0] != tag:
        raise ValueError(f"its certificate has {der[0]:#x} where {tag:#x} is expected")
    length, at = der[1], 2
    if length & LONG:
        at += length & ~LONG
        length = int.from_bytes(der[2:at], "big")
    if at + length > len(der):
        raise IndexError(at)
    return der[at : at + length], der[at + length :]
