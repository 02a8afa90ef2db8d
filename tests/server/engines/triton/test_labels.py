"""Labels on their way through a real Triton: any language, and what Notepad adds is stripped."""

from pathlib import Path

from tests import tiny_models
from tests.photos import photo
from tests.stack import client_of, running_gateway, running_triton

# Ten, as the tiny model has classes.
LABELS = [
    "می\u200cخواهم",
    "ice\u00a0cream",
    "👨\u200d👩\u200d👧",
    "\u200fשלום\u200e (dog)",
    "日本",
    "tench, Tinca tinca",
    "shop: bakery: 24 h",
    '"quotes" \\ and <b>markup</b>',
    "क्\u200dष",
    "cat\u00a0",
]


def test_every_label_arrives_as_it_was_written(tmp_path: Path) -> None:
    text = "".join(f"{label}\n" for label in LABELS)
    repository = tmp_path / "models"
    for name, content in {
        "plain": text,
        "notepad": "\ufeff" + text.replace("\n", "\r\n"),
    }.items():
        folder = tiny_models.publish(repository, name)
        (folder / "labels.txt").write_text(content, encoding="utf-8", newline="")
    flags = ("--default-model", "plain")
    with (
        running_triton(repository) as triton,
        running_gateway(tmp_path / "log", "--triton-url", triton.grpc_url, *flags) as gateway,
        client_of(gateway) as client,
    ):
        for name in ("plain", "notepad"):
            assert client.get(f"/models/{name}").json()["labels"] == LABELS
            answer = client.post(
                f"/classify?model={name}&top_k=10",
                content=photo(0, 64, 48),
                headers={"Content-Type": "image/jpeg"},
            ).json()
            found = {each["index"]: each["label"] for each in answer["predictions"]}
            assert found == dict(enumerate(LABELS))
