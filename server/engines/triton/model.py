"""What a model on Triton must be so that the gateway can serve it.

In: Triton's metadata and config of one model. Out: a `Model` with everything that a request needs
to know, or `ContractBroken` that says what does not fit.
"""

from dataclasses import dataclass, field

import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2

from contracts.resizing import Pixels, ResizeRule
from server.engines.triton.client import INPUT, OUTPUT, Probabilities
from server.problems import BadParameter, ContractBroken

DEFAULT_TOP_K = 5


@dataclass(frozen=True, eq=False)
class Model:
    """A model that keeps the contract: `image` UINT8[N, H, W, 3] to `probabilities` FP32[N, K].

    `parameters` are those of its config.pbtxt: resize rule and provenance. `instances` is how many
    batches it works on at once. `expected` is what it answered to its canary when it was loaded,
    float32[K].
    """

    name: str
    version: str
    rule: ResizeRule
    classes: int
    max_batch_size: int
    instances: int
    parameters: dict[str, str]
    labels: list[str] = field(repr=False)
    expected: Probabilities = field(repr=False)

    def interchangeable(self, other: "Model") -> bool:
        """Whether a request made for the one may be answered by the other."""
        return (self.name, self.rule, self.classes, self.max_batch_size, self.labels) == (
            *(other.name, other.rule, other.classes, other.max_batch_size, other.labels),
        )

    def equals(self, other: "Model") -> bool:
        """Whether the two tell the same of themselves."""
        mine = self.version, self.instances, self.parameters
        return self.interchangeable(other) and mine == (
            *(other.version, other.instances, other.parameters),
        )

    def top_k(self, asked: int | None) -> int:
        """How many classes to answer with; raises `BadParameter` outside 1 to `classes`."""
        if asked is None:
            return min(DEFAULT_TOP_K, self.classes)
        if not 1 <= asked <= self.classes:
            raise BadParameter(
                f"top_k is {asked}, expected 1 to {self.classes}: "
                f"model {self.name!r} has {self.classes} classes"
            )
        return asked

    def summary(self) -> dict[str, object]:
        """What GET /models tells."""
        return {
            "name": self.name,
            "version": self.version,
            "state": "ready",
            "input": {"height": self.rule.height, "width": self.rule.width},
            "classes": self.classes,
            "max_batch_size": self.max_batch_size,
            "provenance": self.parameters,
        }


def shape_of(name: str, metadata: service_pb2.ModelMetadataResponse) -> tuple[int, int, int]:
    """Height, width and classes; raises `ContractBroken` unless inputs and outputs fit."""
    inputs = {tensor.name: tensor for tensor in metadata.inputs}
    outputs = {tensor.name: tensor for tensor in metadata.outputs}
    if set(inputs) != {INPUT}:
        raise ContractBroken(
            f"model {name!r} has the inputs {sorted(inputs)}, expected [{INPUT!r}]"
        )
    if OUTPUT not in outputs:
        raise ContractBroken(f"model {name!r} has no output {OUTPUT!r}, only {sorted(outputs)}")
    given, shape = inputs[INPUT].datatype, list(inputs[INPUT].shape)
    match given, shape:
        case "UINT8", [-1, height, width, 3] if height > 0 and width > 0:
            pass
        case _:
            raise ContractBroken(
                f"model {name!r} takes {INPUT} {given}{shape}, expected UINT8[-1, H, W, 3]"
            )
    given, shape = outputs[OUTPUT].datatype, list(outputs[OUTPUT].shape)
    match given, shape:
        case "FP32", [-1, classes] if classes > 0:
            return height, width, classes
        case _:
            raise ContractBroken(
                f"model {name!r} gives {OUTPUT} {given}{shape}, expected FP32[-1, K]"
            )


def rule_of(name: str, height: int, width: int, config: model_config_pb2.ModelConfig) -> ResizeRule:
    """The resize rule that the model's config states; raises `ContractBroken` if it states none."""
    try:
        return ResizeRule.from_parameters(height, width, parameters_of(config))
    except ValueError as error:
        raise ContractBroken(f"config.pbtxt of model {name!r}: {error}") from error


def instances_of(config: model_config_pb2.ModelConfig) -> int:
    """How many batches Triton runs at once with this config, at least 1."""
    counts = [int(group.count) * max(1, len(group.gpus)) for group in config.instance_group]
    return max(1, sum(counts))


def check_distribution(name: str, probabilities: Probabilities) -> None:
    """Raise `ContractBroken` unless float32[K] adds up to 1; a NaN never does."""
    total = float(probabilities.sum())
    if not abs(total - 1) < 1e-2:
        raise ContractBroken(f"model {name!r} answered {OUTPUT} that add up to {total:.4g}, not 1")


def parameters_of(config: model_config_pb2.ModelConfig) -> dict[str, str]:
    """The `parameters` of config.pbtxt, sorted by name."""
    return {name: config.parameters[name].string_value for name in sorted(config.parameters)}


def canary(height: int, width: int) -> Pixels:
    """The image that readiness is tested with, uint8[height, width, 3]: three gradients."""
    y, x, channel = np.indices((height, width, 3))
    pixels: Pixels = ((7 * x + 13 * y + 85 * channel) % 256).astype(np.uint8)
    return pixels
