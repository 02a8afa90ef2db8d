"""`python -m server similar`: near-duplicates and neighbours, among real photographs too."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from server.similar import neighbours
from tests.photos import photo
from tests.stack import Gateway
from tests.waiting import CHECKOUT

# Photographs beside the checkout, one of each of 62 things; TEST_PHOTOS names another folder.
PHOTOS = Path(os.environ.get("TEST_PHOTOS", CHECKOUT.parent / "shared/data/photos"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", "similar", *arguments],
        cwd=CHECKOUT, env=os.environ | {"COLUMNS": "160"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def rows_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(line["file"]).name: line for line in lines}


def save(path: Path, image: Image.Image, quality: int) -> None:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    path.write_bytes(file.getvalue())


def test_copies_of_photographs_are_found_among_others(gateway: Gateway, tmp_path: Path) -> None:
    if not PHOTOS.is_dir():
        pytest.skip("there are no photographs beside the checkout, and TEST_PHOTOS names none")
    originals = sorted(PHOTOS.glob("*.jpg"))
    assert len(originals) > 50
    expected = {}
    for number, original in enumerate(originals):
        image = Image.open(original).convert("RGB")
        save(tmp_path / original.name, image, 95)
        if number % 3:
            continue
        width, height = image.size
        copies = {
            "saved_again": image,
            "smaller": image.resize((2 * width // 3, 2 * height // 3)),
            "brighter": ImageEnhance.Brightness(image).enhance(1.05),
        }
        how = list(copies)[number // 3 % 3]
        save(tmp_path / f"{original.stem}.{how}.jpg", copies[how], 70)
        expected[f"{original.stem}.{how}.jpg"] = original.name
    done = run(str(tmp_path), "--url", gateway.url, "--json", "--neighbours", "2")
    assert done.returncode == 0, done.stderr
    rows = rows_of(done)
    assert len(rows) == len(originals) + len(expected)
    found = set()
    for name, row in rows.items():
        cosines = [each["cosine"] for each in row["neighbours"]]
        assert cosines == sorted(cosines, reverse=True)
        found |= {
            frozenset((name, Path(each["file"]).name))
            for each in row["neighbours"]
            if each["duplicate"]
        }
    for copy, its_original in expected.items():
        assert Path(rows[copy]["neighbours"][0]["file"]).name == its_original
        assert Path(rows[its_original]["neighbours"][0]["file"]).name == copy
    # Every copy, and nothing that is none.
    assert found == {frozenset(pair) for pair in expected.items()}


def test_what_cannot_be_embedded_is_named(gateway: Gateway, tmp_path: Path) -> None:
    for seed in range(3):
        (tmp_path / f"{seed}.jpg").write_bytes(photo(seed))
    (tmp_path / "again.jpg").write_bytes(photo(1))
    (tmp_path / "broken.jpg").write_bytes(photo(0)[:2000])
    done = run(str(tmp_path), "--url", gateway.url, "--json")
    assert done.returncode == 1
    rows = rows_of(done)
    assert rows["broken.jpg"]["error"].startswith("422: ")
    assert Path(rows["again.jpg"]["neighbours"][0]["file"]).name == "1.jpg"
    assert rows["again.jpg"]["neighbours"][0]["cosine"] == pytest.approx(1, abs=1e-4)
    shown = run(str(tmp_path), "--url", gateway.url)
    assert "nearly the same" in shown.stdout
    assert "truncated" in shown.stdout
    none = run(str(tmp_path), "--url", gateway.url, "--model", "linear")
    assert none.returncode == 1
    assert none.stdout.count("gives no embeddings") == 1  # once, whatever the number of images
    alone = run(str(tmp_path / "1.jpg"), "--url", gateway.url)
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "1.jpg is the only image; two or more are needed" in alone.stderr
    assert run(str(tmp_path / "none/*.jpg"), "--url", gateway.url).returncode == 2
    assert run(str(tmp_path), "--url", "http://127.0.0.1:9").returncode == 2
    assert "--duplicates" in run(str(tmp_path), "--duplicates", "2").stderr


def test_neighbours_are_those_of_a_plain_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.similar.BLOCK", 7)
    vectors = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    vectors[39] = 0  # which has no direction, and a cosine of 0 with all
    for row, found in enumerate(neighbours(vectors, 3, 0.9)):
        cosines = []
        for other in range(40):
            lengths = np.linalg.norm(vectors[row]) * np.linalg.norm(vectors[other])
            product = float(vectors[row] @ vectors[other])
            cosines.append(product / lengths if lengths else 0.0)
        cosines[row] = -2.0
        order = sorted(range(40), key=lambda each: -cosines[each])
        kept = max(3, len([cosine for cosine in cosines if cosine >= 0.9]))
        assert [cosine for _, cosine in found] == pytest.approx(
            [cosines[index] for index in order[:kept]], abs=1e-6
        )
    assert neighbours(vectors[:1], 3, 0.9) == [[]]
