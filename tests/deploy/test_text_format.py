"""The launcher's reader of config.pbtxt, held against protobuf's own on Triton's own message."""

from pathlib import Path

import pytest
from google.protobuf import text_format as official
from tritonclient.grpc.model_config_pb2 import ModelConfig

from deploy.triton.engines import EngineError, Model, trtexec_flags
from deploy.triton.text_format import TextFormatError, parse
from tests.waiting import CHECKOUT

PLAIN = """
name: "cat" max_batch_size: 8
input [ { name: "image" data_type: TYPE_UINT8 dims: [ 32, 48, 3 ] } ]
"""
SPELLINGS = {
    "as export writes it": PLAIN,
    "no blanks": 'max_batch_size:8,input{name:"image"data_type:TYPE_UINT8 dims:[32,48,3]}',
    "single quotation marks": PLAIN.replace('"', "'"),
    "repeated fields": PLAIN.replace("dims: [ 32, 48, 3 ]", "dims: 32 dims: 48 dims: 3"),
    "a colon before a message": PLAIN.replace("input [", "input: ["),
    "angle brackets": PLAIN.replace("[ {", "<").replace("} ]", ">"),
    "commas and semicolons": PLAIN.replace('"cat"', '"cat";').replace(": 8", ": 8,"),
    "comments": PLAIN.replace("input", "# max_batch_size: 9\ninput # {\n"),
    "other fields between": PLAIN.replace("dims", 'reshape { shape: [] } dims').replace(
        "name:", 'parameters { key: "max_batch_size" value { string_value: "{ 7 }" } } name:', 1
    ),
    "strings in parts": PLAIN.replace('"image"', '"im" \'age\''),
    "octal": PLAIN.replace("48", "060"),
    "hexadecimal": PLAIN.replace("48", "0x30"),
    "messages before": 'version_policy: { latest { num_versions: 1 } }' + PLAIN,
    "carriage returns": PLAIN.replace("\n", "\r\n"),
}  # fmt: skip


def model_of(tmp_path: Path, text: str) -> Model:
    (tmp_path / "cat/configs").mkdir(parents=True)
    (tmp_path / "cat/configs/tensorrt.pbtxt").write_text(text)
    return Model(tmp_path / "cat", tmp_path / "cat/1")


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=list(SPELLINGS))
def test_every_spelling_gives_the_same_engine(tmp_path: Path, text: str) -> None:
    message = official.Parse(text, ModelConfig())  # it is valid
    assert (message.max_batch_size, list(message.input[0].dims)) == (8, [32, 48, 3])
    flags = trtexec_flags(model_of(tmp_path, text), Path("plan"))
    assert "--minShapes=image:1x32x48x3" in flags
    assert "--optShapes=image:8x32x48x3" in flags
    assert "--maxShapes=image:8x32x48x3" in flags


def test_reads_the_files_of_the_shipped_model_as_protobuf_does() -> None:
    for path in (CHECKOUT / "model_repository").rglob("*.pbtxt"):
        text = path.read_text()
        fields, message = parse(text), official.Parse(text, ModelConfig())
        assert fields.keys() == {field.name for field, _ in message.ListFields()}
        assert len(fields["parameters"]) == len(message.parameters)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: {", "line 1"),
        ("\na: }", "line 2"),
        ("a: [1 2]", "line 1"),
        ('a: "open', "line 1"),
        ("\n\n: 1", "line 3"),
        ("a", "line 1"),
        ("}", "line 1"),
        ("a: @", "line 1"),
    ],
)
def test_bad_text_format_is_reported_with_its_line(text: str, where: str) -> None:
    with pytest.raises(official.ParseError):
        official.Parse(text, ModelConfig())
    with pytest.raises(TextFormatError, match=where):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "max_batch_size: 8",
        PLAIN.replace("dims", "shape"),
        PLAIN + "input { name: 'mask' dims: 1 }",
        PLAIN.replace("8", "many"),
        PLAIN.replace("{", ""),
    ],
)
def test_a_config_without_sizes_is_reported(tmp_path: Path, text: str) -> None:
    with pytest.raises(EngineError, match=r"tensorrt\.pbtxt does not declare"):
        trtexec_flags(model_of(tmp_path, text), Path("plan"))
