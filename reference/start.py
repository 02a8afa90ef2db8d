"""Where a training run begins: at random, from pretrained weights, or where it was stopped.

In: a `TrainConfig`, with fields left open, and perhaps the state of an earlier run. Out: the same
with nothing left open but what the number of images decides, the network, and the variables of
the first step to do.
"""

import dataclasses
from pathlib import Path

import flax.linen as nn
import jax
import optax

from contracts.variants import VARIANTS
from reference import models, resolution
from reference.config import DEFAULT_VARIANT, ConfigError, TrainConfig, go_on
from reference.state import Saved
from reference.step import Variables, first_variables


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run begins; made before any image is read."""

    config: TrainConfig  # nothing left open but what the number of images decides
    saved: Saved | None
    pretrained: models.Pretrained | None

    @property
    def step(self) -> int:
        """How many steps are done already."""
        return self.saved.step if self.saved else 0

    def model(self, num_classes: int) -> nn.Module:
        """The network. Raises ConfigError where the run began with other classes."""
        sizes = self.pretrained.config if self.pretrained else models.variant(self.config.variant)
        if self.saved and self.pretrained and self.pretrained.num_classes != num_classes:
            before = self.pretrained.num_classes
            raise ConfigError(f"data: the run began with {before} classes, not {num_classes}")
        return models.build(sizes, num_classes, self.config.precision)

    def variables(
        self, model: nn.Module, num_classes: int, optimizer: optax.GradientTransformation
    ) -> Variables:
        """What the first step to do starts from."""
        if self.saved:
            return self.saved.variables(optimizer)
        if self.pretrained:
            params = resolution.with_new_head(self.pretrained, num_classes).params
        else:
            params = models.init(model, jax.random.key(self.config.seed), self.config.image_size)
        return first_variables(params, optimizer, self.config)


def start(config: TrainConfig, state_file: Path, *, resume: bool) -> Start:
    """Find out where to begin; raises ConfigError or CheckpointError."""
    if state_file.exists() and not resume:
        raise ConfigError(f"out: {state_file} exists; go on with --resume, or choose another --out")
    if resume and not state_file.exists():
        raise ConfigError(f"resume: there is no {state_file} to go on from")
    if resume:
        saved = Saved.load(state_file)
        return Start(go_on(config, saved.config), saved, models.from_arrays(saved.params()))
    if not config.start_from:
        return Start(_settle(config, config.variant or DEFAULT_VARIANT, 0), None, None)
    pretrained = models.read(Path(config.start_from))
    variant = models.name_of(pretrained.config)
    if config.variant not in ("", variant):
        raise ConfigError(f"variant: {config.start_from} holds {variant}, not {config.variant}")
    config = _settle(config, variant, pretrained.image_size or 0)
    return Start(config, None, resolution.at(pretrained, config.image_size))


def _settle(config: TrainConfig, variant: str, image_size: int) -> TrainConfig:
    precision = config.precision
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    image_size = config.image_size or image_size or models.native_image_size(variant)
    row = VARIANTS.get(variant)
    patch = getattr(row.sizes, "patch_size", 1) if row else 1
    if image_size % patch:
        raise ConfigError(f"image_size: {image_size} is no multiple of the patch size {patch}")
    return dataclasses.replace(config, variant=variant, image_size=image_size, precision=precision)
