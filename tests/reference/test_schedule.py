"""The learning rate of each step, beside figures from the published formulas."""

import numpy as np
import pytest

from reference.config import ConfigError, TrainConfig
from reference.schedule import learning_rates


def rates(**fields: object) -> np.ndarray:
    config = TrainConfig(learning_rate=1.0, **fields)  # type: ignore[arg-type] # of all types
    return learning_rates(config, per_epoch=10)


def test_the_cosine_rises_over_its_warmup_and_falls_to_zero() -> None:
    found = rates(epochs=10, warmup_epochs=2)
    assert len(found) == 100
    np.testing.assert_allclose(found[:21], np.arange(21) / 20, rtol=1e-6)
    np.testing.assert_allclose(found[60], 0.5, rtol=1e-6)  # half of the way
    # cos at (99 - 20) / 80 of the way
    np.testing.assert_allclose(found[99], 0.5 * (1 + np.cos(np.pi * 79 / 80)), rtol=1e-5)


def test_the_linear_decay_ends_at_a_share_of_the_peak() -> None:
    found = rates(steps=10_000, warmup_steps=0, schedule="linear", linear_end=0.01)
    np.testing.assert_allclose(found[0], 1)
    np.testing.assert_allclose(found[5000], 0.505, rtol=1e-6)
    np.testing.assert_allclose(found[-1], 0.01 + 0.99e-4, rtol=1e-3)


def test_stairs_drop_to_a_tenth_from_the_step_after_their_number() -> None:
    # BiT-HyperRule for a small set: 100 steps of warm-up, drops after 200, 300, 400, end at 500.
    found = rates(steps=500, warmup_steps=100, schedule="staircase", stairs=(0.4, 0.6, 0.8))
    np.testing.assert_allclose(found[[50, 100, 200]], [0.5, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(
        found[[201, 300, 301, 400, 401, 499]], [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "staircase"}, "stairs: .* a staircase needs some"),
        ({"stairs": (0.5,)}, "stairs: .* do not go with the schedule 'cosine'"),
        ({"schedule": "staircase", "stairs": (0.5, 0.2)}, "stairs: .* not rising shares"),
        ({"temperature": 2.0}, "temperature: has no meaning without a teacher"),
        ({"resize": 40, "min_crop_area": 0.5}, "resize: has no meaning beside min_crop_area"),
        ({"resize": 40, "image_size": 48}, "resize: 40 is below image_size 48"),
        ({"batch_size": 10, "accumulate": 4}, "accumulate: 4 parts do not divide batch_size 10"),
        ({"beta2": 1.0}, r"beta2: 1.0 is not in \[0, 1\)"),
        ({"train_share": 0.0}, r"train_share: 0.0 is not in \(0, 1\]"),
    ],
)
def test_what_has_no_meaning_is_refused_by_field(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**fields)  # type: ignore[arg-type] # of all types
