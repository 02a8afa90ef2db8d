"""How near exported graphs come to what this machine's cores can do.

In: model folders that `python -m export` wrote. Out, for each: images per second of ONNX Runtime on
the CPU, and the share of the arithmetic rate that a 1024 × 1024 × 1024 FP32 matrix product reaches
in the same run. Models and product alternate, medians are printed, so that a machine whose speed
drifts does not favour one.

    python -m loadtest.bench.graphs model_repository/mixer_b16 model_repository/vit_b16 --batch 8
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from contracts.model_config import parameters, read_config

SIDE = 1024
Feed = dict[str, npt.NDArray[np.generic]]


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.graphs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("models", nargs="+", type=Path, help="model folders, all of one image size")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    product = matrix_product(options.threads)
    runs = {
        folder.name: open_model(folder, options.batch, options.threads) for folder in options.models
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    shares: dict[str, list[float]] = {name: [] for name in runs}
    peaks: list[float] = []
    for run, _ in runs.values():
        run()
    for _ in range(options.rounds):
        for name, (run, flops) in runs.items():
            peak = 2 * SIDE**3 / statistics.median(seconds(product) for _ in range(5))
            rate = options.batch / seconds(run)
            peaks.append(peak)
            rates[name].append(rate)
            shares[name].append(rate * flops / peak)
    print(
        f"onnxruntime {onnxruntime.__version__}, {options.threads} threads, batch {options.batch}; "
        f"the product: {statistics.median(peaks) / 1e9:.0f} GFLOP/s"
    )
    for name in runs:
        print(
            f"{name:24} {statistics.median(rates[name]):8.2f} images/s  "
            f"{statistics.median(shares[name]):5.0%} of it "
            f"({min(shares[name]):.0%} to {max(shares[name]):.0%})"
        )
    return 0


def open_model(folder: Path, batch: int, threads: int) -> tuple[Callable[[], object], float]:
    """What runs one batch of the model, and its FLOPs per image as counted by the export."""
    flops = parameters(read_config(folder / "config.pbtxt")).get("flops_per_image")
    if flops is None:
        sys.exit(f"{folder}/config.pbtxt: expected the parameter flops_per_image; export it again")
    opened = session(folder / "1/model.onnx", threads)
    shape = opened.get_inputs()[0].shape[1:]
    images = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)
    return lambda: opened.run(["logits"], {"image": images}), float(flops)


def matrix_product(threads: int) -> Callable[[], object]:
    """What multiplies two FP32 matrices of SIDE × SIDE in ONNX Runtime."""
    values = np.random.default_rng(0).standard_normal((SIDE, SIDE)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [SIDE, SIDE])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [SIDE, SIDE])],
        [onnx.numpy_helper.from_array(values, "w")],
    )
    opset = onnx.helper.make_opsetid("", 20)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    opened = session(model.SerializeToString(), threads)
    return lambda: opened.run(None, {"x": values})


def session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """ONNX Runtime on this many cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def seconds(run: Callable[[], object]) -> float:
    """The wall time of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
