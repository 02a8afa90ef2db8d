"""What `python -m export` does, step by step: read, trace, check, describe, publish.

In: checked options. Out: a published model, or an exception that `__main__` turns into one line.
"""

from importlib.metadata import version

from export import labels as label_files
from export.checkpoint import CheckpointError, Classifier, load_classifier, random_classifier
from export.config import (
    CONFIG_NAME,
    LABELS_NAME,
    ONNX_PATH,
    TENSORRT_CONFIG,
    ModelSpec,
    onnxruntime_config,
    tensorrt_config,
)
from export.graph import build_graph, open_graph, save_graph
from export.labels import LabelsError
from export.options import Options, UsageError
from export.parity import ParityError, check_parity
from export.preprocessing import Preprocessing
from export.progress import console, note, step
from export.publish import PublishError, check_target, publishing

USER_MISTAKES = (UsageError, CheckpointError, LabelsError, PublishError)
FAILURES = (ParityError, OSError, MemoryError)


def run(options: Options) -> None:
    """Do what the options say; raises one of USER_MISTAKES or FAILURES."""
    publish_model(options)


def publish_model(options: Options) -> None:
    """--checkpoint or --model: publish one model under --name."""
    name = options.name or ""
    check_target(options.repository, name)
    with step("reading the weights"):
        classifier = _read(options)
    if options.labels is None:
        labels = label_files.numbered_labels(classifier.num_classes)
        note(f"no --labels: the classes are called {labels[0]} to {labels[-1]}")
    else:
        labels = label_files.read_labels(options.labels, classifier.num_classes)
        if repeated := label_files.repeated_labels(labels):
            note(f"--labels: several classes share the names {', '.join(repeated[:5])}")
    with publishing(options.repository, name) as folder:
        path = folder / ONNX_PATH
        path.parent.mkdir()
        with step("tracing the graph"):
            save_graph(build_graph(classifier), path)
        with step("comparing with PyTorch"):
            parity = check_parity(classifier, open_graph(path))
        spec = ModelSpec(
            name=name,
            image_size=classifier.image_size,
            num_classes=classifier.num_classes,
            max_batch_size=options.max_batch_size,
            parameters=_parameters(classifier, options, parity),
        )
        (folder / LABELS_NAME).write_text("\n".join(labels) + "\n", encoding="utf-8")
        (folder / CONFIG_NAME).write_text(onnxruntime_config(spec), encoding="utf-8")
        tensorrt_path = folder / TENSORRT_CONFIG
        tensorrt_path.parent.mkdir()
        tensorrt_path.write_text(tensorrt_config(spec), encoding="utf-8")
        replaced = (options.repository / name).exists()
    size = f"{classifier.image_size}×{classifier.image_size}"
    print(
        f"{'replaced' if replaced else 'published'} {options.repository / name}: "
        f"{classifier.family}, {size} pixels, {classifier.num_classes} classes, "
        f"{options.precision}, logits within {parity:.1e} of PyTorch's"
    )
    if classifier.random_weights:
        console.print("[bold]random weights[/bold]: its answers mean nothing, only its speed does")


def _read(options: Options) -> Classifier:
    if options.checkpoint is not None:
        return load_classifier(options.checkpoint, options.image_size, options.gelu)
    return random_classifier(
        options.model or "", options.image_size, options.num_classes, options.seed
    )


def _parameters(classifier: Classifier, options: Options, parity: float) -> dict[str, str]:
    """What the gateway must know of the pictures, and where the model came from."""
    rule = _preprocessing(classifier, options)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime"))
    return {
        "family": classifier.family,
        "variant": classifier.variant or "",
        "precision": options.precision,
        "random_weights": _bool(classifier.random_weights),
        "checkpoint": classifier.source,
        "checkpoint_sha256": classifier.sha256,
        "exported_with": packages,
        "parity_max_abs_logit_diff": f"{parity:.2e}",
        "resize": rule.resize,
        "interpolation": rule.interpolation,
        "antialias": _bool(rule.antialias),
        "crop_fraction": repr(rule.crop_fraction),
    }


def _preprocessing(classifier: Classifier, options: Options) -> Preprocessing:
    own = classifier.preprocessing
    return Preprocessing(
        resize=options.resize or own.resize,
        interpolation=options.interpolation or own.interpolation,
        antialias=options.antialias and own.antialias,
        crop_fraction=options.crop_fraction or own.crop_fraction,
    )


def _bool(value: bool) -> str:
    return "true" if value else "false"
