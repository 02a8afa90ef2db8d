"""Training from scratch, and fine-tuning, on all devices.

In: images (see `reference.data`) and a `TrainConfig`. Out, in one folder: `NAME.npz`, the
parameters in the published format, either the best on the held-back images or the last;
`NAME.checkpoints`, the state for a resumed run; `NAME.json`, the configuration; `NAME.log.jsonl`,
the loss curve; `NAME.labels.txt`, the classes. The randomness of a step depends on its number and
the seed alone, so a run that was stopped and resumed ends with the same parameters.
"""

import dataclasses
import json
import logging
import signal
import time
from collections import deque
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from contracts.labels import labels_text
from contracts.resizing import ResizeRule
from reference import checkpoint, data, pipeline, state
from reference import teacher as teachers
from reference.checkpoint import write_arrays
from reference.config import ConfigError, TrainConfig
from reference.curve import Curve
from reference.evaluate import Accuracy, evaluate
from reference.optimizer import build_optimizer
from reference.parallel import Layout
from reference.recipes import by_hyperrule
from reference.schedule import learning_rates
from reference.settle import sizes
from reference.start import Start, start
from reference.state import NOT_MEASURED, Record, States
from reference.step import Measured, Now, make_count, make_step
from reference.stopping import Stopped, Stopping
from reference.tracing import Tracing

_log = logging.getLogger(__name__)

STEPS_IN_FLIGHT = 2  # queued on the device, so that it never waits for the host
STEPS_PER_CLOCK = 20  # with several processes, all use the first one's clock every so many steps


def train(
    config: TrainConfig,
    source: Path | data.Dataset,
    out: Path,
    *,
    resume: bool = False,
    refuse_broken: bool = False,
    profile: bool = False,
) -> Accuracy:
    """Run `config` to its end; returns the accuracy of what was written, on held-back images.

    `source` is the path of the images, or the images themselves at the image size. Raises
    ConfigError, LabelsError, data.DataError or CheckpointError before the first step. Raises
    Stopped when a signal ended the run, or KeyboardInterrupt at the second signal; the message says
    what to do next.
    """
    files = _Files(out)
    if not resume and state.exists(files.states):
        raise ConfigError(
            f"out: {files.states} exists; go on with --resume, or choose another --out"
        )
    if resume and not state.exists(files.states):
        raise ConfigError(f"resume: there is no {files.states} to go on from")
    try:
        return _prepare(config, source, files, resume, refuse_broken).run(profile=profile)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(files.what_next()) from None


def _prepare(
    config: TrainConfig,
    source: Path | data.Dataset,
    files: "_Files",
    resume: bool,
    refuse_broken: bool,
) -> "_Run":
    saved = States(files.states) if resume else None
    if config.hyperrule:
        config = by_hyperrule(config, *data.survey(source, "train"))
    begin = start(config, saved)
    layout = Layout.over(jax.devices())
    everything = _read(begin.config, source, refuse_broken, layout)
    # Computed a second time with the final number: files that are no images are left out by now.
    validation, batch_size = sizes(begin.config, len(everything), layout.mesh.size)
    config = dataclasses.replace(begin.config, validation=validation, batch_size=batch_size)
    training, held_back = data.split_validation(everything, validation, config.seed)
    training = data.share_of(training, config.train_share, config.seed)
    held_back = data.measured_by(held_back, evaluation_rule(config))
    return _Run(config, begin, layout, files, (training, held_back))


def _read(
    config: TrainConfig, source: Path | data.Dataset, refuse_broken: bool, layout: Layout
) -> data.Dataset:
    if not isinstance(source, Path):
        return source
    return data.load(
        source,
        "train",
        config.image_size,
        refuse_broken=refuse_broken,
        memory_gib=config.memory_gib,
        # Random crops need the whole image, and with several processes each reads only its share.
        as_files=config.min_crop_area < 1
        or config.resize > 0
        or jax.process_count() > 1
        or evaluation_rule(config) != ResizeRule(config.image_size, config.image_size),
        workers=config.workers,
        listed=lambda files: sizes(config, files, layout.mesh.size),
        every_class=True,
    )


def evaluation_rule(config: TrainConfig) -> ResizeRule:
    """How images are resized where accuracy is measured."""
    side = config.image_size
    return ResizeRule(
        side, side, resize=config.eval_resize, crop_fraction=config.eval_crop_fraction
    )


