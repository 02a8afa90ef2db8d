"""The protocol of Hugging Face's inference, as its clients in Python and JavaScript speak it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient

from tests.server.web.dialects.answers import B64, JPEG, M, near
from tests.stack import Gateway

HF_JS = "@huggingface/inference@4.13.30"
SCRIPT = """
import { InferenceClient } from "@huggingface/inference";
import { openAsBlob } from "node:fs";
const [url, file] = process.argv.slice(2);
const client = new InferenceClient("key").endpoint(url);
const blob = await openAsBlob(file, {type: "image/jpeg"});
const text = Buffer.from(await blob.arrayBuffer()).toString("base64");
const answers = [
  await client.imageClassification({data: blob}),
  await client.imageClassification({data: await blob.arrayBuffer()}),
  await client.imageClassification({inputs: text}),
];
let failure = "";
try { await client.imageClassification({data: new Blob(["hello"])}); } catch (error) {
  failure = String(error.message) + JSON.stringify(error.httpResponse?.body ?? "");
}
console.log(JSON.stringify({answers, failure}));
"""


def test_huggingface_hub(gateway: Gateway, right: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(JPEG)
    for url in (f"{gateway.url}/hf", f"{gateway.url}/hf/{M}"):
        client = InferenceClient(base_url=url)
        for image in (str(file), JPEG):
            found = client.image_classification(image)
            assert [each.label for each in found] == [p["label"] for p in right[:5]]
            near([each.score for each in found], [p["probability"] for p in right[:5]])
        assert len(client.image_classification(JPEG, top_k=2)) == 2
        assert len(client.image_classification(JPEG, top_k=99)) == 10
        with pytest.raises(Exception, match="the bytes are text"):
            client.image_classification(b"hello, this is no image")


def test_huggingface_inference_of_npm(
    gateway: Gateway, right: list[dict[str, Any]], tmp_path: Path
) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("needs Node and npm: Debian's packages `nodejs` and `npm`")
    install = (npm, "install", "--no-audit", "--no-fund", "--silent", HF_JS)
    if subprocess.run(install, cwd=tmp_path, check=False).returncode:
        pytest.skip(f"needs {HF_JS} from an npm registry")
    (tmp_path / "photo.jpg").write_bytes(JPEG)
    (tmp_path / "script.mjs").write_text(SCRIPT)
    done = subprocess.run(
        [node, "script.mjs", f"{gateway.url}/hf", "photo.jpg"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found = json.loads(done.stdout)
    for answer in found["answers"]:
        assert [each["label"] for each in answer] == [p["label"] for p in right[:5]]
        near([each["score"] for each in answer], [p["probability"] for p in right[:5]])
    assert "the bytes are text" in found["failure"]


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none", None, "SigMoid"])
def test_hugging_face_applies_the_function(client: httpx.Client, function: str | None) -> None:
    """To the logits of the model, here by the textbook and without this project's code."""
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [B64]}
    body = {"inputs": [image], "outputs": [{"name": "logits"}, {"name": "probabilities"}]}
    answer = client.post(f"/v2/models/{M}/infer", json=body).json()
    outputs = {each["name"]: np.array(each["data"]) for each in answer["outputs"]}
    expected = {
        "sigmoid": 1 / (1 + np.exp(-outputs["logits"])),
        "none": outputs["logits"],
    }.get((function or "").lower(), outputs["probabilities"])
    asked = {"top_k": 10} | ({} if function is None else {"function_to_apply": function})
    found = client.post("/hf", json={"inputs": B64, "parameters": asked}).json()
    labels = client.get(f"/models/{M}").json()["labels"]
    scores = {each["label"]: each["score"] for each in found}
    near([scores[label] for label in labels], expected)
    assert [each["score"] for each in found] == sorted(scores.values(), reverse=True)


def test_hugging_face_refuses_another_function(client: httpx.Client) -> None:
    for function in ("tanh", 5, ["none"]):
        asked = {"inputs": B64, "parameters": {"function_to_apply": function}}
        response = client.post("/hf", json=asked)
        assert response.status_code == 400
        assert "expected softmax, sigmoid, none" in response.json()["error"]
