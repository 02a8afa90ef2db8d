"""Hundreds of odd, broken and hostile bodies against a real gateway, and clients that misbehave."""

import re
from pathlib import Path

import httpx

from tests.photos import photo
from tests.server.web.hostile_images import corpus
from tests.stack import Gateway, check_same, client_of

JPEG = photo(0)
RAW = {"Content-Type": "image/jpeg"}


def resident(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def test_every_hostile_body_gets_its_status_and_memory_stays_flat(gateway: Gateway) -> None:
    cases = corpus()
    assert len(cases) >= 200
    with client_of(gateway, 60.0) as client:
        right = client.post("/classify", content=JPEG, headers=RAW)
        assert right.status_code == 200
        before = resident(gateway.pid)
        wrong = []
        for case in cases:
            headers = {"Content-Type": case.content_type}
            response = client.post("/classify", content=case.body, headers=headers)
            if response.status_code not in case.statuses:
                wrong.append((case.name, sorted(case.statuses), response.text))
            elif response.status_code != 200:
                assert response.json()["status"] == response.status_code
        assert not wrong
        assert resident(gateway.pid) - before < 64
        again = client.post("/classify", content=JPEG, headers=RAW)
        check_same(again.json()["predictions"], right.json()["predictions"])


def test_a_content_type_of_many_parameters_is_refused(gateway: Gateway) -> None:
    for kind in ("multipart/form-data; boundary=b" + ";" * 60_000, "image/jpeg; a=" + "x" * 60_000):
        for path in ("/classify", "/classify/batch"):
            response = httpx.post(
                gateway.url + path, content=JPEG, headers={"Content-Type": kind}, trust_env=False
            )
            assert response.status_code == 415
            assert "Content-Type has more than" in response.json()["detail"]
