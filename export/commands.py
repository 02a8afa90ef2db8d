"""The work of `python -m export`, step by step: read, trace, check, describe, publish.

In: checked options. Out: a published model, or an exception that `__main__` turns into one line.
"""

import platform
from functools import partial
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from contracts.cpu import CPU_INFO, cpu_flags
from contracts.cpu_engines import ONNXRUNTIME, default_engine
from contracts.gate import Judgement
from contracts.labels import LabelsError, labels_text
from contracts.probing import write_golden
from contracts.published import CheckpointError
from contracts.repository import (
    CHECKPOINT_DIGEST,
    CONFIG_NAME,
    GRAPH_DIGEST,
    LABELS_NAME,
    ONNX_PATH,
    TENSORRT_CONFIG,
    graph_digest,
)
from export.config import ModelSpec, onnxruntime_config, tensorrt_config
from export.embedding import embedding_width
from export.engines import compute_capability, publish_engine
from export.flops import variant_costs
from export.foreign.reading import GraphError
from export.graph import golden_answer, open_graph, save_graph
from export.half import HalfRangeError
from export.honesty import calibrate, gather
from export.labels import labels_of
from export.options import EngineChoice, Options, Precision, UsageError
from export.parity import ParityError
from export.precision import (
    GateError,
    Images,
    gather_images,
    has_vnni,
)
from export.preprocessing import Preprocessing
from export.pretrained.failure import DownloadError
from export.pretrained.fetching import fetch
from export.pretrained.listing import print_pretrained
from export.progress import note, step
from export.publish import PublishError, check_name, check_target, publishing
from export.reduction import reduced
from export.sources import Source, flops, parity, right_logits, trace
from export.to_tensorrt import TensorRTError
from export.weights import read_weights

USER_MISTAKES = (UsageError, CheckpointError, GraphError, LabelsError, PublishError)
FAILURES = (
    DownloadError,
    ParityError,
    GateError,
    HalfRangeError,
    TensorRTError,
    OSError,
    MemoryError,
)


def run(options: Options) -> None:
    """Do what the options say; raises one of USER_MISTAKES or FAILURES."""
    if options.list:
        print_variants()
    elif options.list_pretrained:
        print_pretrained()
    elif options.tensorrt is not None:
        check_name(options.tensorrt)
        publish_engine(options.repository, options.tensorrt)
    else:
        publish_model(options)


def print_variants() -> None:
    """--list: every variant, with what it costs; each line as soon as that is counted."""
    row = "{:<15}{:>12}{:>16}{:>18}"
    print(row.format("model", "input", "parameters", "GFLOPs per image"), flush=True)
    for cost in variant_costs():
        size, gflops = f"{cost.image_size}×{cost.image_size}", f"{cost.flops / 1e9:.3f}"
        print(row.format(cost.variant, size, f"{cost.parameters:,}", gflops), flush=True)


def publish_model(options: Options) -> None:
    """--pretrained, --checkpoint, --onnx or --model: publish one model."""
    check_target(options.repository, options.model_name)
    if options.precision != "auto":
        try:
            _publish(options, options.precision)
        except GateError as error:
            advice = "not published (--force publishes it all the same)"
            raise GateError(f"{error}; {advice}") from None
    elif options.calibration is None:
        _publish(options, "fp32")
    elif not has_vnni(CPU_INFO):
        note("this CPU has no VNNI, and int8 would not pay: fp32")
        _publish(options, "fp32")
    else:
        try:
            _publish(options, "int8")
        except GateError as error:
            note(f"{error}; fp32 instead")
            _publish(options, "fp32")


def _publish(options: Options, precision: Precision) -> None:
    name = options.model_name
    fetched = fetch(options.pretrained) if options.pretrained is not None else None
    with step("reading the weights"):
        classifier = read_weights(options, fetched)
    labels = labels_of(options, classifier)
    rule = _preprocessing(classifier, options)
    samples = None
    if precision != "fp32":
        samples = gather_images(options.calibration, rule, classifier.image_size)
    held = None
    if options.held_back is not None:
        pixels = classifier.image_size
        held = gather(options.held_back, options.others, labels, rule, pixels)
    # The answers of random weights mean nothing, so they need not pass the gate.
    asked_for = options.precision == precision
    may_miss = asked_for and (options.force or classifier.random_weights)
    engine = chosen_engine(options.engine, precision)
    with publishing(options.repository, name) as folder:
        path = folder / ONNX_PATH
        path.parent.mkdir()
        model, difference, judgement = _write_graph(
            classifier, precision, samples, path, may_miss=may_miss
        )
        calibration = None
        if held is not None:
            with step("calibrating"):
                calibration = calibrate(model, path, held)
        width = embedding_width(model)
        spec = ModelSpec(
            name=name,
            image_size=classifier.image_size,
            num_classes=classifier.num_classes,
            max_batch_size=options.max_batch_size,
            parameters=_parameters(classifier, precision, rule, difference, judgement)
            | ({} if fetched is None else {"pretrained": fetched.origin})
            | ({} if calibration is None else calibration.parameters())
            | {GRAPH_DIGEST: graph_digest(path)},
            embedding_size=width,
            engine=engine,
        )
        write_golden(folder, golden_answer(path, classifier.image_size))
        (folder / LABELS_NAME).write_text(labels_text(labels), encoding="utf-8")
        (folder / CONFIG_NAME).write_text(onnxruntime_config(spec), encoding="utf-8")
        tensorrt_path = folder / TENSORRT_CONFIG
        tensorrt_path.parent.mkdir()
        tensorrt_path.write_text(tensorrt_config(spec), encoding="utf-8")
        replaced = (options.repository / name).exists()
    size = f"{classifier.image_size}×{classifier.image_size}"
    print(
        f"{'replaced' if replaced else 'published'} {options.repository / name}: "
        f"{classifier.family}, {size} pixels, {classifier.num_classes} classes, "
        f"{precision}; ONNX within {difference:.1e} of {_origin(classifier)}'s logits"
    )
    note("a Triton that runs serves it after a restart, in containers by `make reload`")
    if judgement is not None:
        print(judgement)
    if calibration is not None:
        print(calibration)
    if width is None:
        note(
            "no output `embedding`: the scores do not come straight from a last product with "
            "constant weights; where another output has them, --output names it"
        )
    if classifier.random_weights:
        note("random weights: the answers mean nothing, only the speed does")


