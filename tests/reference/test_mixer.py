"""The Flax Mixer's own matrix product; the network itself is tested with the other families."""

import jax
import jax.numpy as jnp
import numpy as np

from reference.mixer import matmul


def test_the_kernel_gradient_is_that_of_a_plain_matrix_product() -> None:
    x = jax.random.normal(jax.random.key(0), (3, 5, 7))
    kernel = jax.random.normal(jax.random.key(1), (7, 4))

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(matmul(x, kernel)))

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(x @ kernel))

    for mine, theirs in zip(
        jax.grad(ours, (0, 1))(x, kernel), jax.grad(plain, (0, 1))(x, kernel), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
