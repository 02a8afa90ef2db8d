"""A model behind mosec, another model server, to compare with: one stage that decodes and computes.

In: model folders that `python -m export` wrote, and mosec (`pip install mosec`). Out: POST
/classify/NAME of each, which batches as mosec does; mosec's own HTTP server is written in Rust.
Limits on what an image may cost are mosec's own, which are those of its body alone.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mosec import Server, Worker

from loadtest.bench.yardstick import Model, Prediction

Pixels = npt.NDArray[np.uint8]

MOST, DELAY_MS = 16, 3  # images of a batch, and how long the first one waits for others
FOLDER = "MIXER_BENCH_MODEL"


class Classify(Worker):
    """Decodes and classifies in one process; the folder of the model is in its environment."""

    def __init__(self) -> None:
        self._model = Model(Path(os.environ[FOLDER]), spinning=False)

    def deserialize(self, data: bytes) -> Pixels:
        """The pixels uint8[H, W, 3] of an encoded image."""
        return self._model.pixels(data)

    def forward(self, data: list[Pixels]) -> list[list[Prediction]]:
        """The five most probable classes of each image."""
        return self._model.predictions(data)

    def serialize(self, data: list[Prediction]) -> bytes:
        """An answer's body."""
        return json.dumps({"predictions": data}).encode()


def main(repository: Path, port: str) -> None:
    """Serve until the process is told to end."""
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", port]  # mosec reads its own flags
    server = Server()
    for config in sorted(repository.glob("*/config.pbtxt")):
        where = config.parent
        server.append_worker(
            Classify,
            max_batch_size=MOST,
            max_wait_time=DELAY_MS,
            env=[{FOLDER: str(where)}],
            route=f"/classify/{where.name}",
        )
    server.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
