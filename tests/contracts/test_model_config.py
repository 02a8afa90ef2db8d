"""`config.pbtxt`: every spelling is read, every comment kept, every mistake located."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts.model_config import (
    ConfigError,
    comments,
    config_text,
    json_form,
    parameters,
    parse_config,
    read_config,
)

SPELLINGS = [
    'name:"m" max_batch_size:7 parameters{key:"k"value{string_value:"v"}}',
    "name: 'm', max_batch_size: 7; parameters < key: 'k' value < string_value: 'v' > >",
    '# max_batch_size: 3\nname: "m"\n max_batch_size : 7 # edited\n'
    'parameters: { key: "k", value: { string_value: "v" } }',
    'parameters [ { key: "k" value { string_value: "v" } } ]\nmax_batch_size: 0x7\nname: "\\155"',
    '\nname:\n"m"\nmax_batch_size:\n7\nparameters: [{key: "k" value: {string_value: "v"}}]\n',
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_is_read_and_written_again(text: str) -> None:
    config = parse_config(text)
    assert (config.name, config.max_batch_size, parameters(config)) == ("m", 7, {"k": "v"})
    assert config == text_format.Parse(text, model_config_pb2.ModelConfig())
    assert parse_config(config_text(config, comments(text))) == config


@pytest.mark.parametrize(
    "value", ['a "quoted" \\ näme', "日本\u200d👍", "new\nline", "# no comment"]
)
def test_a_value_comes_back_as_it_was(value: str) -> None:
    config = model_config_pb2.ModelConfig()
    config.parameters["key"].string_value = value
    assert parameters(parse_config(config_text(config))) == {"key": value}


def test_comments_are_distinguished_from_what_looks_like_them() -> None:
    text = "# first\nname: 'a # b' # second\n#third\nbackend: \"#\"\n  #   fourth  \n#\n"
    assert comments(text) == ["first", "second", "third", "fourth", ""]
    written = config_text(parse_config(text), comments(text))
    assert written.startswith("# first\n# second\n# third\n# fourth\n#\nname:")
    assert comments(written) == comments(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nam: "x"', 'line 1, column 1: .* no field named "nam"'),
        ('name: "x"\nmax_batch_size: "8"', "line 2, column 17: "),
        ('name: "x', "line 1, column 7: "),
        ("dynamic_batching {", 'Expected "}"'),
        ("max_batch_size: 99999999999", "line 1, column 17: .*out of range"),
    ],
)
def test_a_mistake_is_located(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=message):
        parse_config(text)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.pbtxt: No such file"):
        read_config(tmp_path / "config.pbtxt")
    (tmp_path / "config.pbtxt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ConfigError, match=r"config\.pbtxt: .*utf-8"):
        read_config(tmp_path / "config.pbtxt")


def test_the_json_form_states_the_defaults() -> None:
    form = json_form(parse_config('name: "m" parameters { key: "k" value { } } input { }'))
    assert form["parameters"] == {"k": {"string_value": ""}}
    assert (form["max_batch_size"], form["output"], form["input"][0]["name"]) == (0, [], "")
    assert "dynamic_batching" not in form
