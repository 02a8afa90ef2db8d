"""The state of a training run that is needed to resume it: written by Orbax, restored bit for bit.

In and out: the folder `NAME.checkpoints` with one folder for each kept step: the step saved last,
and the best step on the held-back images. Each folder has the parameters, their moving average and
the optimiser's arrays, all under their names, and a record: the configuration, the accuracy so far.
A save is written in the background during the next steps, under another name until it is complete.
"""

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from contracts.published import CheckpointError, Contents, read_contents
from reference import checkpoint
from reference.parallel import Layout
from reference.step import Variables

NOT_MEASURED = -1.0  # the accuracy of a save between two measurements, so that it is never the best


@dataclasses.dataclass(frozen=True)
class Record:
    """The facts that are saved beside the arrays."""

    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]  # of the parameters
    best_step: int = 0  # 0: accuracy was not measured yet
    best_top1: float = NOT_MEASURED
    best_top5: float = NOT_MEASURED

    def contents(self) -> Contents:
        """The network, read off the shapes."""
        return read_contents(self.shapes)


def exists(folder: Path) -> bool:
    """Whether the folder has a saved state."""
    return folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())


class States:
    """The saved states of one run; all processes of the run must make the same calls."""

    def __init__(self, folder: Path) -> None:
        # Orbax logs several lines for every save.
        logging.getLogger("absl").setLevel(logging.WARNING)
        policy = AnyPreservationPolicy([LatestN(1), BestN(get_metric_fn=_accuracy, n=1)])
        options = ocp.CheckpointManagerOptions(
            enable_async_checkpointing=True, preservation_policy=policy
        )
        self.folder = folder
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    @property
    def step(self) -> int:
        """The step that was saved last; 0 if no step was saved."""
        return self._manager.latest_step() or 0

    def record(self) -> Record:
        """The record that was saved last, without the arrays; raises CheckpointError."""
        wanted = ocp.args.Composite(record=ocp.args.JsonRestore())
        with self._readable():
            found = self._manager.restore(self.step, args=wanted)["record"]
            found["shapes"] = {key: tuple(shape) for key, shape in found["shapes"].items()}
            return Record(**found)

    def restore(
        self, optimizer: optax.GradientTransformation, record: Record, layout: Layout
    ) -> Variables:
        """The variables that were saved last, on every device of the layout."""

        def first() -> dict[str, Any]:
            params = checkpoint.unflatten({k: jnp.zeros(v) for k, v in record.shapes.items()})
            average = params if record.config["ema_decay"] else {}
            return {"params": params, "optimizer": optimizer.init(params), "average": average}

        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout.whole),
            jax.eval_shape(first),
        )
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
        with self._readable():
            return Variables(**self._manager.restore(self.step, args=arguments)["state"])

    def save(self, step: int, variables: Variables, record: Record, top1: float) -> None:
        """Begin to save; the arrays may change when this method has returned."""
        tree = variables._asdict()
        if jax.default_backend() == "cpu":
            # On a CPU, Orbax's "copies to the host" are the arrays themselves, which the next step
            # overwrites.
            tree = jax.tree.map(jnp.copy, tree)
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(dataclasses.asdict(record))
        )
        self._manager.save(step, args=arguments, metrics={"accuracy": top1}, force=True)

    def preempted(self, step: int) -> bool:
        """Whether a machine of the run will be preempted; every process gets the same answer."""
        return bool(self._manager.reached_preemption(step))

    def close(self) -> None:
        """Wait until the last save is complete."""
        self._manager.wait_until_finished()
        self._manager.close()

    @contextlib.contextmanager
    def _readable(self) -> Any:  # noqa: ANN401  an iterator, which contextmanager hides
        try:
            yield
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise CheckpointError(
                f"{self.folder}: expected the state of a training run at step {self.step}, "
                f"found {reason}"
            ) from error


def _accuracy(metrics: dict[str, float] | None) -> float:
    return (metrics or {}).get("accuracy", NOT_MEASURED)
