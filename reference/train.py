"""Training from scratch, and fine-tuning, on all devices.

In: pictures (see `reference.data`) and a `TrainConfig`. Out, beside each other: `NAME.npz`, the
parameters in the published format; `NAME.state.npz`, all that is needed to go on; `NAME.json`, the
configuration; `NAME.log.jsonl`, the loss curve; `NAME.labels.txt`, the classes. Every step depends
on its number and the seed alone, so a run that was stopped and resumed ends in the same parameters.
"""

import dataclasses
import json
import time
from collections import deque
from pathlib import Path

import jax

from reference import checkpoint, data, pipeline, state
from reference.config import ConfigError, TrainConfig
from reference.curve import Curve
from reference.evaluate import evaluate
from reference.parallel import Layout
from reference.start import start
from reference.step import Variables, build_optimizer, make_count, make_step

STEPS_IN_FLIGHT = 2  # queued on the device, so that it never waits for the host


def train(
    config: TrainConfig, source: Path, out: Path, *, resume: bool, refuse_broken: bool
) -> float:
    """Run `config` to its end; returns the accuracy on the held-back training pictures.

    Raises ConfigError, data.DataError or checkpoint.CheckpointError before the first step.
    """
    files = _Files(out)
    begin = start(config, files.state, resume=resume)
    config = begin.config
    layout = Layout.over(jax.devices())
    if config.batch_size % layout.mesh.size:
        raise ConfigError(
            f"batch_size: {config.batch_size} cannot be divided among {layout.mesh.size} devices"
        )
    training, held_back = _read(config, source, refuse_broken)
    per_epoch = len(training) // config.batch_size
    if per_epoch == 0:
        raise ConfigError(f"batch_size: {config.batch_size} is more than {len(training)} pictures")
    total_steps, num_classes = per_epoch * config.epochs, len(training.classes)
    optimizer = build_optimizer(config, total_steps)
    model = begin.model(num_classes)
    variables = layout.copy(begin.variables(model, num_classes, optimizer))
    step = make_step(model, num_classes, optimizer, config, layout)
    count = make_count(model, layout)

    def measure() -> float:
        params = variables.average or variables.params
        return evaluate(count, layout, params, held_back, config.workers).top1

    first, done = jax.process_index() == 0, begin.step
    if first:
        files.begin(config, training.classes)
    accuracy = measure() if done == total_steps else 0.0
    batches = pipeline.training(training, config, done, jax.process_index(), jax.process_count())
    in_flight: deque[jax.Array] = deque()
    saved_at = time.monotonic()
    with Curve(files.log if first else None, done, total_steps, config.batch_size) as curve:
        for images, labels in curve.count_wait(batches):
            variables, loss = step(variables, done, layout.divide(images), layout.divide(labels))
            done += 1
            in_flight.append(loss)
            if len(in_flight) > STEPS_IN_FLIGHT:
                in_flight.popleft().block_until_ready()
            ended = done % per_epoch == 0
            # The curve comes first: a run that is killed between the two writes a row twice, or
            # else it would have never written it.
            if ended:
                accuracy = measure()
                curve.epoch(done, loss, done // per_epoch, accuracy)
            else:
                curve.step(done, loss)
            if first and (ended or time.monotonic() - saved_at > 60 * config.save_minutes):
                files.save(done, variables, config)
                saved_at = time.monotonic()
    return accuracy


def _read(
    config: TrainConfig, source: Path, refuse_broken: bool
) -> tuple[data.Dataset, data.Dataset]:
    everything = data.load(
        source,
        "train",
        config.image_size,
        refuse_broken=refuse_broken,
        memory_gib=config.memory_gib,
        as_files=config.min_crop_area < 1,  # which is cut out of the whole picture
        workers=config.workers,
    )
    return data.split_validation(everything, config.validation, config.seed)


class _Files:
    """What a run writes, and where; for its first process only."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.state = out.with_suffix(".state.npz")
        self.log = out.with_suffix(".log.jsonl")

    def begin(self, config: TrainConfig, classes: tuple[str, ...]) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        for file in (self.out, self.state):
            checkpoint.remove_temporaries(file)
        text = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
        checkpoint.write_text(self.out.with_suffix(".json"), text)
        checkpoint.write_text(self.out.with_suffix(".labels.txt"), "\n".join(classes) + "\n")

    def save(self, done: int, variables: Variables, config: TrainConfig) -> None:
        # The state comes first: it alone decides where a resumed run goes on.
        state.save(self.state, done, variables, config)
        params = checkpoint.flatten(variables.average or variables.params)
        checkpoint.write_arrays(self.out, params)
