"""All that a training run must remember to go on: written atomically, read back bit for bit.

In and out: `NAME.state.npz` with the parameters, the optimiser's arrays, the step and the
configuration.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from reference import checkpoint
from reference.config import ConfigError, TrainConfig


@dataclasses.dataclass
class State:
    """What a run must remember to go on."""

    step: int
    params: optax.Params
    optimizer: optax.OptState

    def save(self, path: Path, config: TrainConfig) -> None:
        """Write the state atomically."""
        arrays = {f"params/{k}": v for k, v in checkpoint.flatten(self.params).items()}
        for index, leaf in enumerate(jax.tree.leaves(self.optimizer)):
            arrays[f"optimizer/{index}"] = np.asarray(leaf)
        arrays["step"] = np.asarray(self.step)
        arrays["config"] = np.asarray(json.dumps(dataclasses.asdict(config)))
        checkpoint.write_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path, config: TrainConfig, optimizer: optax.OptState) -> "State":
        """Read a state; `optimizer` gives the structure. Raises CheckpointError, ConfigError."""
        arrays = checkpoint.read_arrays(path)
        leaves, structure = jax.tree.flatten(optimizer)
        wanted = {"step", "config", *(f"optimizer/{i}" for i in range(len(leaves)))}
        if missing := wanted - arrays.keys():
            raise checkpoint.CheckpointError(
                f"{path}: expected a training state, found no {min(missing)}"
            )
        before = json.loads(str(arrays["config"]))
        for field, value in dataclasses.asdict(config).items():
            if before.get(field) != value:
                raise ConfigError(
                    f"{field}: this run was started with {before.get(field)!r}, not {value!r}; "
                    "resume with the same configuration, or start anew with another --out"
                )
        params = checkpoint.unflatten(
            {k.removeprefix("params/"): v for k, v in arrays.items() if k.startswith("params/")}
        )
        restored = [jnp.asarray(arrays[f"optimizer/{i}"]) for i in range(len(leaves))]
        return cls(
            step=int(arrays["step"]),
            params=jax.tree.map(jnp.asarray, params),
            optimizer=jax.tree.unflatten(structure, restored),
        )
