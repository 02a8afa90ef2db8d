"""How near exported graphs come to what this machine's cores can do.

In: model folders that `python -m export` wrote. Out, for each: images per second of ONNX Runtime on
the CPU, and the share of the arithmetic rate that a 1024 × 1024 × 1024 FP32 matrix product reaches
in the same run. Models and product alternate, medians are printed, so that a machine whose speed
drifts does not favour one.

    python -m loadtest bench graphs model_repository/mixer_b16 model_repository/vit_b16 --batch 8
"""

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
from tyro.conf import Positional

from contracts.cpu import cpu_flags, exact_products
from contracts.model_config import parameters, read_config
from loadtest.bench.programs import run
from loadtest.usage import UsageError

SIDE = 1024
Feed = dict[str, npt.NDArray[np.generic]]


def main(
    models: Positional[tuple[Path, ...]],
    *,
    batch: int = 8,
    threads: int = 2,
    rounds: int = 7,
) -> int:
    """Measure and print.

    Args:
        models: Model folders, all of one image size.
        batch: Images at once.
        threads: Of ONNX Runtime.
        rounds: How often each is measured; medians are printed.
    """
    if not models:
        raise UsageError("models: expected at least one folder")
    product = matrix_product(threads)
    opened = {folder.name: open_model(folder, batch, threads) for folder in models}
    rates: dict[str, list[float]] = {name: [] for name in opened}
    shares: dict[str, list[float]] = {name: [] for name in opened}
    peaks: list[float] = []
    for classify, _ in opened.values():
        classify()
    for _ in range(rounds):
        for name, (classify, flops) in opened.items():
            peak = 2 * SIDE**3 / statistics.median(seconds(product) for _ in range(5))
            rate = batch / seconds(classify)
            peaks.append(peak)
            rates[name].append(rate)
            shares[name].append(rate * flops / peak)
    print(
        f"onnxruntime {onnxruntime.__version__}, {threads} threads, batch {batch}; "
        f"the product: {statistics.median(peaks) / 1e9:.0f} GFLOP/s"
    )
    for name in opened:
        print(
            f"{name:24} {statistics.median(rates[name]):8.2f} images/s  "
            f"{statistics.median(shares[name]):5.0%} of it "
            f"({min(shares[name]):.0%} to {max(shares[name]):.0%})"
        )
    return 0


def open_model(folder: Path, batch: int, threads: int) -> tuple[Callable[[], object], float]:
    """A function that runs one batch of the model; the FLOPs per image that the export counted."""
    flops = parameters(read_config(folder / "config.pbtxt")).get("flops_per_image")
    if flops is None:
        raise UsageError(
            f"{folder}/config.pbtxt: expected the parameter flops_per_image; export it again"
        )
    opened = session(folder / "1/model.onnx", threads)
    shape = opened.get_inputs()[0].shape[1:]
    images = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)
    return lambda: opened.run(["logits"], {"image": images}), float(flops)


def matrix_product(threads: int) -> Callable[[], object]:
    """A function that multiplies two FP32 matrices of SIDE × SIDE in ONNX Runtime."""
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
    """An ONNX Runtime session on so many threads, whose INT8 is as exact as when it is served."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    for key, value in exact_products(cpu_flags()).items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def seconds(work: Callable[[], object]) -> float:
    """The wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(run(main))
