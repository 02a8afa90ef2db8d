"""Whether a model's answers stay what they are when another engine computes them.

In: a model as a Triton serves it, by the engine of its configuration first and by others later.
Out: for each other engine a `Judgement` by the gate of contracts.gate. What it is held against is
the model as it is now, in whatever precision its graph has.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.cpu_engines import OPENVINO_BF16, stated_engine
from contracts.gate import GATES, Judgement, compared
from contracts.model_config import ModelConfig, parameters
from contracts.repository import LOGITS, PROBABILITIES
from loadtest.load.sample_images import SampleImage
from loadtest.load.target import TargetError
from loadtest.load.triton_target import Triton

IMAGES = 64  # with fewer, one answer that may differ by chance is a larger share than the gate's


class EngineGate:
    """The gate of one model; each engine is judged once."""

    def __init__(self, config: ModelConfig, sample_images: Sequence[SampleImage]) -> None:
        self._images = sample_images
        self._own = stated_engine(config)
        # The answers of random weights mean nothing, so they need not pass, as in export.
        self._random = parameters(config).get("random_weights") == "true"
        self._precision = parameters(config).get("precision", "fp32")
        outputs = {output.name for output in config.output}
        self._output = LOGITS if LOGITS in outputs else PROBABILITIES
        self._right: npt.NDArray[np.float32] | None = None
        self._judged: dict[str, Judgement] = {}

    async def refusal(self, triton: Triton, model: str, engine: str) -> str:
        """Why this engine, which now serves the model, may not; "" if it may."""
        try:
            if engine == self._own:
                if self._right is None:
                    self._right = await self._answers(triton, model)
                return ""
            if self._right is None:
                return f"refused: {self._own}, to hold it against, did not answer"
            if engine not in self._judged:
                found = await self._answers(triton, model)
                self._judged[engine] = compared(self._gate_of(engine), self._right, found)
        except TargetError as error:
            return f"no answers: {error}"
        return "" if self.passes(engine) else f"refused: {self.about(engine)}"

    def passes(self, engine: str) -> bool:
        """Whether the engine may serve the model, as far as it was judged."""
        return engine not in self._judged or self._random or self._judged[engine].passed

    def about(self, engine: str) -> str:
        """What was found, as a part of a sentence; "" for an engine that was not judged."""
        if engine not in self._judged:
            return ""
        random = "; random weights need not pass" if self._random else ""
        return f"the first class of {self._own} {self._judged[engine].measured}{random}"

    def findings(self) -> dict[str, Any]:
        """For a result: by engine what was found, and whether it may serve the model."""
        return {
            engine: dataclasses.asdict(judgement) | {"passes": self.passes(engine)}
            for engine, judgement in self._judged.items()
        }

    def _gate_of(self, engine: str) -> str:
        """The key of GATES for the engine: the coarser rounding of the graph's and its own."""
        own = self._precision if self._precision in GATES else "fp32"
        return min(own, "bf16" if engine == OPENVINO_BF16 else own, key=GATES.__getitem__)

    async def _answers(self, triton: Triton, model: str) -> npt.NDArray[np.float32]:
        """The logits [N, K] of the images; of a model without logits its probabilities."""
        about = await triton.about(model)
        pixels = [image.pixels(about.height, about.width) for image in self._images]
        return np.stack([await triton.answer(model, each, self._output) for each in pixels])
