"""TLS of the gateway itself: a real gateway with certificates that openssl makes."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from server.local_triton.supervisor import LocalTriton
from server.process.gateway import HANDSHAKE_SECONDS
from server.process.tls import Certificate, CertificateError, not_after
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Gateway, check_same, running_gateway
from tests.waiting import CHECKOUT, wait_for

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
Pair = tuple[Path, Path]


def made(folder: Path, name: str, *more: str, days: int = 3) -> Pair:
    """A certificate that signs itself, for localhost."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", str(days)),
            *("-keyout", str(key), "-out", str(certificate), *more),
        ],
        capture_output=True,
        check=True,
    )
    return certificate, key


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The files that the gateway reads."""
    return made(tmp_path_factory.mktemp("tls"), "first")


@pytest.fixture(scope="module")
def gateway(
    triton: LocalTriton, pair: Pair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway of two workers that speaks TLS."""
    flags = ("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL, "--workers", "2")
    tls = ("--tls-cert", str(pair[0]), "--tls-key", str(pair[1]), "--max-body-bytes", "300000")
    log = tmp_path_factory.mktemp("tls-gateway") / "log"
    with running_gateway(log, *flags, *tls, ready=False) as running:
        assert running.url.startswith("https://")
        with client(pair) as asking:
            wait_for(lambda: answers(asking, running), what="a ready gateway")
        ready = f"model {DEFAULT_MODEL} version"
        wait_for(lambda: running.log.read_text().count(ready) >= 2, what="both of its workers")
        yield running


def client(pair: Pair) -> httpx.Client:
    """It believes this certificate alone."""
    return httpx.Client(verify=ssl.create_default_context(cafile=pair[0]), trust_env=False)


def answers(asking: httpx.Client, gateway: Gateway) -> bool:
    try:
        return asking.get(f"{gateway.url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_photograph_is_answered_as_over_plain_http(gateway: Gateway, pair: Pair) -> None:
    with client(pair) as asking:
        first = asking.post(f"{gateway.url}/classify", content=photo(0))
        assert first.status_code == 200, first.text
        # On one connection, several; a refusal on the way does not end it without an answer.
        refused = asking.post(f"{gateway.url}/classify", content=b"no image")
        assert refused.status_code == 415
        too_large = asking.post(f"{gateway.url}/classify", content=b"x" * 400_000)
        assert too_large.status_code == 413
        assert too_large.json()["title"]
        again = asking.post(f"{gateway.url}/classify", content=photo(0)).json()
        check_same(again["predictions"], first.json()["predictions"])


def test_plain_http_is_not_answered(gateway: Gateway) -> None:
    address = gateway.url.removeprefix("https://")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{address}/livez", trust_env=False)


def connected(gateway: Gateway) -> ssl.SSLSocket:
    host, port = gateway.url.removeprefix("https://").split(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    line = socket.create_connection((host, int(port)), 30)
    return context.wrap_socket(line, server_hostname=host)


def test_what_is_no_http_gets_a_problem_and_the_connection_ends(gateway: Gateway) -> None:
    with connected(gateway) as line:
        line.sendall(b"nonsense\r\n\r\n")
        answer = b""
        while data := line.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer


def test_a_client_that_goes_away_within_a_request_leaves_the_gateway_well(
    gateway: Gateway, pair: Pair
) -> None:
    for _ in range(5):
        with connected(gateway) as line:
            line.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
    with client(pair) as asking:
        wait_for(lambda: in_flight(asking, gateway) == 0, what="no request under way")
        assert answers(asking, gateway)
    assert "Traceback" not in gateway.log.read_text()
    assert "eof_received" not in gateway.log.read_text()


def metric(asking: httpx.Client, gateway: Gateway, name: str) -> float:
    lines = asking.get(f"{gateway.url}/metrics").text.splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{name} "))
    return float(value)


def in_flight(asking: httpx.Client, gateway: Gateway) -> float:
    return metric(asking, gateway, "mixer_requests_in_flight") - 1  # that of /metrics itself


def test_handshakes_that_never_end_are_ended_and_keep_nobody_out(
    gateway: Gateway, pair: Pair
) -> None:
    host, port = gateway.url.removeprefix("https://").split(":")
    with contextlib.ExitStack() as stack, client(pair) as asking:
        lines = [
            stack.enter_context(socket.create_connection((host, int(port)), 30)) for _ in range(300)
        ]
        began = time.monotonic()
        for line in lines[::2]:  # the others say nothing
            line.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert asking.post(f"{gateway.url}/classify", content=photo(0)).status_code == 200
        for line in lines:
            line.settimeout(max(0.01, began + 45 - time.monotonic()))
            with contextlib.suppress(ConnectionResetError):
                assert line.recv(1) == b""
        assert time.monotonic() - began > HANDSHAKE_SECONDS - 1
        assert asking.post(f"{gateway.url}/classify", content=photo(0)).status_code == 200


@pytest.mark.parametrize(("version", "agreed"), [("-tls1_1", False), ("-tls1_2", True)])
def test_old_tls_is_refused(gateway: Gateway, version: str, agreed: bool) -> None:
    shown = s_client(gateway, version, "-cipher", "DEFAULT@SECLEVEL=0")
    assert ("Verify return code" in shown and "Cipher is (NONE)" not in shown) == agreed


def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(
    gateway: Gateway, pair: Pair, tmp_path: Path
) -> None:
    expires = "mixer_certificate_expires_timestamp_seconds"
    with client(pair) as asking:
        assert metric(asking, gateway, expires) == ends_at(pair[0]).timestamp()
    # Of a pair of files one is written before the other.
    new = made(tmp_path, "second", days=9)
    shutil.copy(new[0], pair[0])
    wait_for(lambda: "the one before is used" in gateway.log.read_text(), what="a word about it")
    assert served(gateway) == "first"
    shutil.copy(new[1], pair[1])
    wait_for(
        lambda: gateway.log.read_text().count("was read again") == 2, what="both workers to use it"
    )
    assert served(gateway) == "second"
    with client(new) as asking:
        assert answers(asking, gateway)
        assert metric(asking, gateway, expires) == ends_at(new[0]).timestamp()


def served(gateway: Gateway) -> str:
    """The name in the certificate that a new connection gets, by openssl."""
    return s_client(gateway).partition("subject=CN = ")[2].partition("\n")[0]


def s_client(gateway: Gateway, *flags: str) -> str:
    address = gateway.url.removeprefix("https://")
    command = ["openssl", "s_client", "-connect", address, *flags]
    return subprocess.run(command, input=b"", capture_output=True, check=False).stdout.decode()


def ends_at(certificate: Path) -> datetime:
    """What openssl says."""
    command = ["openssl", "x509", "-noout", "-enddate", "-in", str(certificate)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return datetime.strptime(told.strip(), "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "more", [{"days": 1}, {"days": 36500}, {"days": 9000}], ids=["near", "after 2050", "far"]
)
def test_the_end_is_what_openssl_says(tmp_path: Path, more: dict[str, int]) -> None:
    certificate, _ = made(tmp_path, "any", **more)
    assert not_after(certificate.read_text()) == ends_at(certificate)


def test_the_end_of_an_elliptic_one_in_a_chain_is_that_of_the_first(tmp_path: Path) -> None:
    certificate, _ = made(tmp_path, "leaf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    other, _ = made(tmp_path, "other", days=400)
    text = f"Subject: leaf\n{certificate.read_text()}{other.read_text()}"
    assert not_after(text) == ends_at(certificate)


def cut(pair: Pair) -> None:
    pair[0].write_text(pair[0].read_text()[:300])


def emptied(pair: Pair) -> None:
    pair[0].write_text("")


def exchanged(pair: Pair) -> None:
    _, key = made(pair[0].parent, "stranger")
    shutil.copy(key, pair[1])


def locked(pair: Pair) -> None:
    subprocess.run(
        ["openssl", "rsa", "-aes128", "-passout", "pass:x", "-in", pair[1], "-out", pair[1]],
        capture_output=True,
        check=True,
    )


def gone(pair: Pair) -> None:
    pair[1].unlink()


@pytest.mark.parametrize("spoil", [cut, emptied, exchanged, locked, gone])
def test_a_pair_that_cannot_be_used_is_refused_with_its_names(
    tmp_path: Path, spoil: Callable[[Pair], None]
) -> None:
    files = made(tmp_path, "any")
    spoil(files)
    with pytest.raises(CertificateError, match=r"any\.(crt|key)"):
        Certificate(*files)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--tls-cert", "a.crt"), "--tls-key (MIXER_TLS_KEY)"),
        (("--tls-key", "a.key"), "should be set together with --tls-cert"),
        (("--tls-cert", "a.crt", "--tls-key", "a.key"), "a.crt: No such file"),
    ],
)
def test_a_mistake_in_the_settings_is_told_at_the_start(
    flags: tuple[str, ...], complaint: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "server", *flags],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
