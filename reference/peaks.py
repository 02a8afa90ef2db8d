"""The peak rate of a device: from data sheets, or measured with a matrix product.

In: a JAX device and a precision. Out: floating point operations per second, and the source of this
figure.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp

# Dense bfloat16, in FLOP/s per JAX device, by the start of `device_kind`. TPUs: the pages under
# cloud.google.com/tpu/docs (a v3 chip has 123e12 and is two devices). GPUs: NVIDIA's data sheets,
# without sparsity.
DATA_SHEETS: dict[str, float] = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
}


def peak(device: Any, precision: str) -> tuple[float, str]:  # noqa: ANN401  JAX has no type for it
    """FLOP/s of one device, and their source."""
    if precision == "bfloat16":
        # The longest name that fits is taken: "TPU v5 lite" before "TPU v5".
        for kind in sorted(DATA_SHEETS, key=len, reverse=True):
            if device.device_kind.startswith(kind):
                return DATA_SHEETS[kind], "data sheet"
    return measure(device, precision), "measured matrix product"


def measure(device: Any, precision: str, repetitions: int = 5) -> float:  # noqa: ANN401 - as above
    """The best of several square matrix products, in FLOP/s."""
    side = 1024 if device.platform == "cpu" else 8192
    matrix = jax.device_put(jnp.ones((side, side), precision), device)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()  # compiles
    best = float("inf")
    for _ in range(repetitions):
        begin = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        best = min(best, time.perf_counter() - begin)
    return float(2 * side**3 / best)
