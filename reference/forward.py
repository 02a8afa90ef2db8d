"""The forward pass in the form in which it is timed, and compiled for other machines.

In: a variant, an image size, a precision and a set of devices. Out: a jitted function, the shapes
of its inputs, and its floating point operations. The function takes uint8 pixels and returns
probabilities, as in serving.
"""

import dataclasses
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.stages import Wrapped

from contracts.variants import MixerSizes, Sizes
from reference import models
from reference.augment import normalise
from reference.parallel import Layout

NUM_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Forward:
    """A network of the table of variants at an image size, with 1,000 classes."""

    variant: str
    image_size: int
    precision: str

    @property
    def sizes(self) -> Sizes:
        """The variant's sizes, with token MLPs as wide as after enlarging it to `image_size`."""
        sizes = models.variant(self.variant)
        if isinstance(sizes, MixerSizes):
            tiles = (self.image_size // models.native_image_size(self.variant)) ** 2
            return dataclasses.replace(sizes, tokens_mlp_dim=sizes.tokens_mlp_dim * max(tiles, 1))
        return sizes

    def shapes(self) -> optax.Params:
        """The parameters, as shapes."""
        return models.shapes(models.build(self.sizes, NUM_CLASSES), self.image_size)

    def parameters(self) -> int:
        """How many numbers the network has."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.shapes()))

    def images(self, batch_size: int) -> jax.ShapeDtypeStruct:
        """A batch, as a shape."""
        return jax.ShapeDtypeStruct((batch_size, self.image_size, self.image_size, 3), jnp.uint8)

    def jit(self, layout: Layout) -> Wrapped:
        """(params, uint8 images [N, H, W, 3]) → float32 probabilities [N, 1000]."""
        model = models.build(self.sizes, NUM_CLASSES, self.precision)

        def forward(params: optax.Params, images: jax.Array) -> jax.Array:
            return jax.nn.softmax(models.apply(model, params, normalise(images)))

        places = (layout.whole, layout.divided)
        return jax.jit(forward, in_shardings=places, out_shardings=layout.divided)

    def flops(self) -> float:
        """Floating point operations for one image, as XLA counts them; multiply and add are two."""
        model = models.build(self.sizes, NUM_CLASSES)
        return count_flops(model, self.shapes(), self.image_size)


def count_flops(model: nn.Module, params: optax.Params, image_size: int) -> float:
    """Floating point operations for one image, as XLA counts them; multiply and add are two."""

    def forward(params: optax.Params, images: jax.Array) -> jax.Array:
        return models.apply(model, params, normalise(images))

    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.uint8)
    lowered = jax.jit(forward).lower(params, image)
    return float(cast("dict[str, float]", lowered.cost_analysis())["flops"])
