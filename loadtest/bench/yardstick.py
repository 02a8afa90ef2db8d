"""The plain way to serve a model, to compare with: FastAPI and ONNX Runtime in one process.

In: model folders that `python -m export` wrote. Out: POST /classify?model=NAME, as somebody would
write it on an afternoon: no batching, no limits, no metrics. `loop` is less still: no HTTP at all.

    python -m loadtest.bench.yardstick .bench/models
    python -m loadtest.bench.yardstick .bench/models --loop tiny cat.jpg --seconds 3
"""

import argparse
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image


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

    def classify(self, data: bytes) -> list[dict[str, Any]]:
        """The five most probable classes of an encoded image."""
        image = Image.open(io.BytesIO(data)).convert("RGB")
        pixels = np.asarray(image.resize((self._width, self._height), Image.Resampling.BILINEAR))
        (probabilities,) = self._session.run(["probabilities"], {"image": pixels[None]})[0]
        best = np.argsort(-probabilities)[:5]
        return [
            {"label": self._labels[i], "index": int(i), "probability": float(probabilities[i])}
            for i in best
        ]


def create_app(models: dict[str, Model]) -> FastAPI:
    """The service."""
    app = FastAPI()

    @app.post("/classify")
    async def classify(request: Request, model: str) -> dict[str, Any]:
        data = await request.body()
        predictions = await run_in_threadpool(models[model].classify, data)
        return {"model": model, "predictions": predictions}

    return app


def loop(model: Model, picture: bytes, seconds: float) -> tuple[float, float, float]:
    """Decode and classify for some time: images, wall seconds, CPU seconds."""
    for _ in range(2):
        model.classify(picture)
    images, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        model.classify(picture)
        images += 1
    return images, time.perf_counter() - began, time.process_time() - cpu


def main() -> int:
    """Serve on a free port and print it, or measure the loop and print that."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.yardstick", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("repository", type=Path, help="of models")
    parser.add_argument("--loop", nargs=2, metavar=("MODEL", "IMAGE"), help="measure without HTTP")
    parser.add_argument("--seconds", type=float, default=3.0, help="of the loop")
    options = parser.parse_args()
    if options.loop:
        name, picture = options.loop
        model = Model(options.repository / name, spinning=True)
        print(*loop(model, Path(picture).read_bytes(), options.seconds))
        return 0
    # Threads that spin would take the cores from decoding, and from the other models.
    models = {
        path.parent.name: Model(path.parent, spinning=False)
        for path in options.repository.glob("*/config.pbtxt")
    }
    config = uvicorn.Config(create_app(models), port=0, access_log=False, timeout_keep_alive=600)
    uvicorn.Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
