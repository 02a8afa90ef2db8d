"""Published figures of these models' speed and accuracy, which the report shows beside ours.

timm's `results/*.csv` (huggingface/pytorch-image-models at commit aa4b585): images per second of
the bare models at 224 × 224 pixels, CPUs at batch 1; https://arxiv.org/abs/2105.01601 for the TPU.
MLPerf's own results are at https://mlcommons.org/benchmarks/inference-datacenter/.
"""

import dataclasses

from loadtest.report.page import Block, Heading, Table, Text

TIMM = "https://github.com/huggingface/pytorch-image-models/tree/aa4b585/results"


@dataclasses.dataclass(frozen=True)
class Record:
    """Images per second of one device; None where nothing was published."""

    device: str
    mode: str
    mixer_s16: float | None
    vit_s16: float | None
    mixer_b16: float | None
    vit_b16: float | None
    mixer_l16: float | None
    vit_l16: float | None
    bit_r50x1: float | None
    gpu: bool = True
    fused_attention: bool = True  # PyTorch 2 and later


RECORDS = (
    Record("RTX PRO 6000 Max-Q", "BF16, compiled", 14823, 14622, 5387, 5059, 1804, 1604, 8239),
    Record("RTX PRO 6000 Max-Q", "AMP, eager", 9520, 11168, 3665, 4190, 1221, 1365, 5734),
    Record("RTX 5090", "AMP, compiled", 15196, 13439, 5106, 4379, 1595, 1339, 8837),
    Record("RTX 5090", "AMP, eager", 9657, 10973, 3627, 3916, 1082, 1108, 3332),
    Record("RTX 4090", "AMP, compiled", 10621, 9949, 3641, 3376, 1142, 1036, 5571),
    Record("RTX 4090", "AMP, eager", 6875, 8215, 2635, 2993, 865, 954, 4019),
    Record("RTX 3090", "AMP, channels last", 5021, 4617, 1768, 1572, 556, 488, 2881),
    Record(
        "RTX 3090", "AMP, PyTorch 1.13", 4509, 3200, 1628, 1209, 518, 390, None,
        fused_attention=False,
    ),
    Record("Core i9-10940X", "FP32, compiled", 104, 76.5, 45.0, 32.4, 10.5, 7.0, 32.9, gpu=False),
    Record("Core i7-12700H", "FP32, compiled", 35.4, 26.7, 11.2, 8.3, 3.3, 2.3, 21.0, gpu=False),
    Record("TPUv3 core, the paper", "", 3994, None, 1384, 861, 419, 280, 2159),
)  # fmt: skip


def ratio(one: float | None, other: float | None) -> float | None:
    """one ÷ other where both were published."""
    return one / other if one and other else None


def gpu_range() -> tuple[float, float]:
    """The least and the most of Mixer ÷ ViT of like size on GPUs with fused attention."""
    found = [
        value
        for record in RECORDS
        if record.gpu and record.fused_attention and "paper" not in record.device
        for value in (
            ratio(record.mixer_s16, record.vit_s16),
            ratio(record.mixer_b16, record.vit_b16),
            ratio(record.mixer_l16, record.vit_l16),
        )
        if value is not None
    ]
    return min(found), max(found)


def blocks() -> list[Block]:
    """The records as a table, with the ratios."""
    rows = []
    for record in RECORDS:
        rows.append((
            record.device,
            record.mode,
            *(_number(value, "g") for value in (
                record.mixer_s16, record.vit_s16, record.mixer_b16, record.vit_b16,
                record.mixer_l16, record.vit_l16, record.bit_r50x1,
            )),
            *(_number(ratio(one, other), ".2f") for one, other in (
                (record.mixer_s16, record.bit_r50x1), (record.mixer_s16, record.vit_s16),
                (record.mixer_b16, record.vit_b16), (record.mixer_l16, record.vit_l16),
            )),
        ))  # fmt: skip
    head = (
        *("device", "mode", "Mixer-S/16", "ViT-S/16", "Mixer-B/16", "ViT-B/16"),
        *("Mixer-L/16", "ViT-L/16", "BiT-R50x1", "Mixer-S ÷ BiT", "S ÷ S", "B ÷ B", "L ÷ L"),
    )
    return [
        Heading("Published by others: images per second of the bare models"),
        Text(
            f"From [timm's results]({TIMM}) and the paper; nothing of it was measured here. On one "
            "card the lead of Mixer-B/16 over ViT-B/16 fell from 1.35 to 1.12 when PyTorch fused "
            "attention into one kernel; on CPUs it stands."
        ),
        Table(head, rows),
    ]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
