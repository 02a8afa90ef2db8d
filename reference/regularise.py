"""Stochastic depth (arXiv 1603.09382) as in big_vision: blocks are skipped at random in training.

In: the array [N, ...] that a block adds to its input. Out: the same array, with the rows of some
examples at zero. Each example is drawn independently, and the other rows are not scaled up
(mlp_mixer.py at 0127fb6, lines 52 to 78 and 173 to 177).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


def skip_rate(last: float, index: int, blocks: int) -> float:
    """The rate at which block `index` of `blocks` is skipped: 0 at the first, `last` at the end."""
    return last * index / max(blocks - 1, 1)


def skip_some(module: nn.Module, added: jax.Array, rate: float, *, train: bool) -> jax.Array:
    """`added`, in training with about a share of `rate` of the examples' rows at zero."""
    if not train or rate == 0:
        return added
    shape = (added.shape[0], *(1,) * (added.ndim - 1))
    stays = jax.random.bernoulli(module.make_rng("dropout"), 1 - rate, shape)
    return added * stays.astype(added.dtype)


def sincos_positions(grid: int, width: int) -> jax.Array:
    """Sines and cosines of a token's row and column, float32 [1, grid², width].

    A quarter of the width each for the sine and the cosine of column and row, at frequencies from 1
    to 1/10000 (big_vision's vit.py at 0127fb6, `posemb_sincos_2d`).
    """
    row, column = jnp.mgrid[:grid, :grid]
    frequencies = 10_000.0 ** -(jnp.arange(width // 4) / (width // 4 - 1))
    rows, columns = (axis.reshape(-1, 1) * frequencies for axis in (row, column))
    parts = [jnp.sin(columns), jnp.cos(columns), jnp.sin(rows), jnp.cos(rows)]
    return jnp.concatenate(parts, axis=1)[None]
