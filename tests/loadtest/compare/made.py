"""Results that are made up, for tests of what is said about them: their truth is known."""

from typing import Any

import numpy as np

CPU = {"gateway": 2.0, "event_loop": 1.0, "triton": 1.0, "model": 3.0, "generator": 1.0}
CALM = {"foreign_cores": 0.02, "steal_cores": 0.0, "pressure": 0.01, "throttled": None}


def window(number: int, rate: float, **changes: object) -> dict[str, Any]:
    """A window of ten seconds."""
    random = np.random.default_rng(round(1000 * rate) + number)
    latencies = 1e3 / rate * random.lognormal(0, 0.2, round(10 * rate))
    made: dict[str, Any] = {
        "round": number, "seconds": 10.0, "images": round(10 * rate), "rate": rate,
        "latencies_ms": [round(float(each), 2) for each in latencies],
        "phases": {"decode": 1.0, "queue": 0.1, "inference": 5.0}, "cpu_seconds": CPU,
        "average_batch": 1.5, "queue_ms": 1.0, "compute_ms": 30.0, "busy": 0.95, "late_ms": 0.5,
        "failed": 0, "machine": CALM, "gpus": [], "disturbed": "",
    }  # fmt: skip
    return made | changes


def point(
    model: str, rates: list[float], *, rate: float = 0.0, **changes: object
) -> dict[str, Any]:
    """A point with a window for each of `rates`; `rate` above 0: of the open loop."""
    windows = [window(number, each) for number, each in enumerate(rates, 1)]
    return {
        "model": model, "way": "gateway", "concurrency": 0 if rate else 8, "rate": rate,
        "share": 0.0, "rate_measured": float(np.median(rates)), "agrees": True,
        "requests": sum(len(each["latencies_ms"]) for each in windows), "milliseconds": {},
        "windows": windows,
    } | changes  # fmt: skip


def comparison(points: list[dict[str, Any]], **changes: object) -> dict[str, Any]:
    """A result of these points."""
    about = {
        "height": 224, "max_batch_size": 32, "queue_delay_us": 0, "instances": 1, "threads": 0,
        "provenance": {"precision": "fp32", "random_weights": "true"},
    }  # fmt: skip
    return {
        "kind": "compare", "format": 2, "complete": True, "ok": True, "disturbed": "",
        "file": "compare.json",
        "conditions": {"cpu": "Abacus, 2 cores", "gpu": "none", "date": "2026-01-02 03:04 UTC"},
        "settings": {"cores": 2, "workers": 1}, "ramps": [], "failures": [],
        "models": {each["model"]: {**about, "width": 224} for each in points}, "points": points,
    } | changes  # fmt: skip


MIXER = [22.0, 22.4, 21.8, 22.2, 22.1, 22.3]
VIT = [18.0, 18.3, 17.9, 18.1, 18.2, 18.1]
SAME = [22.3, 21.9, 22.2, 21.9, 22.4, 22.0]
