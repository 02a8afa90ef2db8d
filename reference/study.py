"""The runs of a comparison: three families by one recipe, on more and on less data.

In: CIFAR-10 (a folder or its archive) and a `Plan`. Out: a folder with one training run for each
family, share of the training images and seed, and `study.json` with the results of each run:
accuracy on training images and on the test images, cost, answers. No choice depends on the test
images. The learning rate of a family is the best one of a few short runs, measured on held-back
training images. The same command continues a stopped study.
"""

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from reference import checkpoint, data, models, state
from reference.config import ConfigError, TrainConfig
from reference.evaluate import answers
from reference.forward import count_flops
from reference.parallel import Layout
from reference.state import States
from reference.train import train

FAMILIES = ("mixer", "vit", "bit")
SEEN = 2000  # training images on which a finished network is also measured

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a study compares. What changes results is kept with them, and may not change."""

    size: str = "nano"
    """Which variants: those whose names end so."""
    steps: int = 1500
    """Of every run, however many images it has: all cost the same."""
    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    """Of the training images."""
    seeds: int = 2
    """How often each run is repeated. May grow."""
    learning_rates: tuple[float, ...] = (0.0025, 0.005, 0.01)
    """Those that are tried."""
    tuning_steps: int = 300
    """Of the short runs that choose among them."""
    augment: bool = False
    """RandAugment and CutMix, for long runs; else flips and shifts alone."""

    def config(self, family: str, rate: float, share: float, seed: int) -> TrainConfig:
        """One run's configuration."""
        return TrainConfig(
            variant=f"{family}_{self.size}",
            steps=self.steps,
            warmup_steps=self.steps // 20,
            optimizer="muon",
            learning_rate=rate,
            batch_size=128,
            validation=2000,
            eval_steps=max(1, self.steps // 5),
            train_share=share,
            seed=seed,
            randaugment_layers=int(self.augment),
            cutmix=0.5 * self.augment,
        )


class Study:
    """A folder of runs."""

    def __init__(self, plan: Plan, source: Path, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.file = folder / "study.json"
        self.found: dict[str, Any] = {"plan": dataclasses.asdict(plan), "tuning": {}, "runs": []}
        if self.file.exists():
            self.found = json.loads(self.file.read_text())
            self._check()
        size = models.native_image_size(f"{FAMILIES[0]}_{plan.size}")
        self.training = data.load(source, "train", size, every_class=True)
        self.test = data.load(source, "test", size)

    def _check(self) -> None:
        """Raises ConfigError if the folder has another study."""
        plan = json.loads(json.dumps(dataclasses.asdict(self.plan)))
        for field, before in self.found["plan"].items():
            if plan[field] != before and not (field == "seeds" and plan[field] > before):
                raise ConfigError(
                    f"{field}: the study in {self.folder} has {before!r}, not {plan[field]!r}; "
                    "choose another --out"
                )
        self.found["plan"] = plan

    def run(self) -> None:
        """Do all runs that are not done yet."""
        folder = self.folder / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
        for family in FAMILIES:
            self._tune(family)
        # The smallest and the largest share come first, and one seed after the other, so that early
        # results are useful.
        shares = sorted(self.plan.shares, key=lambda share: -abs(share - 0.5))
        for seed in range(self.plan.seeds):
            for share in shares:
                for family in FAMILIES:
                    self._measure(family, share, seed)

    def _tune(self, family: str) -> None:
        plan = dataclasses.replace(self.plan, steps=self.plan.tuning_steps)
        tried = self.found["tuning"].setdefault(family, {})
        for rate in self.plan.learning_rates:
            if str(rate) not in tried:
                # No run of the comparison has this seed.
                config = plan.config(family, rate, 1.0, seed=1000)
                tried[str(rate)] = self._train(config, f"tuning_{family}_{rate}")[0]
                self._write()

    def rate(self, family: str) -> float:
        """The learning rate that was best on held-back images."""
        tried = self.found["tuning"][family]
        return float(max(tried, key=lambda rate: tried[rate]))

    def _measure(self, family: str, share: float, seed: int) -> None:
        name = f"{family}_{round(100 * share):03d}_{seed}"
        if any(run["name"] == name for run in self.found["runs"]):
            return
        config = self.plan.config(family, self.rate(family), share, seed)
        validation, seconds = self._train(config, name)
        pretrained = models.read(self.folder / f"{name}.npz")
        layout = Layout.over(jax.devices())
        model = models.build(pretrained.config, pretrained.num_classes)
        params = layout.copy(pretrained.params)

        def predictions(dataset: data.Dataset) -> npt.NDArray[np.uint8]:
            found = answers(model, layout, params, dataset)
            best: npt.NDArray[np.uint8] = found.argmax(axis=1).astype(np.uint8)
            return best

        rest, _ = data.split_validation(self.training, config.validation or 0, seed)
        seen = data.share_of(rest, share, seed)
        sample = seen.take(np.random.default_rng(seed).permutation(len(seen))[:SEEN])
        said = predictions(self.test)
        images = config.steps * config.batch_size
        flops = count_flops(model, pretrained.params, pretrained.image_size or 32)
        self.found["runs"].append(
            {
                "name": name,
                "family": family,
                "share": share,
                "seed": seed,
                "images": len(seen),
                "epochs": round(images / len(seen), 2),
                "parameters": sum(leaf.size for leaf in jax.tree.leaves(pretrained.params)),
                "forward_flops": flops,
                "training_flops": 3 * flops * images,
                "cpu_seconds": round(seconds, 1),
                "validation_accuracy": round(validation, 4),
                "test_accuracy": round(float(np.mean(said == self.test.labels)), 4),
                "test_images": len(self.test),
                "train_accuracy": round(float(np.mean(predictions(sample) == sample.labels)), 4),
                "answers": "".join(map(str, said)),
            }
        )
        self._write()
        _log.info("%s", {k: v for k, v in self.found["runs"][-1].items() if k != "answers"})

    def _train(self, config: TrainConfig, name: str) -> tuple[float, float]:
        """Accuracy on held-back images, and the CPU time of the whole run in seconds."""
        out = self.folder / f"{name}.npz"
        begin, states = time.process_time(), out.with_suffix(".checkpoints")
        resume = state.exists(states)
        before = States(states).step if resume else 0
        found = train(config, self.training, out, resume=resume, refuse_broken=False)
        # For a resumed run the CPU time per step before the stop is assumed to equal that after it.
        done = max(1, config.steps - before)
        return found.top1, (time.process_time() - begin) * config.steps / done

    def _write(self) -> None:
        self.found["labels"] = "".join(map(str, self.test.labels))
        checkpoint.write_text(self.file, json.dumps(self.found, indent=1) + "\n")
