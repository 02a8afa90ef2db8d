"""The losses: the distance of a network's answers from the right answers.

In: float32 logits [N, K] and targets: shares [N, K] of the classes, or a teacher's logits [N, K].
Out: a float32 scalar, the mean over the N examples. The arithmetic is big_vision's (utils.py at
0127fb6, lines 236 to 260; evaluators/proj/distill/distance.py).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def softmax(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of one answer out of K."""
    return jnp.mean(optax.softmax_cross_entropy(logits, targets))


def sigmoid(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of a yes or no for each class, summed over the classes."""
    return jnp.mean(jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1))


def distillation(logits: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """KL(teacher ‖ student) of the probabilities at a temperature, times temperature squared."""
    wanted = jax.nn.log_softmax(teacher / temperature)
    found = jax.nn.log_softmax(logits / temperature)
    return temperature**2 * jnp.mean(jnp.sum(jnp.exp(wanted) * (wanted - found), axis=-1))


LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
}
