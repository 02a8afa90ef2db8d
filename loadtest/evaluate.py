"""Accuracy of a served model over HTTP, as users get it: decoding and resizing are part of it.

In: labelled images and a running gateway. Out: a result with top-1 and top-5 accuracy and the pairs
of classes that are confused most often. Requests of many images each, several of them under way at
once, keep the server busy.
"""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest import results
from loadtest.load import forms
from loadtest.load.http import Http
from loadtest.load.sample_images import ImagesError, SampleImage
from loadtest.load.target import BusyError, TargetError
from loadtest.machine import conditions
from loadtest.progress import bar
from loadtest.truth import Labelled

CONFUSED = 20  # pairs that are listed
BUSY_SECONDS = 600.0
HIT = {True: "1", False: "0", None: "-"}


class Evaluation:
    """Counts right and wrong answers while they come."""

    def __init__(self, url: str, model: str, out: Path, settings: dict[str, Any]) -> None:
        self._http = Http(url)
        self._model = model
        self._out = out
        self._labels: list[str] = []
        self._top1 = self._top5 = self._seen = 0
        self._hits: dict[Path, bool] = {}  # of each image that was classified
        self._files: list[Path] = []
        self._confused: Counter[tuple[str, str]] = Counter()
        self._began = time.monotonic()
        self.result: results.Result = {
            "kind": "evaluate",
            "complete": False,
            "ok": True,
            "model": model,
            "conditions": conditions.conditions(),
            "settings": settings,
            "failures": [],
        }

    async def about(self) -> dict[str, Any]:
        """The gateway's description of the model, with its labels; raises TargetError."""
        found = await self._http.about(self._model)
        self._labels = found["labels"]
        provenance = found["provenance"]
        for key in ("checkpoint", "checkpoint_sha256", "precision", "resize", "interpolation"):
            self.result["settings"][key] = provenance.get(key, "")
        return found

    async def run(self, sample_images: Sequence[Labelled], batch: int, parallel: int) -> None:
        """Classify all images; the result is written every few seconds, and at the end.

        Raises ImagesError when the model lacks a class.
        """
        largest = max(place for each in sample_images for place in each.classes)
        if largest >= len(self._labels):
            raise ImagesError(
                f"an image is of class {largest}, {self._model} has {len(self._labels)} classes"
            )
        self._files = [each.file for each in sample_images]
        self.result["images_sha256"] = hashlib.sha256(
            "\n".join(each.name for each in self._files).encode()
        ).hexdigest()
        groups = iter(
            [sample_images[at : at + batch] for at in range(0, len(sample_images), batch)]
        )
        self._began = time.monotonic()
        try:
            with bar() as progress:
                task = progress.add_task("classifying", total=len(sample_images))

                async def client() -> None:
                    written = time.monotonic()
                    for group in groups:
                        await self._ask(group)
                        progress.advance(task, len(group))
                        if time.monotonic() > written + 5:
                            self._write()
                            written = time.monotonic()

                await asyncio.gather(*(client() for _ in range(parallel)))
            self.result["complete"] = True
        finally:
            self._http.close()
            self._write()

    async def _ask(self, group: Sequence[Labelled]) -> None:
        loop = asyncio.get_running_loop()
        read = await loop.run_in_executor(None, _read, group)
        top_k = min(5, len(self._labels))
        path = f"/classify/batch?model={self._model}&top_k={top_k}"
        request = self._http.request(path, forms.form(read), forms.FORM_TYPE)
        try:
            document = await self._patiently(request)
        except TargetError as error:
            self.result["failures"] += [f"{each.file}: {error}" for each in group]
            return
        match document:
            case {"results": [*answered]} if len(answered) == len(group):
                pass
            case _:
                answered = [document] * len(group)
        for each, answer in zip(group, answered, strict=True):
            if not answer.get("predictions"):
                problem = answer.get("error", answer)
                self.result["failures"].append(f"{each.file}: {problem.get('detail', problem)}")
                continue
            said = [prediction["index"] for prediction in answer["predictions"]]
            self._seen += 1
            self._top5 += any(index in each.classes for index in said)
            self._hits[each.file] = said[0] in each.classes
            if said[0] in each.classes:
                self._top1 += 1
            else:
                self._confused[self._labels[each.classes[0]], self._labels[said[0]]] += 1

    async def _patiently(self, request: bytes) -> Any:  # noqa: ANN401 - JSON
        """The answer; sends the request again for a while as long as the gateway sheds it (429)."""
        give_up = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return await self._http.json(request)
            except BusyError:
                if time.monotonic() > give_up:
                    raise
            await asyncio.sleep(1)

    def _write(self) -> None:
        seen = max(1, self._seen)
        self.result |= {
            "ok": not self.result["failures"],
            "pictures": self._seen,
            # For each image, in their order: right, wrong, or not classified.
            "hits": "".join(HIT[self._hits.get(file)] for file in self._files),
            "top1": self._top1 / seen,
            "top5": self._top5 / seen,
            "pictures_per_second": round(self._seen / (time.monotonic() - self._began), 2),
            "confused": [
                {"true": true, "said": said, "count": count}
                for (true, said), count in self._confused.most_common(CONFUSED)
            ],
        }
        results.write(self._out, self.result)


def _read(group: Sequence[Labelled]) -> list[SampleImage]:
    return [SampleImage(each.file.name, each.file.read_bytes()) for each in group]
