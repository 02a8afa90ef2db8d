"""`config.pbtxt`, Triton's configuration of a model, read and written with Triton's own message.

In: text in protobuf's text format, in any spelling that Triton reads. Out: a `ModelConfig`, the
message that Triton's client library carries, and text again. Comments are kept: in a file that is
rewritten they stand at the top, in their order.
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig

__all__ = [
    "ConfigError",
    "ModelConfig",
    "comments",
    "config_text",
    "json_form",
    "model_config_pb2",
    "parameters",
    "parse_config",
    "read_config",
]


class ConfigError(ValueError):
    """The text is no configuration; the message says where and what is wrong."""


def read_config(path: Path) -> ModelConfig:
    """The configuration of a file; raises ConfigError, which names it."""
    try:
        return parse_config(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_config(text: str) -> ModelConfig:
    """The configuration that a text states; raises ConfigError with line and column."""
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        where = f"line {error.GetLine()}, column {error.GetColumn()}: " if error.GetLine() else ""
        what = str(error).partition(" : ")[2] if where else str(error)
        raise ConfigError(f"{where}{what or error}") from None


def config_text(config: ModelConfig, comments: Iterable[str] = ()) -> str:
    """The configuration as text, below comments; each of these is a line without its `#`."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comments)
    body: str = text_format.MessageToString(
        config, as_utf8=True, use_short_repeated_primitives=True
    )
    return head + body


def comments(text: str) -> list[str]:
    """The comments of a configuration in their order, each without its `#`."""
    found = []
    # Triton's parser and this one agree on where a string ends and a comment begins.
    tokens = text_format.Tokenizer(text.splitlines(), skip_comments=False)
    while not tokens.AtEnd():
        if tokens.token.startswith("#"):
            found.append(tokens.token.removeprefix("#").strip())
        tokens.NextToken()
    return found


def json_form(config: ModelConfig) -> dict[str, Any]:
    """The configuration as the JSON that Triton hands to a backend.

    As in Triton's own, a field without a value has its default: a parameter whose text is empty,
    such as the digest of random weights, has an empty `string_value`.
    """
    form: dict[str, Any] = json_format.MessageToDict(
        config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return form


def parameters(config: ModelConfig) -> dict[str, str]:
    """The `parameters` of a configuration, sorted by name."""
    return {name: config.parameters[name].string_value for name in sorted(config.parameters)}