class _Run:
    """A run whose configuration is complete."""

    def __init__(
        self,
        config: TrainConfig,
        begin: Start,
        layout: Layout,
        files: "_Files",
        parts: tuple[data.Dataset, data.Dataset],
    ) -> None:
        self.config, self.layout, self.files = config, layout, files
        self.training, self.held_back = parts
        num_classes = len(self.training.classes)
        self.per_epoch = len(self.training) // config.batch_size
        self.rates = learning_rates(config, self.per_epoch)
        self.steps, self.done = len(self.rates), begin.step
        optimizer = build_optimizer(config)
        model = begin.model(num_classes)
        self.variables = begin.variables(model, num_classes, optimizer, layout)
        teacher = None
        if config.teacher:
            teacher = teachers.read(Path(config.teacher), num_classes, config.precision)
        self.teacher_params = layout.copy(teacher.params) if teacher else {}
        self.step = make_step(model, num_classes, optimizer, config, layout, teacher=teacher)
        self.count = make_count(model, layout)
        shapes = {
            key: leaf.shape for key, leaf in checkpoint.flatten_tree(self.variables.params).items()
        }
        self.record = begin.record or Record({}, shapes)
        self.record = dataclasses.replace(self.record, config=dataclasses.asdict(config))
        self.is_first = jax.process_index() == 0
        if self.is_first:
            files.begin(config, self.training.classes)
        multihost_utils.sync_global_devices("the folder is there")
        self.states = begin.states or States(files.states)

    def run(self, *, profile: bool = False) -> Accuracy:
        """Do the remaining steps; returns the accuracy of the parameters that are written."""
        first, processes = jax.process_index(), jax.process_count()
        batches = pipeline.training(self.training, self.config, self.done, first, processes)
        in_flight: deque[Measured] = deque()
        saved_at = time.monotonic()
        log = self.files.log if self.is_first else None
        curve = Curve(log, self.done, self.steps, self.config.batch_size)
        tracing = Tracing(self.files.profile if profile and self.is_first else None, self.done)
        with Stopping() as stopping, curve, tracing:
            for images, labels in curve.count_wait(batches):
                tracing.before(self.done)
                measured = self._step(images, labels)
                in_flight.append(measured)
                if len(in_flight) > STEPS_IN_FLIGHT:
                    jax.block_until_ready(in_flight.popleft())
                rate = float(self.rates[self.done - 1])
                # The curve is written before the state is saved. A run that is killed in between
                # repeats the step and writes its row again. In the opposite order the row would be
                # missing.
                if self._is_measured():
                    top1 = self._measure()
                    curve.epoch(self.done, measured, rate, self.done / self.per_epoch, top1)
                    self._save(top1)
                    saved_at = time.monotonic()
                else:
                    curve.step(self.done, measured, rate)
                    if self._is_due(time.monotonic() - saved_at):
                        self._save(NOT_MEASURED)
                        saved_at = time.monotonic()
                if stopping.number or self.states.preempted(self.done):
                    self._stop(stopping.number or signal.SIGTERM)
        self.states.close()
        for dataset in (self.training, self.held_back):
            if isinstance(dataset, data.Files) and processes > 1:
                part = "training" if dataset is self.training else "held-back"
                what = f"{dataset.decoded.count} {part} images"
                _log.info("process %d of %d decoded %s", first, processes, what)
        return Accuracy(self.record.best_top1, self.record.best_top5, len(self.held_back))

    def _step(self, images: pipeline.Images, labels: pipeline.Labels) -> Measured:
        both = self.layout.divide(images), self.layout.divide(labels)
        now = Now(np.int32(self.done), np.uint32(self.config.seed), self.rates[self.done])
        measured: Measured
        self.variables, measured = self.step(self.variables, now, *both, self.teacher_params)
        self.done += 1
        return measured

    def _is_measured(self) -> bool:
        return (
            self.done % (self.config.eval_steps or self.per_epoch) == 0 or self.done == self.steps
        )

    def _is_due(self, seconds: float) -> bool:
        """Whether it is time to save; all processes must get the same answer."""
        due = seconds > 60 * self.config.save_minutes
        if jax.process_count() == 1:
            return due
        if self.done % STEPS_PER_CLOCK:
            return False
        return bool(multihost_utils.broadcast_one_to_all(np.asarray(due)))

    def _measure(self) -> float:
        """Measure accuracy on the held-back images; write `NAME.npz` if it is the one to keep."""
        params = self.variables.average or self.variables.params
        found = evaluate(self.count, self.layout, params, self.held_back, self.config.workers)
        if self.config.keep == "last" or found.top1 >= self.record.best_top1:
            self.record = dataclasses.replace(
                self.record, best_step=self.done, best_top1=found.top1, best_top5=found.top5
            )
            self._write()
        return found.top1

    def _save(self, top1: float) -> None:
        if not self.record.best_step:  # so that NAME.npz exists before the first measurement
            self._write()
        self.states.save(self.done, self.variables, self.record, top1)

    def _write(self) -> None:
        if self.is_first:
            params = checkpoint.flatten(self.variables.average or self.variables.params)
            write_arrays(self.files.out, params)

    def _stop(self, number: int) -> None:
        """Save the state if it is not saved yet, and end the run."""
        if self.states.step != self.done:
            self._save(NOT_MEASURED)
        self.states.close()
        text = f"stopped after step {self.done}, which is saved: go on with --resume"
        raise Stopped(text, number)


class _Files:
    """The files that a run writes; only its first process writes them."""

    def __init__(self, out: Path) -> None:
        out = checkpoint.npz_name(out)
        self.out = out
        self.states = out.with_suffix(".checkpoints")
        self.log = out.with_suffix(".log.jsonl")
        self.profile = out.with_suffix(".profile")

    def begin(self, config: TrainConfig, classes: tuple[str, ...]) -> None:
        labels = labels_text(classes)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        for file in (self.out, self.log):
            checkpoint.remove_temporaries(file)
        text = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
        checkpoint.write_text(self.out.with_suffix(".json"), text)
        checkpoint.write_text(self.out.with_suffix(".labels.txt"), labels)

    def what_next(self) -> str:
        """The advice to the user after an immediate stop."""
        if state.exists(self.states):
            return "the last checkpoint is whole: go on with --resume"
        return "nothing had been saved yet: start again, without --resume"
