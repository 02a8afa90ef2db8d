"""The TPU's own compiler, on a machine without a TPU.

In: the name of a slice, as `v5e:16x16`, and a function to compile for it. Out: the compiler's
statements: memory per device, collectives, operations, time. A program that does not fit, or cannot
be compiled, fails here as it would on the TPU. The package libtpu is needed (requirements/tpu.txt).
No program is run.
"""

import dataclasses
import importlib.util
import os
import re
import time
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.stages import Lowered

from reference import models
from reference.config import TrainConfig
from reference.forward import NUM_CLASSES, Forward
from reference.optimizer import build_optimizer
from reference.parallel import Layout
from reference.step import Now, first_variables, make_step

EXAMPLES = "v3:2x2, v4:2x2x1, v5e:2x2, v5e:16x16, v5p:2x2x1, v6e:4x4"
_COLLECTIVE = re.compile(
    r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
# libtpu tries to detect the TPU machine that it runs on; these variables say that there is none.
_NO_MACHINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # libtpu's lock file prevents two processes from using one TPU; compiling alone uses no TPU.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class TopologyError(ValueError):
    """There is no such slice, or no compiler for it; the message says what is available."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The compiler's statements about one program on one slice."""

    topology: str
    devices: int  # v3: two per chip
    model: str
    image_size: int
    kind: str  # forward or train
    batch_size: int  # images per device
    precision: str
    compile_seconds: float
    error: str | None = None  # why it cannot be compiled, in the compiler's words
    memory_bytes: int | None = None  # per device: arguments, results and temporaries
    flops: float | None = None  # per device and step
    # None if the compiler cannot print its own program: libtpu 0.0.52 fails for some on v6e.
    collectives: dict[str, int] | None = dataclasses.field(default_factory=dict)
    # The time in the compiler's model, which is no measurement; only v3 has a model, else None.
    optimal_seconds: float | None = None

    def same_program(self, other: "Compiled") -> bool:
        """Whether both describe the same program."""
        fields = ("topology", "model", "image_size", "kind", "batch_size", "precision")
        return all(getattr(self, field) == getattr(other, field) for field in fields)

    @property
    def optimum(self) -> float | None:
        """Images per second and device in the compiler's model."""
        return self.batch_size / self.optimal_seconds if self.optimal_seconds else None


def slice_layout(topology: str) -> Layout:
    """All devices of a slice that this machine does not have; raises TopologyError."""
    if importlib.util.find_spec("libtpu") is None:
        raise TopologyError(
            "the TPU compiler is not installed: "
            "pip install -r requirements/tpu.txt -c requirements/constraints.txt"
        )
    for name, value in _NO_MACHINE.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")  # accelerators of this machine stay free
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TopologyError(f"topology {topology}: {reason}; there are {EXAMPLES} …") from None
    return Layout.over(list(found.devices))


def compile_for(
    layout: Layout, topology: str, network: Forward, kind: str, batch_size: int
) -> Compiled:
    """Compile the forward pass or the training step for `batch_size` images per device."""
    begin = time.perf_counter()
    devices = layout.mesh.size
    about = Compiled(
        topology,
        devices,
        network.variant,
        network.image_size,
        kind,
        batch_size,
        network.precision,
        0.0,
    )
    lower = _forward if kind == "forward" else _train
    try:
        compiled = lower(layout, network, batch_size * devices).compile()
    except jax.errors.JaxRuntimeError as error:
        reason = next(line for line in str(error).splitlines() if line.strip())
        seconds = round(time.perf_counter() - begin, 1)
        return dataclasses.replace(about, compile_seconds=seconds, error=reason)
    # Optional in JAX's types, since not every backend has these figures; the TPU's has them.
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    optimal = cost.get("optimal_seconds", -1.0)
    return dataclasses.replace(
        about,
        compile_seconds=round(time.perf_counter() - begin, 1),
        memory_bytes=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
        flops=cost["flops"],
        collectives=_collectives(compiled),
        # On other TPUs than v3 parts of the sum are negative, and often the sum itself is.
        optimal_seconds=optimal if optimal > 0 and topology.startswith("v3") else None,
    )


def _collectives(compiled: jax.stages.Compiled) -> dict[str, int] | None:
    try:
        return dict(Counter(_COLLECTIVE.findall(compiled.as_text() or "")))
    except jax.errors.JaxRuntimeError:
        return None


def _forward(layout: Layout, network: Forward, images: int) -> Lowered:
    return network.jit(layout).lower(network.shapes(), network.images(images))


def _train(layout: Layout, network: Forward, images: int) -> Lowered:
    config = TrainConfig(
        variant=network.variant,
        image_size=network.image_size,
        batch_size=images,
        precision="float32" if network.precision == "float32" else "bfloat16",
    )
    model = models.build(network.sizes, NUM_CLASSES, network.precision)
    optimizer = build_optimizer(config)
    variables = jax.eval_shape(lambda p: first_variables(p, optimizer, config), network.shapes())
    step = make_step(model, NUM_CLASSES, optimizer, config, layout)
    number, rate = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
    labels = jax.ShapeDtypeStruct((images,), jnp.int32)
    return step.lower(variables, Now(number, number, rate), network.images(images), labels, {})
