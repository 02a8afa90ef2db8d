"""Losses beside values computed in float64 with NumPy from their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from reference import losses

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
TARGETS = np.array([[1.0, 0.0, 0.0], [0.3, 0.7, 0.0]])
TEACHER = np.array([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    found: np.ndarray = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return found


def test_softmax_is_the_mean_over_the_batch() -> None:
    expected = -(TARGETS * log_softmax(LOGITS)).sum(axis=1).mean()
    found = losses.softmax(jnp.asarray(LOGITS), jnp.asarray(TARGETS))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_sigmoid_is_a_sum_over_the_classes_and_a_mean_over_the_batch() -> None:
    yes, no = -np.log1p(np.exp(-LOGITS)), -np.log1p(np.exp(LOGITS))
    expected = -(TARGETS * yes + (1 - TARGETS) * no).sum(axis=1).mean()
    found = losses.sigmoid(jnp.asarray(LOGITS), jnp.asarray(TARGETS))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_head_bias_of_minus_6_9_begins_at_the_loss_of_a_thousandth() -> None:
    found = losses.sigmoid(jnp.full((1, 1000), -6.9), jnp.eye(1000)[:1])
    probability = 1 / (1 + np.exp(6.9))
    expected = -np.log(probability) - 999 * np.log1p(-probability)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_distillation_is_the_divergence_times_the_squared_temperature(temperature: float) -> None:
    wanted, said = log_softmax(TEACHER / temperature), log_softmax(LOGITS / temperature)
    expected = temperature**2 * (np.exp(wanted) * (wanted - said)).sum(axis=1).mean()
    found = losses.distillation(jnp.asarray(LOGITS), jnp.asarray(TEACHER), temperature)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    same = losses.distillation(jnp.asarray(TEACHER), jnp.asarray(TEACHER), temperature)
    np.testing.assert_allclose(same, 0, atol=1e-6)
