"""The command line of `python -m export`, as typed fields: no torch, so that --help is quick."""

import dataclasses
from pathlib import Path
from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
EngineChoice = Literal["auto", "onnxruntime", "openvino"]
PrecisionChoice = Precision | Literal["auto"]
DEFAULT_MAX_BATCH_SIZE = 32


class UsageError(ValueError):
    """The command line asks for something that cannot be; the message is one sentence."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Publish a trained image classifier into Triton's model repository.

    One of --pretrained, --checkpoint, --onnx, --model, --list, --list-pretrained and --tensorrt
    says what to do.

    python -m export --pretrained mixer_b16_224.miil_in21k_ft_in1k

    python -m export --checkpoint Mixer-B_16.npz --name mixer_b16 --labels labels.txt

    python -m export --model mixer_b16 --name mixer_b16_random

    The speed of the bare PyTorch models is a command of its own: python -m export throughput.
    """

    pretrained: str | None = None
    """Published weights by name, downloaded and checked: a name of --list-pretrained, any other
    ViT, BiT or Mixer of Hugging Face's hub as ORGANISATION/NAME or ORGANISATION/NAME@REVISION, or
    any of Google's files as gs://BUCKET/OBJECT.npz."""
    checkpoint: Path | None = None
    """A checkpoint to publish: an .npz in Google's format for Mixer, ViT or BiT, or a .safetensors
    of timm's or Hugging Face transformers' models of the same kind, with its config.json beside it;
    or the folder that holds these."""
    onnx: Path | None = None
    """An ONNX classifier that others made: one image in (float32 or uint8, channels first or last),
    the scores of the classes out. What the graph does not say is asked for by its flag."""
    model: str | None = None
    """A variant to publish with random weights, seeded: for measuring throughput only. --list
    shows the names."""
    list: bool = False
    """Print every variant with its parameters, its FLOPs per image and its input size."""
    list_pretrained: bool = False
    """Print the published weights that --pretrained knows, with classes, size, licence, published
    top-1 and resize rule."""
    tensorrt: str | None = None
    """The name of a published model: build its TensorRT engine for this machine's GPU, or print
    the command that builds it inside Triton's container."""

    name: str | None = None
    """What Triton and the gateway will call the model. A model of that name is replaced. For
    --pretrained the default is the last part of the weights' own name."""
    labels: Path | None = None
    """The names of the classes, one per line. Without it those that came along with the weights,
    else numbers, as class_7 of ten."""
    image_size: int | None = None
    """Pixels per side, where it is not that of the weights: whole multiples for a Mixer, multiples
    of the patch size for a ViT, anything for a BiT."""
    num_classes: int | None = None
    """Classes of a --model."""
    seed: int = 0
    """Of the random weights of a --model."""
    precision: PrecisionChoice = "auto"
    """Of the arithmetic in the graph. fp16 is for GPUs; int8 for GPUs and for CPUs with VNNI. auto:
    int8 where there are --calibration images, this CPU has VNNI (x86-64) and the gate is passed,
    else fp32."""
    calibration: Path | None = None
    """A folder of typical images, needed for int8: one half sets its scales, the other judges
    it. fp16 is judged by them too."""
    held_back: Path | None = None
    """Images that the weights were not trained with, in a folder for each class with its name:
    a temperature is fitted on one half of them, which makes the probabilities calibrated, and the
    error is told on the other."""
    others: Path | None = None
    """Images of other things than the classes, with --held-back: whether the largest logit tells
    them apart. Where it does (AUROC 0.85), /classify says "unsure" when it is asked for."""
    engine: EngineChoice = "auto"
    """What computes the model in a Triton for CPUs. auto: OpenVINO for int8 where this machine's
    CPU has AMX and no GPU is seen, else ONNX Runtime. `python -m loadtest tune` measures which one
    is faster on the machine that serves."""
    force: bool = False
    """Publish the reduced precision that was asked for even when it misses its gate; the report
    says so."""
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    """The most images that Triton runs at once."""
    repository: Path = Path("model_repository")
    """Triton's model repository."""
    gelu: Literal["tanh", "erf"] | None = None
    """The form of GELU the weights were trained with, where it is not that of the file's format:
    tanh for .npz, erf for .safetensors."""
    heads: int | None = None
    """The number of heads of a ViT in a .safetensors that has no config.json."""
    mean: tuple[float, float, float] | None = None
    """What the weights want pixels normalised with, as torchvision and timm write it: of red, green
    and blue divided by 255, as 0.485 0.456 0.406. A property of the weights, and with --std; the
    default is what their configuration says, else 0.5."""
    std: tuple[float, float, float] | None = None
    """What the difference to --mean is divided by, as 0.229 0.224 0.225."""

    layout: Literal["nchw", "nhwc"] | None = None
    """Of an --onnx graph's input: channels first or last, where its shape does not say."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Of an --onnx graph's input. OpenCV's users have bgr; --mean and --std are of rgb all the
    same."""
    activation: Literal["softmax", "sigmoid", "none"] | None = None
    """What makes probabilities of an --onnx graph's scores, where it does not end in it: softmax
    chooses one class, with sigmoid each class is a yes or no; none: they are probabilities."""
    output: str | None = None
    """Which of an --onnx graph's outputs has the scores, where there are several."""

    resize: Literal["squash", "shortest"] | None = None
    """Straight to a square, or the short side with the aspect kept and a central cut. This and the
    next four are properties of the weights; the default is that of the file's format."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """Of the resizing."""
    antialias: bool = True
    """Do not average over all pixels when shrinking, as TensorFlow does not by default."""
    crop_fraction: float | None = None
    """The share of the resized side that the central cut keeps, as 0.875; 0.1 at the least."""
    rounding: Literal["tensorflow", "torchvision", "transformers"] | None = None
    """Whose arithmetic gives a long side and a cut that are no whole pixels: TensorFlow's, which is
    the default of .npz, or torchvision's and timm's, that of .safetensors."""

    @property
    def model_name(self) -> str:
        """What the published model is called."""
        if self.name is None and self.pretrained is not None:
            return self.pretrained.partition("@")[0].rpartition("/")[2].removesuffix(".npz")
        return self.name or ""

    def check(self) -> None:
        """Raises UsageError for contradictions, before anything slow begins."""
        modes = {
            "--pretrained": self.pretrained is not None,
            "--checkpoint": self.checkpoint is not None,
            "--onnx": self.onnx is not None,
            "--model": self.model is not None,
            "--list": self.list,
            "--list-pretrained": self.list_pretrained,
            "--tensorrt": self.tensorrt is not None,
        }
        chosen = [flag for flag, given in modes.items() if given]
        if len(chosen) != 1:
            found = " and ".join(chosen) if chosen else "none"
            raise UsageError(f"expected one of {', '.join(modes)}, found {found}; see --help")
        if chosen[0] in ("--list", "--list-pretrained", "--tensorrt"):
            return
        if self.name is None and self.pretrained is None:
            raise UsageError(f"{chosen[0]} needs --name: what Triton will call the model")
        if not 1 <= self.max_batch_size <= 4096:
            raise UsageError(f"--max-batch-size {self.max_batch_size}: expected 1 to 4096")
        if self.image_size is not None and not 1 <= self.image_size <= 8192:
            raise UsageError(f"--image-size {self.image_size}: expected 1 to 8192 pixels")
        if self.crop_fraction is not None and not 0.1 <= self.crop_fraction <= 1:
            raise UsageError(f"--crop-fraction {self.crop_fraction}: expected 0.1 to 1")
        if self.num_classes is not None and (self.model is None or self.num_classes < 1):
            raise UsageError("--num-classes is for --model only, and at least 1")
        self._check_files()
        self._check_weights()
        self._check_held_back()
        if self.precision == "int8" and self.calibration is None:
            raise UsageError("--precision int8 needs --calibration: a folder of typical images")
        if self.calibration is not None:
            if self.precision == "fp32":
                raise UsageError("--calibration is for --precision auto, int8 and fp16")
            if not self.calibration.is_dir():
                raise UsageError(f"--calibration {self.calibration}: no such folder")

    def _check_files(self) -> None:
        """Raises UsageError for a file that is not there, before any is read or downloaded."""
        files = {"--checkpoint": self.checkpoint, "--onnx": self.onnx, "--labels": self.labels}
        for flag, path in files.items():
            if path is not None and not path.exists():
                raise UsageError(f"{flag} {path}: no such file")

    def _check_held_back(self) -> None:
        """Raises UsageError for folders that are not there, or not wanted."""
        if self.others is not None and self.held_back is None:
            raise UsageError("--others needs --held-back: images of the model's own classes")
        if self.held_back is not None and self.model is not None:
            raise UsageError("--held-back is not for --model, whose weights are random")
        for flag, folder in (("--held-back", self.held_back), ("--others", self.others)):
            if folder is not None and not folder.is_dir():
                raise UsageError(f"{flag} {folder}: no such folder")

    def _check_weights(self) -> None:
        """Raises UsageError for what cannot be said of weights."""
        if (self.mean is None) != (self.std is None):
            raise UsageError("--mean and --std: expected both or neither")
        if self.heads is not None and not 1 <= self.heads <= 256:
            raise UsageError(f"--heads {self.heads}: expected 1 to 256")
        if self.std is not None and min(self.std) <= 0:
            raise UsageError(f"--std {' '.join(map(str, self.std))}: expected numbers above 0")
        foreign = {
            "--layout": self.layout,
            "--activation": self.activation,
            "--output": self.output,
        }
        if self.onnx is None and any(value is not None for value in foreign.values()):
            flag = next(flag for flag, value in foreign.items() if value is not None)
            raise UsageError(f"{flag} is for --onnx alone")
        if self.onnx is not None and (self.heads is not None or self.gelu is not None):
            raise UsageError("--heads and --gelu are not for --onnx, whose graph computes as it is")
        given = {"--heads": self.heads, "--mean": self.mean, "--gelu": self.gelu}
        if self.model is not None and any(value is not None for value in given.values()):
            flag = next(flag for flag, value in given.items() if value is not None)
            raise UsageError(f"{flag} is not for --model, whose weights are random")
