"""The number of steps of a run, and the learning rate of each step.

In: a `TrainConfig` and the number of steps of an epoch. Out: the number of steps, and the learning
rate of each. The arithmetic is big_vision's (utils.py at 0127fb6, lines 1113 to 1137), and for the
staircase BiT-HyperRule's (big_transfer at 140de6e, bit_hyperrule.py).
"""

import numpy as np
import numpy.typing as npt

from reference.config import TrainConfig

DROP = 0.1  # the factor of the learning rate at each stair


def total_steps(config: TrainConfig, per_epoch: int) -> int:
    """How many steps a run has."""
    return config.steps or config.epochs * per_epoch


def warmup_steps(config: TrainConfig, per_epoch: int) -> int:
    """The number of steps in which the learning rate rises."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    return max(1, round(config.warmup_epochs * per_epoch))


def learning_rates(config: TrainConfig, per_epoch: int) -> npt.NDArray[np.float32]:
    """The learning rate of each step of a run, float32 [steps]."""
    total, warmup = total_steps(config, per_epoch), warmup_steps(config, per_epoch)
    number = np.arange(total)
    progress = np.clip((number - warmup) / max(total - warmup, 1), 0, 1)
    if config.schedule == "cosine":
        factor = 0.5 * (1 + np.cos(np.pi * progress))
    elif config.schedule == "linear":
        factor = config.linear_end + (1 - config.linear_end) * (1 - progress)
    else:
        # A drop takes effect one step after its number; during the warm-up no drop takes effect.
        stairs = np.round(np.array(config.stairs) * total)
        factor = DROP ** np.sum((stairs < number[:, None]) & (number[:, None] >= warmup), axis=1)
    rising = np.minimum(1.0, number / max(warmup, 1)) if warmup else 1.0
    rates: npt.NDArray[np.float32] = np.asarray(config.learning_rate * factor * rising, np.float32)
    return rates
