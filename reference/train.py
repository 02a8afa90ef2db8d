"""Training from scratch, and fine-tuning, on all devices.

In: images (see `reference.data`) and a `TrainConfig`. Out, beside each other: `NAME.npz`, the
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

from contracts.labels import labels_text
from reference import checkpoint, data, pipeline, state
from reference.config import TrainConfig, sizes
from reference.curve import Curve
from reference.evaluate import Accuracy, evaluate
from reference.parallel import Layout
from reference.start import start
from reference.step import Variables, build_optimizer, make_count, make_step

STEPS_IN_FLIGHT = 2  # queued on the device, so that it never waits for the host


def train(
    config: TrainConfig, source: Path, out: Path, *, resume: bool, refuse_broken: bool
) -> Accuracy:
    """Run `config` to its end; returns the accuracy on the held-back training images.

    Raises ConfigError, LabelsError, data.DataError or CheckpointError before the first step, and
    KeyboardInterrupt with what to do next.
    """
    files = _Files(out)
    try:
        return _train(config, source, files, resume=resume, refuse_broken=refuse_broken)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(files.what_next()) from None


def _train(
    config: TrainConfig, source: Path, files: "_Files", *, resume: bool, refuse_broken: bool
) -> Accuracy:
    begin = start(config, files.state, resume=resume)
    layout = Layout.over(jax.devices())
    everything = _read(begin.config, source, refuse_broken, layout)
    # Once more, and for good: files that are no images are left out by now.
    validation, batch_size = sizes(begin.config, len(everything), layout.mesh.size)
    config = dataclasses.replace(begin.config, validation=validation, batch_size=batch_size)
    training, held_back = data.split_validation(everything, validation, config.seed)
    per_epoch = len(training) // batch_size
    total_steps, num_classes = per_epoch * config.epochs, len(training.classes)
    optimizer = build_optimizer(config, total_steps)
    model = begin.model(num_classes)
    variables = layout.copy(begin.variables(model, num_classes, optimizer))
    step = make_step(model, num_classes, optimizer, config, layout)
    count = make_count(model, layout)

    def measure() -> Accuracy:
        params = variables.average or variables.params
        return evaluate(count, layout, params, held_back, config.workers)

    first, done = jax.process_index() == 0, begin.step
    if first:
        files.begin(config, training.classes)
    accuracy = measure() if done == total_steps else Accuracy(0.0, 0.0, len(held_back))
    batches = pipeline.training(training, config, done, jax.process_index(), jax.process_count())
    in_flight: deque[jax.Array] = deque()
    saved_at = time.monotonic()
    with Curve(files.log if first else None, done, total_steps, batch_size) as curve:
        for images, labels in curve.count_wait(batches):
            variables, loss = step(variables, done, layout.divide(images), layout.divide(labels))
            done += 1
            in_flight.append(loss)
            if len(in_flight) > STEPS_IN_FLIGHT:
                in_flight.popleft().block_until_ready()
            ended = done % per_epoch == 0
            # The curve comes first: a run that is killed between the two goes over the step again,
            # and writes its row anew; else it would have never written it.
            if ended:
                accuracy = measure()
                curve.epoch(done, loss, done // per_epoch, accuracy.top1)
            else:
                curve.step(done, loss)
            if first and (ended or time.monotonic() - saved_at > 60 * config.save_minutes):
                files.save(done, variables, config)
                saved_at = time.monotonic()
    return accuracy


def _read(config: TrainConfig, source: Path, refuse_broken: bool, layout: Layout) -> data.Dataset:
    return data.load(
        source,
        "train",
        config.image_size,
        refuse_broken=refuse_broken,
        memory_gib=config.memory_gib,
        as_files=config.min_crop_area < 1,  # which is cut out of the whole image
        workers=config.workers,
        listed=lambda files: sizes(config, files, layout.mesh.size),
    )


class _Files:
    """What a run writes, and where; for its first process only."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.state = out.with_suffix(".state.npz")
        self.log = out.with_suffix(".log.jsonl")

    def begin(self, config: TrainConfig, classes: tuple[str, ...]) -> None:
        labels = labels_text(classes)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        for file in (self.out, self.state, self.log):
            checkpoint.remove_temporaries(file)
        text = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
        checkpoint.write_text(self.out.with_suffix(".json"), text)
        checkpoint.write_text(self.out.with_suffix(".labels.txt"), labels)

    def what_next(self) -> str:
        """What to do after a stop."""
        if self.state.exists():
            return "the last checkpoint is whole: go on with --resume"
        return "nothing had been saved yet: start again, without --resume"

    def save(self, done: int, variables: Variables, config: TrainConfig) -> None:
        # The state comes first: it alone decides where a resumed run goes on.
        state.save(self.state, done, variables, config)
        params = checkpoint.flatten(variables.average or variables.params)
        checkpoint.write_arrays(self.out, params)