def chosen_engine(choice: EngineChoice, precision: Precision) -> str:
    """The engine to publish the model for."""
    if choice != "auto":
        return choice
    # OpenVINO would compute on the CPU although Triton could use the GPU.
    engine = ONNXRUNTIME if compute_capability() else default_engine(precision, cpu_flags(CPU_INFO))
    if engine != ONNXRUNTIME:
        note(
            f"this CPU has AMX, so OpenVINO computes the model; --engine {ONNXRUNTIME} prevents it"
        )
    return engine


def _write_graph(
    classifier: Source,
    precision: Precision,
    samples: Images | None,
    path: Path,
    *,
    may_miss: bool,
) -> tuple[ir.Model, float, Judgement | None]:
    """Write `path` and compare it with its origin; returns graph, parity in FP32, judgement."""
    with step("tracing the graph"):
        model = trace(classifier, for_int8=precision == "int8")
        if classifier.sha256:
            model.metadata_props[CHECKPOINT_DIGEST] = classifier.sha256
        save_graph(model, path)
    full = open_graph(path)
    with step(f"comparing with {_origin(classifier)}"):
        difference = parity(classifier, full)
    if samples is None:
        return model, difference, None
    judgement = reduced(
        model,
        precision,
        samples,
        path,
        partial(right_logits, classifier, full),
        search=not classifier.random_weights,
    )
    if not judgement.passed:
        if not may_miss:
            raise GateError(str(judgement))
        note("it misses its gate, and is published all the same")
    return model, difference, judgement


def _origin(classifier: Source) -> str:
    return "the original" if classifier.family == "onnx" else "PyTorch"


def _parameters(
    classifier: Source,
    precision: Precision,
    rule: Preprocessing,
    difference: float,
    judgement: Judgement | None,
) -> dict[str, str]:
    """The `parameters` of config.pbtxt: the preparation of images, and the model's provenance."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime"))
    parameters = {
        "family": classifier.family,
        "variant": classifier.variant or "",
        "precision": precision,
        "random_weights": _bool(classifier.random_weights),
        "checkpoint": classifier.source,
        CHECKPOINT_DIGEST: classifier.sha256,
        "exported_with": packages,
        "activation": classifier.activation,
        "mean": " ".join(map(repr, classifier.normalization.mean)),
        "std": " ".join(map(repr, classifier.normalization.std)),
        "parity_max_abs_logit_diff": f"{difference:.2e}",
        **rule.at(classifier.image_size).parameters(),
        "flops_per_image": str(flops(classifier)),
    }
    if judgement is not None:
        parameters |= {
            "gate_passed": _bool(judgement.passed),
            "gate_cpu_flags": " ".join(cpu_flags(CPU_INFO)) or platform.machine(),
            "gate_pictures": str(judgement.images),
            "gate_top1_agreement": f"{judgement.agreement:.4f}",
            "gate_max_abs_logit_diff": f"{judgement.max_abs_logit_diff:.2e}",
            "layers_in_fp32": str(judgement.kept),
        }
    return parameters


def _preprocessing(classifier: Source, options: Options) -> Preprocessing:
    own = classifier.preprocessing
    rule = Preprocessing(
        resize=options.resize or own.resize,
        interpolation=options.interpolation or own.interpolation,
        antialias=options.antialias and own.antialias,
        crop_fraction=options.crop_fraction or own.crop_fraction,
        rounding=options.rounding or own.rounding,
    )
    if not rule.antialias and rule.interpolation != "bilinear":
        raise UsageError(
            f"--no-antialias with {rule.interpolation} interpolation: the gateway knows it with "
            "bilinear alone; add --interpolation bilinear, or leave it out"
        )
    return rule


def _bool(value: bool) -> str:
    return "true" if value else "false"
