"""The gate: how far a faster computation of a model may answer otherwise than the exact one.

In: logits of the same images, by the exact computation and by the faster one. Out: a `Judgement`.
Export holds a reduced precision against FP32 with it, and `loadtest tune` an engine against the
engine that serves.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

# The share of images whose first class must stay the same. Rounding to 11 bits (FP16) changes
# almost no answer; rounding to 8 bits may decide between classes of nearly equal probability. BF16
# rounds each number to 8 bits where it stands, INT8 on one scale for a whole tensor.
GATES = {"fp32": 1.0, "fp16": 0.995, "bf16": 0.99, "int8": 0.98}


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The comparison of a faster computation, in a precision of GATES, with the exact one."""

    precision: str
    images: int
    same_class: int  # images whose first class is the same
    max_abs_logit_diff: float
    kept: int = 0  # layers that stay in FP32 so that the model passes the gate

    @property
    def agreement(self) -> float:
        """The share of images whose first class is the same."""
        return self.same_class / self.images

    @property
    def passed(self) -> bool:
        """Whether the gate is passed; one different answer is always allowed, NaN never."""
        allowed = max(1, int((1 - GATES[self.precision]) * self.images))
        finite = bool(np.isfinite(self.max_abs_logit_diff))
        return finite and self.images - self.same_class <= allowed

    @property
    def measured(self) -> str:
        """What was found and what is asked for, as a part of a sentence."""
        return (
            f"on {self.same_class} of {self.images} images ({self.agreement:.1%}, the gate is at "
            f"{GATES[self.precision]:.1%}), logits within {self.max_abs_logit_diff:.2g}"
        )

    def __str__(self) -> str:
        return f"{self.precision}: the same first class as FP32 {self.measured}" + (
            f"; {self.kept} layers stay in FP32" if self.kept else ""
        )


def compared(
    precision: str, right: npt.NDArray[np.float32], found: npt.NDArray[np.float32]
) -> Judgement:
    """Compare logits float32 [N, K] with the right ones of the same images."""
    same = int((found.argmax(axis=1) == right.argmax(axis=1)).sum())
    return Judgement(precision, len(right), same, float(np.abs(found - right).max()))
