"""Data parallelism over every device that JAX sees, in this process and in the others of the run.

Each device has all parameters, and batches are divided among the devices; the compiler adds the
all-reduce of the gradients. In: arrays of this process. Out: arrays with a sharding over all
devices.
"""

import dataclasses
from typing import Any, TypeVar

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"
Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where values lie on a set of devices."""

    mesh: Mesh

    @classmethod
    def over(cls, devices: list[Any]) -> "Layout":
        """All these devices in one row."""
        return cls(Mesh(np.array(devices), (AXIS,)))

    @property
    def whole(self) -> NamedSharding:
        """A copy on each device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def divided(self) -> NamedSharding:
        """The first axis divided among the devices."""
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def copy(self, tree: Tree) -> Tree:
        """Put a tree of arrays, equal in every process, on every device."""

        def put(value: npt.ArrayLike) -> jax.Array:
            return self._make(self.whole, np.asarray(value))

        copied: Tree = jax.tree.map(put, tree)
        return copied

    def divide(self, share: npt.NDArray[Any]) -> jax.Array:
        """Make one array from the processes' shares of its rows."""
        return self._make(self.divided, share)

    @staticmethod
    def _make(sharding: NamedSharding, value: npt.NDArray[Any]) -> jax.Array:
        array: jax.Array = jax.make_array_from_process_local_data(sharding, value)
        return array


def join(coordinator: str, processes: int, process: int) -> None:
    """Make this process one of several that train together.

    On Cloud TPU and under Slurm the settings are detected; elsewhere the arguments state them.
    """
    if coordinator:
        jax.distributed.initialize(coordinator, processes, process)
    else:
        jax.distributed.initialize()
