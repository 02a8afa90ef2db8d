"""The probe of a model: one known image, and what its answer says of the model's health.

In: a model that has been loaded, and a way to infer. Out: the `Problem` that it has, or None.
"""

from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from contracts.resizing import Pixels
from server.engines.model import Model, Probabilities, check_distribution, probe_image
from server.problems import ContractBroken, DeadlinePassed, ModelNotReady, Problem

# A dead backend must be told within 5 s: by a probe that takes no longer than this.
PROBE_TIMEOUT = 3.0
# A batchmate may move a probability by rounding; a broken model moves it by far more.
PROBE_TOLERANCE = 1e-2

Infer = Callable[[str, Sequence[Pixels], float], Awaitable[tuple[Probabilities, str]]]


async def problem_of(
    model: Model, infer: Infer, answers_others: Callable[[], bool], seconds: float = PROBE_TIMEOUT
) -> Problem | None:
    """What is wrong with the model's answer, which may take `seconds`.

    `answers_others` is asked when there is none: the probe may only stand in the queue behind
    images that do get their answers.
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
