"""Settings of the gateway: typed, read once at start, from flags and `MIXER_` variables.

In: the command line and the environment (flags win). Out: one immutable `Settings`. A value that
does not fit is reported with its name, and so is a `MIXER_` variable that no setting has.
"""

import importlib.util
import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource, SettingsConfigDict

from server.host.container import memory_limit

PREFIX = "MIXER_"
OF_PYDANTIC = "Value error, "  # stands before the message of a validator of ours
CLIENT_PREFIX = "MIXER_CLIENT_"  # of server/client.py
# How the commands read their flags.
CLI = SettingsConfigDict(cli_kebab_case=True, cli_implicit_flags=True, cli_hide_none_type=True)
# An IPv6 address is written in brackets.
ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):([0-9]{1,5})")
SHADOW = re.compile(r"(\S+):([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
# Each is a module of server/web/dialects.
DIALECTS = "oip,huggingface,torchserve,tfserving,sagemaker,nim"
CHECKOUT = Path(__file__).resolve().parent.parent


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message has one line for each."""


def cores() -> int:
    """Cores that this process may use."""
    # macOS and Windows do not bind a process to some of the cores.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Settings(BaseSettings):
    """Serve image classifiers of a Triton server over HTTP. Other commands: `classify`, `similar`,
    `key` and `default`; each explains itself with -h."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        cli_prog_name="python -m server",
        **CLI,
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every network.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    engine: Literal["triton", "onnxruntime"] = Field(
        "triton",
        description="What computes: Triton, or ONNX Runtime in this process, on the CPU.",
    )
    triton_url: str = Field(
        "127.0.0.1:8001",
        description="Triton's gRPC address, HOST:PORT; several with commas between them. Every "
        "address of a name is used. Unused with --with-triton and --engine onnxruntime.",
    )
    with_triton: bool = Field(False, description="Start and supervise a local Triton as well.")
    allow_changed_models: bool = Field(
        False,
        description="Serve models from --repository whose graph was changed after its export.",
    )
    repository: Path = Field(
        CHECKOUT / "model_repository",
        description="Model repository of the local Triton, or of this process.",
    )
    default_model: str = Field(
        "mixer_cifar10", min_length=1, description="Model of a request that names none."
    )
    request_timeout: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds a request may take from its last byte to its answer; a client may "
        "ask for its own with the header X-Request-Timeout.",
    )
    max_request_timeout: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Most seconds that X-Request-Timeout can ask for; more is cut down to this.",
    )
    read_timeout: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds a client may take to send a request's head, and then its body; "
        "beyond it 408.",
    )
    drain_seconds: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM in which requests are still taken while /readyz is 503; "
        "behind a load balancer longer than its health checks take to notice.",
    )
    max_buffered_bytes: int = Field(
        512 * 2**20,
        ge=1,
        description="Most bytes of all request bodies held at once; beyond it 429.",
    )
    max_connections: int = Field(
        4096,
        ge=1,
        le=1_000_000,
        description="Most connections open at once; beyond it the one that has waited longest for "
        "its next request is closed, or the new one gets 429.",
    )
    requests_per_connection: int = Field(
        0,
        ge=0,
        description="Requests after which a connection is closed, 0 for never: behind a balancer "
        "of connections, such as a Service of Kubernetes, 10 spread a few busy clients.",
    )
    max_body_bytes: int = Field(
        32 * 2**20, ge=1, description="Largest request body, in bytes; beyond it 413."
    )
    max_pixels: int = Field(
        50_000_000, ge=1, description="Largest image, width × height; beyond it 413."
    )
    max_batch_images: int = Field(
        64, ge=1, description="Most images in one request to /classify/batch."
    )
    decode_threads: int = Field(
        cores(),
        ge=1,
        le=256,
        description="Threads that decode images, and as many processes for large ones; one per "
        "core by default.",
    )
    max_decode_bytes: int | None = Field(
        None,
        ge=2**26,
        description="Memory that decoding takes at once, in bytes; what waits for it waits, an "
        "image that needs more gets 413. Without, half of what the container may use, shared by "
        "--workers.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses and networks of proxies whose X-Forwarded-For is believed, with "
        "commas between them: 10.0.0.0/8,::1. Clients, told apart by key or address, share fairly.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe message to log."
    )
    access_log: bool = Field(False, description="Log a line for every request.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="JSON lines, or text to read; auto is text on a terminal, else JSON."
    )
    keys_file: Path | None = Field(
        None,
        description="File with a line NAME SHA256 per API key; without it no key is needed. Read "
        "again when it changes. `python -m server key NAME` makes a line.",
    )
    tls_cert: Path | None = Field(
        None,
        description="Certificate with its chain, PEM: the gateway then speaks HTTPS alone. Read "
        "again when it changes.",
    )
    tls_key: Path | None = Field(
        None,
        validate_default=True,
        description="Its private key, PEM, without a password; set with --tls-cert.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may call this server from a browser, with commas between "
        "them: https://example.org,https://example.com; * for all.",
    )
    metrics: str = Field(
        "here",
        description="Where /metrics is served: here, off, or another address HOST:PORT.",
    )
    docs: str = Field(
        "here",
        description="Where /docs and /openapi.json are served: here, off, or HOST:PORT.",
    )
    default_model_file: Path | None = Field(
        None,
        description="File with the name of the default model instead, read again when it changes: "
        "`python -m server default NAME` writes it. Whoever may write it decides.",
    )
    shadow: str = Field(
        "",
        description="Second model to compare with the default one, and the share of requests of "
        "which it gets copies: NAME:SHARE, such as candidate:5%. GET /shadow shows the result.",
    )
    dialects: str = Field(
        DIALECTS,
        description="Protocols of other servers that are spoken too, with commas between them; "
        "none for none.",
    )
    workers: int = Field(
        1, ge=1, le=256, description="Gateway processes that share the port and one Triton."
    )

    @property
    def longest_request(self) -> float:
        """Most seconds from the last byte of a request to its answer."""
        return max(self.request_timeout, self.max_request_timeout)

    @property
    def decode_bytes(self) -> int:
        """Memory that one process may take for decoding."""
        if self.max_decode_bytes is not None:
            return self.max_decode_bytes
        return max(2**26, memory_limit() // (2 * self.workers))

    @property
    def shadow_aim(self) -> tuple[str, float] | None:
        """The model that gets copies of requests, and the share of requests to copy, 0 to 1."""
        found = SHADOW.fullmatch(self.shadow)
        return (found[1], float(found[2]) / 100) if found else None

    @property
    def grace(self) -> float:
        """Seconds after SIGTERM within which every request under way has ended."""
        return self.drain_seconds + self.read_timeout + self.longest_request + 5

    @field_validator("repository", "keys_file", "default_model_file", "tls_cert", "tls_key")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        try:
            return value.expanduser() if value else value
        except RuntimeError as error:
            raise ValueError(f"has no such home folder: {error}") from None

    @field_validator("engine")
    @classmethod
    def _installed(cls, value: str) -> str:
        if value == "onnxruntime" and importlib.util.find_spec(value) is None:
            raise ValueError(
                "needs the package onnxruntime, which `make .venv/.onnxruntime` installs, or "
                "`pip install --require-hashes -r requirements/locked/onnxruntime.txt`"
            )
        return value

    @field_validator("with_triton")
    @classmethod
    def _one_engine(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("engine") == "onnxruntime":
            raise ValueError("starts a Triton, which --engine onnxruntime does without")
        return value

    @field_validator("workers")
    @classmethod
    def _one_process(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and info.data.get("engine") == "onnxruntime":
            raise ValueError(
                "should be 1 with --engine onnxruntime, since each process would hold every model; "
                "several processes share a Triton's"
            )
        return value

    @field_validator("tls_key")
    @classmethod
    def _pair(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) != (info.data.get("tls_cert") is None):
            raise ValueError("should be set together with --tls-cert, or neither of them")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in filter(None, value.split(",")):
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(
                    "should be origins, scheme and host without a path, such as "
                    "https://example.org, with commas between them"
                )
        return value

    @field_validator("metrics", "docs")
    @classmethod
    def _place(cls, value: str) -> str:
        found = ADDRESS.fullmatch(value)
        if value not in {"here", "off"} and not (found and int(found[2]) < 65536):
            raise ValueError("should be here, off, or HOST:PORT such as 127.0.0.1:9100")
        return value

    @field_validator("dialects")
    @classmethod
    def _known(cls, value: str) -> str:
        names = value.split(",")
        known = set(names) <= set(DIALECTS.split(",")) and len(set(names)) == len(names)
        if value != "none" and not known:
            raise ValueError(f"should be none, or some of {DIALECTS} with commas between them")
        return value

    @field_validator("shadow")
    @classmethod
    def _share(cls, value: str) -> str:
        found = SHADOW.fullmatch(value)
        if value and not (found and 0 < float(found[2]) <= 100):
            raise ValueError("should be NAME:SHARE with a share up to 100%, such as candidate:5%")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for each in filter(None, value.split(",")):
            ipaddress.ip_network(each.strip())  # its message names what is wrong
        return value

    @field_validator("triton_url")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        for each in value.split(","):
            found = ADDRESS.fullmatch(each)
            if not found or not 0 < int(found[2]) < 65536:
                raise ValueError(
                    "should be HOST:PORT without a scheme, such as 127.0.0.1:8001, or several "
                    "with commas between them"
                )
        return value


def read(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the flags `arguments` (without the program's name) and the environment.

    Raises `SettingsError` that names each unusable setting. As argparse does, exits with 2 on an
    unknown flag and with 0 after --help.
    """
    known = {(PREFIX + name).upper() for name in Settings.model_fields}
    unknown = sorted(
        name
        for name in environment
        if name.upper().startswith(PREFIX)
        and not name.upper().startswith(CLIENT_PREFIX)
        and name.upper() not in known
    )
    if unknown:
        raise SettingsError(
            "\n".join(f"{name}: no setting has this name; see --help" for name in unknown)
        )
    try:
        return CliApp.run(
            Settings,
            cli_args=list(arguments),
            cli_settings_source=CliSettingsSource[type[Settings]](Settings, cli_parse_args=False),
        )
    except ValidationError as error:
        raise SettingsError(
            "\n".join(_line(e["loc"], e["msg"], e["input"]) for e in error.errors())
        ) from error


def _line(location: tuple[int | str, ...], message: str, given: object) -> str:
    name = str(location[0]) if location else ""
    flag = f"--{name.replace('_', '-')} ({(PREFIX + name).upper()})"
    return f"{flag}: {message.removeprefix(OF_PYDANTIC)}; got {given!r}"
