"""All that a training run must remember to go on: written atomically, read back bit for bit.

In and out: `NAME.state.npz` with the parameters, their moving average, the optimiser's arrays, the
step and the configuration.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from contracts.published import CheckpointError
from reference import checkpoint
from reference.checkpoint import Arrays
from reference.config import TrainConfig
from reference.step import Variables


def save(path: Path, step: int, variables: Variables, config: TrainConfig) -> None:
    """Write the state after `step` steps atomically."""
    arrays = {f"params/{k}": v for k, v in checkpoint.flatten(variables.params).items()}
    arrays |= {f"average/{k}": v for k, v in checkpoint.flatten(variables.average).items()}
    for index, leaf in enumerate(jax.tree.leaves(variables.optimizer)):
        arrays[f"optimizer/{index}"] = np.asarray(leaf)
    arrays["step"] = np.asarray(step)
    arrays["config"] = np.asarray(json.dumps(dataclasses.asdict(config)))
    checkpoint.write_arrays(path, arrays)


@dataclasses.dataclass(frozen=True)
class Saved:
    """A state that was read; its optimiser's arrays have no structure yet."""

    path: Path
    arrays: Arrays

    @classmethod
    def load(cls, path: Path) -> "Saved":
        """Read a state; raises CheckpointError."""
        arrays = checkpoint.read_arrays(path)
        for key in ("step", "config"):
            if key not in arrays:
                raise CheckpointError(f"{path}: expected a training state, found no {key}")
        return cls(path, arrays)

    @property
    def step(self) -> int:
        """How many steps were done."""
        return int(self.arrays["step"])

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run so far."""
        config: dict[str, Any] = json.loads(str(self.arrays["config"]))
        return config

    def params(self, scope: str = "params/") -> Arrays:
        """The parameters, or with `average/` their moving average."""
        return {k.removeprefix(scope): v for k, v in self.arrays.items() if k.startswith(scope)}

    def variables(self, optimizer: optax.GradientTransformation) -> Variables:
        """Everything that a step changes, as it was; raises CheckpointError."""
        params = checkpoint.unflatten(self.params())
        leaves, structure = jax.tree.flatten(jax.eval_shape(optimizer.init, params))
        names = [f"optimizer/{index}" for index in range(len(leaves))]
        if missing := [name for name in names if name not in self.arrays]:
            raise CheckpointError(f"{self.path}: expected a training state, found no {missing[0]}")
        restored = jax.tree.unflatten(structure, [self.arrays[name] for name in names])
        return Variables(params, restored, checkpoint.unflatten(self.params("average/")))
