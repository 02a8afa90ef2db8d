"""The claims about MLP-Mixer, each with its experiment in this project, or "not shown here".

In: all results. Out: a page. The claims are from Tolstikhin et al. 2021 (arXiv 2105.01601) and from
the beginning of this project. Where a claim needs machines or data that were not available, the
page says so.
"""

import dataclasses
from collections.abc import Callable, Sequence

from loadtest.report import growth, records, studies, verdict
from loadtest.report.page import Block, Table, Text
from loadtest.results import Result
from loadtest.stats.ratios import Ratio

NOT_SHOWN = "not shown here"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The results that the findings rest on."""

    comparisons: Sequence[Result]
    sweeps: Sequence[Result]
    trained: Sequence[studies.Trained]
    resolutions: Sequence[Result]  # comparisons of one model at two resolutions


Found = tuple[str, str]  # the finding in a few words, and its evidence


def blocks(evidence: Evidence) -> list[Block]:
    """The table of claims."""
    rows = [(claim, *check(evidence)) for claim, check in CLAIMS]
    return [
        Text(
            "Each claim with what was measured on this project's machines, and where that does not "
            "suffice with what others published. Intervals are of 95 %."
        ),
        Table(("claim", "finding", "evidence"), rows),
        *records.blocks(),
    ]


def ratios(comparisons: Sequence[Result], family: str) -> list[tuple[str, Ratio]]:
    """Speed of the first model of each comparison ÷ speed of each model of that family."""
    found = []
    for result in comparisons:
        first, *others = result["models"]
        for other in others:
            if other.startswith(family) and (ratio := verdict.faster(result, other)):
                name = f"{first} against {other}, {verdict.precisions(result)}"
                found.append((name, ratio))
    return found


def _speed(family: str, public: str) -> Callable[[Evidence], Found]:
    def check(evidence: Evidence) -> Found:
        found = ratios(evidence.comparisons, family)
        if not found:
            return NOT_SHOWN, public
        machines = verdict.by_machine(evidence.comparisons)
        text = "; ".join(
            f"on {machine} {name}: {ratio.text()} times"
            for machine, results in machines.items()
            for name, ratio in ratios(results, family)
        )
        if all(ratio.low > 1 for _, ratio in found):
            word = "yes"
        elif all(ratio.high < 1 for _, ratio in found):
            word = "no"
        else:
            word = "in part"
        where = "on this machine" if len(machines) == 1 else "on these machines"
        return f"{word}, {where}", f"{text}. {public}"

    return check


def _vit_records() -> str:
    low, high = records.gpu_range()
    return (
        f"On GPUs with fused attention published figures say {low:.2f} to {high:.2f} times ViT of "
        "like size, so there it is not"
    )


def _exponents(models: Sequence[str], sweeps: Sequence[Result]) -> list[str]:
    found = []
    for result in sweeps:
        before = f"on {verdict.machine(result)} "
        for model, fits in result["fits"].items():
            if any(model.startswith(each) for each in models):
                theory = fits.get("flops")
                beside = f", arithmetic {theory['exponent']:.2f}" if theory else ""
                found.append(f"{before}{model} {growth.exponent(fits['cpu_ms'])}{beside}")
                before = ""
    return found


def _linear(evidence: Evidence) -> Found:
    found = _exponents(("mixer", "vit"), evidence.sweeps)
    if not found:
        return NOT_SHOWN, "`python -m loadtest sweep` measures it"
    return (
        "as far as it goes",
        f"Exponents of CPU time with the patches: {'; '.join(found)}. ViT is far from 2 at these "
        "sizes, since its MLPs are linear too. A Mixer that is enlarged by fine-tuning is not "
        "linear: its hidden width grows with the patches, and its arithmetic faster than a ViT's",
    )


def _pixels(evidence: Evidence) -> Found:
    found = _exponents(("mixer", "bit"), evidence.sweeps)
    if not any("bit" in each for each in found):
        return NOT_SHOWN, "`python -m loadtest sweep --models mixer_s16 bit_r50x1` measures it"
    return "yes, at a fixed width", f"Exponents of CPU time with the pixels: {'; '.join(found)}"


def _data(evidence: Evidence) -> Found:
    trained = studies.of_shares(evidence.trained)
    gain = studies.gain(trained, "mixer")
    if gain is None:
        return NOT_SHOWN, "`python -m reference study` measures it on CIFAR-10"
    mine = studies.difference(gain)
    shares = sorted({p.share for p in trained if p.family == "mixer"})
    text = f"From {shares[0]:.0%} to {shares[-1]:.0%} of CIFAR-10 Mixer gains {mine.text()}"
    text += _budget(trained, "mixer")
    if not _repeated(trained, "mixer"):
        return NOT_SHOWN, f"{text}. One seed alone carries no conclusion"
    return ("yes, at this scale" if mine.low > 0 else "not at this budget"), text


def _ends(trained: Sequence[studies.Trained], family: str) -> list[studies.Trained]:
    mine = sorted((p for p in trained if p.family == family), key=lambda p: p.share)
    return [mine[0], mine[-1]]


def _repeated(trained: Sequence[studies.Trained], *families: str) -> bool:
    """Whether the points that a conclusion rests on have been trained more than once."""
    return all(point.seeds > 1 for family in families for point in _ends(trained, family))


def _budget(trained: Sequence[studies.Trained], family: str) -> str:
    most = _ends(trained, family)[1]
    return f"; each network saw as many images as {most.epochs:.1f} epochs of all of them have"


def _overfits(evidence: Evidence) -> Found:
    trained = studies.of_shares(evidence.trained)
    mine = [p for p in trained if p.family == "mixer"]
    theirs = [p for p in trained if p.family == "vit"]
    gain, other = (studies.gain(trained, family) for family in ("mixer", "vit"))
    if not mine or not theirs or gain is None or other is None:
        return NOT_SHOWN, "`python -m reference study` measures it on CIFAR-10"
    least, most = (min(mine, key=lambda p: p.share), max(mine, key=lambda p: p.share))
    faster = studies.difference(gain - other)
    text = (
        f"Mixer loses {100 * least.gap:.1f} points from training to test images with the least "
        f"data and {100 * most.gap:.1f} with the most; its gain less ViT's is {faster.text()}"
    ) + _budget(trained, "mixer")
    if not _repeated(trained, "mixer", "vit"):
        return NOT_SHOWN, f"{text}. One seed alone carries no conclusion"
    overfits = least.gap > most.gap
    if overfits and faster.low > 0:
        return "yes, at this scale", text
    return ("in part" if overfits or faster.low > 0 else "not at this scale"), text


def _families(evidence: Evidence) -> Found:
    full = studies.of_most_steps(evidence.trained)
    if len(full) < 3:
        return NOT_SHOWN, "`python -m reference study` trains the three families by one recipe"
    text = ", ".join(f"{studies.NAMES[p.family]} {p.accuracy:.1%}" for p in full)
    budget = f"{full[0].epochs:.0f} epochs, {full[0].seeds} seed{'s' * (full[0].seeds > 1)}"
    return "yes, at this scale", f"By one recipe on all of CIFAR-10, {budget}: {text}"


def _resolution(evidence: Evidence) -> Found:
    for result in evidence.resolutions:
        first, *others = result["models"]
        for other in others:
            if ratio := verdict.faster(result, other):
                return (
                    "true of the time spent",
                    f"Serving {first} is {ratio.text()} times as fast as {other}; training it "
                    "costs nothing more. But this Mixer's cost grows faster than a ViT's",
                )
    found = _exponents(("mixer_s16_enlarged", "mixer_b16_enlarged"), evidence.sweeps)
    if found:
        return (
            "serving: yes",
            f"Exponent of the enlarged Mixer's CPU time: {'; '.join(found)}. It takes more time at "
            "serving; whether training changes was not measured",
        )
    return NOT_SHOWN, "`python -m loadtest sweep` has the enlarged Mixer"


def _always(finding: str, text: str) -> Callable[[Evidence], Found]:
    return lambda _: (finding, text)


CLAIMS: tuple[tuple[str, Callable[[Evidence], Found]], ...] = (
    (
        "Mixer is faster at inference than ViT of like size",
        _speed("vit", _vit_records()),
    ),
    (
        "Mixer is faster at inference than BiT (ResNet)",
        _speed(
            "bit",
            "Published for GPUs: Mixer-S/16 1.7 to 2.9 times BiT-R50x1; the paper's TPU: 1.85",
        ),
    ),
    ("Its cost grows linearly with the number of patches, that of ViT quadratically", _linear),
    ("Its cost is linear in the pixels, as that of a convolutional network", _pixels),
    (
        "A higher resolution at fine-tuning costs throughput in serving only",
        _resolution,
    ),
    ("Convolutions and attention suffice for good results, and neither is needed", _families),
    ("More training data helps Mixer markedly", _data),
    ("With little data it overfits strongly, with more it gains fastest", _overfits),
    (
        "It needs only matrix products, transposes and scalar non-linearities",
        _always(
            "yes",
            "The exported graph has no Conv but the patch embedding and no Softmax but the last; "
            "a test counts its operators",
        ),
    ),
    (
        "Slightly behind when small, it becomes more competitive as it grows",
        _always(NOT_SHOWN, "Needs widths that no machine here can train; the paper's table 2"),
    ),
    (
        "Trained on JFT-300M it reaches 87.94 % on ImageNet",
        _always(NOT_SHOWN, "The data and these weights were never released; the paper's table 2"),
    ),
)
