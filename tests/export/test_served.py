"""What the export publishes is served by a real Triton, at every precision, labels and all."""

import sys
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc

from export import __main__
from tests import exported
from tests.photos import photo
from tests.stack import running_triton

# A family, a precision, and how far its logits may be from the official ones.
MODELS = {
    "mixer_tiny": ("int8", 0.25),
    "vit_tiny_token": ("fp16", 0.02),
    "bit_tiny": ("fp32", 5e-5),
}


def test_triton_serves_what_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, repository = tmp_path / "photos", tmp_path / "repository"
    photos.mkdir()
    for index in range(24):
        (photos / f"{index}.jpg").write_bytes(photo(index, 64, 64))
    for case, (precision, _) in MODELS.items():
        flags = ["--checkpoint", str(exported.GOLDEN / case / "checkpoint.npz"), "--name", case]
        flags += ["--precision", precision, "--repository", str(repository)]
        if precision == "int8":
            flags += ["--calibration", str(photos)]
        size = exported.classifier(case).image_size
        monkeypatch.setattr(sys, "argv", ["export", *flags, "--image-size", str(size)])
        assert __main__.main() == 0
    with (
        running_triton(repository) as triton,
        grpc.InferenceServerClient(triton.grpc_url) as client,
    ):
        for case, (_, tolerance) in MODELS.items():
            assert client.is_model_ready(case)
            images, expected = exported.golden_logits(case)
            tensor = grpc.InferInput("image", list(images.shape), "UINT8")
            tensor.set_data_from_numpy(images)
            wanted = [
                grpc.InferRequestedOutput("logits"),
                grpc.InferRequestedOutput("probabilities", class_count=1),
            ]
            answer = client.infer(case, [tensor], outputs=wanted)
            assert np.abs(answer.as_numpy("logits") - expected).max() <= tolerance
            first = answer.as_numpy("logits").argmax(axis=1)
            labels = [row[0].decode().split(":")[2] for row in answer.as_numpy("probabilities")]
            assert labels == [f"class_{index}" for index in first]
