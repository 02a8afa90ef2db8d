"""The requirements that a model must meet so that the gateway can serve it.

In: Triton's messages about one model: its metadata and its config. Out: its sizes, resize rule,
instances and parameters, or `ContractBroken` that says what does not fit.
"""

from tritonclient.grpc import model_config_pb2, service_pb2

from contracts.repository import EMBEDDING, INPUT, LOGITS, PROBABILITIES
from contracts.resizing import ResizeRule
from server.problems import ContractBroken


def shape_of(name: str, metadata: service_pb2.ModelMetadataResponse) -> tuple[int, int, int]:
    """Height, width and classes; raises `ContractBroken` unless inputs and outputs fit."""
    inputs = {tensor.name: tensor for tensor in metadata.inputs}
    outputs = {tensor.name: tensor for tensor in metadata.outputs}
    if set(inputs) != {INPUT}:
        raise ContractBroken(
            f"model {name!r} has the inputs {sorted(inputs)}, expected [{INPUT!r}]"
        )
    if PROBABILITIES not in outputs:
        raise ContractBroken(
            f"model {name!r} has no output {PROBABILITIES!r}, only {sorted(outputs)}"
        )
    given, shape = inputs[INPUT].datatype, list(inputs[INPUT].shape)
    match given, shape:
        case "UINT8", [-1, height, width, 3] if height > 0 and width > 0:
            pass
        case _:
            raise ContractBroken(
                f"model {name!r} takes {INPUT} {given}{shape}, expected UINT8[-1, H, W, 3]"
            )
    given, shape = outputs[PROBABILITIES].datatype, list(outputs[PROBABILITIES].shape)
    match given, shape:
        case "FP32", [-1, classes] if classes > 0:
            return height, width, classes
        case _:
            raise ContractBroken(
                f"model {name!r} gives {PROBABILITIES} {given}{shape}, expected FP32[-1, K]"
            )


def extras_of(metadata: service_pb2.ModelMetadataResponse, classes: int) -> dict[str, int]:
    """The outputs beside the probabilities that can be asked for, and the width of each.

    A model may have none: models that were exported before embeddings existed still work.
    """
    found: dict[str, int] = {}
    outputs = {tensor.name: tensor for tensor in metadata.outputs}
    for name in (LOGITS, EMBEDDING):
        if name not in outputs:
            continue
        match outputs[name].datatype, list(outputs[name].shape):
            case "FP32", [-1, width] if width > 0 and (name != LOGITS or width == classes):
                found[name] = width
    return found


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


def parameters_of(config: model_config_pb2.ModelConfig) -> dict[str, str]:
    """The `parameters` of config.pbtxt, sorted by name."""
    return {name: config.parameters[name].string_value for name in sorted(config.parameters)}
