"""The plain way to serve a model, to compare with: FastAPI and ONNX Runtime in one process.

In: model folders that `python -m export` wrote. Out: POST /classify?model=NAME, as somebody would
write it on an afternoon: no batching, no limits, no metrics. `loop` is less still: no HTTP at all.

    python -m loadtest bench yardstick .bench/models
    python -m loadtest bench yardstick .bench/models --loop tiny cat.jpg --seconds 3
"""

import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import numpy as np
import numpy.typing as npt
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from tyro.conf import Positional

from loadtest.bench.programs import run

Prediction = dict[str, Any]


class Model:
    """One model in this process."""

    def __init__(self, folder: Path, *, spinning: bool) -> None:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        self._session = onnxruntime.InferenceSession(
            folder / "1/model.onnx", options, providers=["CPUExecutionProvider"]
        )
        _, self._height, self._width, _ = self._session.get_inputs()[0].shape
        self._labels = (folder / "labels.txt").read_text().splitlines()

    def pixels(self, data: bytes) -> npt.NDArray[np.uint8]:
        """The pixels uint8[H, W, 3] that the model takes, of an encoded image."""
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return np.asarray(image.resize((self._width, self._height), Image.Resampling.BILINEAR))

    def predictions(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[list[Prediction]]:
        """The five most probable classes of each image."""
        (rows,) = self._session.run(["probabilities"], {"image": np.stack(images)})
        return [
            [
                {"label": self._labels[i], "index": int(i), "probability": float(row[i])}
                for i in np.argsort(-row)[:5]
            ]
            for row in rows
        ]

    def classify(self, data: bytes) -> list[Prediction]:
        """The five most probable classes of an encoded image."""
        return self.predictions([self.pixels(data)])[0]


def create_app(models: dict[str, Model]) -> FastAPI:
    """The service."""
    app = FastAPI()

    @app.post("/classify")
    async def classify(request: Request, model: str) -> dict[str, Any]:
        data = await request.body()
        predictions = await run_in_threadpool(models[model].classify, data)
        return {"model": model, "predictions": predictions}

    return app


def measure_loop(model: Model, image: bytes, seconds: float) -> tuple[float, float, float]:
    """Decode and classify for so many seconds; returns images, wall seconds, CPU seconds."""
    for _ in range(2):
        model.classify(image)
    images, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        model.classify(image)
        images += 1
    return images, time.perf_counter() - began, time.process_time() - cpu


def main(
    repository: Positional[Path],
    *,
    loop: tuple[str, Path] | None = None,
    seconds: float = 3.0,
    port: int = 8000,
) -> int:
    """Serve, or measure the loop and print images, wall seconds and CPU seconds.

    Args:
        repository: Folder of models.
        loop: A model and an image: measure them without HTTP.
        seconds: How long the loop is.
        port: Where to serve.
    """
    if loop is not None:
        name, image = loop
        print(*measure_loop(Model(repository / name, spinning=True), image.read_bytes(), seconds))
        return 0
    # Spinning threads would take the cores away from decoding and from the other models.
    models = {
        path.parent.name: Model(path.parent, spinning=False)
        for path in repository.glob("*/config.pbtxt")
    }
    config = uvicorn.Config(create_app(models), port=port, access_log=False, timeout_keep_alive=600)
    uvicorn.Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
