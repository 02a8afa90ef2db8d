"""The probe of a model: one known image, and what its answer says of the model's health.

In: a model that has been loaded, and a way to infer. Out: the `Problem` of the model, or None.
"""

from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from contracts.resizing import Pixels
from server.engines.model import Model, Probabilities, check_distribution, probe_image
from server.problems import ContractBroken, DeadlinePassed, ModelNotReady, Problem

# A dead backend must be detected within 5 s, so a probe may take no longer than this.
PROBE_TIMEOUT = 3.0
# Other images of a batch may change a probability by rounding; a broken model changes it far more.
PROBE_TOLERANCE = 1e-2

Infer = Callable[[str, Sequence[Pixels], float], Awaitable[tuple[Probabilities, str]]]


async def problem_of(
    model: Model, infer: Infer, answers_others: Callable[[], bool], seconds: float = PROBE_TIMEOUT
) -> Problem | None:
    """The problem of the model's answer, which may take `seconds`; None if there is none.

    `answers_others` is called when no answer comes: then the probe may only wait in the queue
    behind images that do get their answers.
    """
    image = probe_image(model.rule.height, model.rule.width)
    try:
        answers, _ = await infer(model.name, [image], seconds)
        check_distribution(model.name, answers[0], model.parameters)
    except DeadlinePassed:
        if answers_others():
            return None
        return ModelNotReady(f"model {model.name!r} does not answer its probe within {seconds:g} s")
    except Problem as problem:
        return problem
    worst = float(np.abs(answers[0] - model.expected).max())
    if worst > PROBE_TOLERANCE:
        return ContractBroken(
            f"model {model.name!r} answers its probe {worst:.2g} away from what it answered "
            "when it was loaded"
        )
    return None
