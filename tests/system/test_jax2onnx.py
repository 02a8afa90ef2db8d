"""JAX to ONNX without PyTorch, by jax2onnx: a third witness of what the shipped models compute.

jax2onnx would bring much that nothing here needs, so it is installed alone, by `make jax2onnx`, as
CI does. Where it is absent these tests are skipped.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from contracts.repository import INPUT, LOGITS
from export.graph import open_graph
from reference import models
from reference.augment import normalise
from tests.waiting import CHECKOUT

jax2onnx: Any = pytest.importorskip("jax2onnx", reason="make jax2onnx")
# What jax2onnx itself does on the way.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The inputs_kv arg will be deprecated"),
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64"),
]


@pytest.mark.parametrize("name", ["mixer_cifar10", "vit_cifar10", "bit_cifar10"])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_graph_made_of_the_jax_program_gives_the_exported_graph_s_logits(
    name: str, batch: int, tmp_path: Path
) -> None:
    read = models.read(CHECKOUT / f"reference/trained/{name}.npz")
    network = models.build(read.config, read.num_classes)

    def forward(images: jax.Array) -> jax.Array:
        return models.apply(network, read.params, images)

    shape = jax.ShapeDtypeStruct(("B", 32, 32, 3), jnp.float32)  # any batch
    file = tmp_path / "model.onnx"
    file.write_bytes(jax2onnx.to_onnx(forward, [shape], model_name=name).SerializeToString())
    images = np.random.default_rng(batch).integers(0, 256, (batch, 32, 32, 3)).astype(np.uint8)
    inputs = np.asarray(normalise(jnp.asarray(images)))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs})
    exported = open_graph(CHECKOUT / f"model_repository/{name}/1/model.onnx")
    (expected,) = exported.run([LOGITS], {INPUT: images})
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
