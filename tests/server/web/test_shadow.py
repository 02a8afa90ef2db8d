"""A second model that shadows the default one."""

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.local_triton.supervisor import LocalTriton
from tests import tiny_models
from tests.server.web.users import IMAGES, Users
from tests.stack import DEFAULT_MODEL, Gateway, Guarded, client_of, running_gateway, running_triton
from tests.waiting import CHECKOUT, frozen, wait_for


def compares(client: httpx.Client, count: int) -> None:
    """Wait until so many copies have been compared."""
    wait_for(lambda: comparison(client)["compared"] == count, what=f"{count} comparisons")


def comparison(client: httpx.Client) -> dict[str, Any]:
    found = client.get("/shadow").json()["comparisons"]
    return dict(found[0]) if found else {"compared": 0, "copies": {}}


def probabilities(client: httpx.Client, image: bytes, model: str) -> list[float]:
    query = {"model": model, "top_k": "10"}
    rows = client.post("/classify", params=query, content=image).json()["predictions"]
    return [row["probability"] for row in sorted(rows, key=lambda row: int(row["index"]))]


def test_the_report_is_what_both_models_say(tmp_path: Path) -> None:
    tiny_models.publish(tmp_path / "models", "first", seed=0)
    tiny_models.publish(tmp_path / "models", "second", seed=1)
    flags = ("--engine", "onnxruntime", "--repository", str(tmp_path / "models"))
    more = ("--default-model", "first", "--shadow", "second:100%")
    with (
        running_gateway(tmp_path / "log", *flags, *more) as gateway,
        client_of(gateway) as client,
    ):
        report = client.get("/shadow").json()
        assert report == {"share": 1.0, "comparisons": []}
        disagree = set()
        js, difference = [], []
        for number, image in enumerate(IMAGES):
            one, two = (np.array(probabilities(client, image, m)) for m in ("first", "second"))
            compares(client, 2 * number + 1)
            answer = client.post(
                "/classify", content=image, headers={"X-Request-ID": f"image-{number}"}
            )
            assert answer.status_code == 200
            if one.argmax() != two.argmax():
                disagree.add(f"image-{number}")
            middle = (one + two) / 2
            js.append(sum((p * np.log2(p / middle)).sum() for p in (one, two)) / 2)
            difference.append(np.abs(one - two).mean())
            compares(client, 2 * number + 2)
        found = comparison(client)
        assert (found["model"], found["candidate"]) == ("first", "second")
        assert found["copies"] == {"compared": 60}
        assert found["agreement"] == pytest.approx(1 - len(disagree) / 30)
        assert 0 < len(disagree) < 30
        assert found["divergence"] == pytest.approx(np.mean(js), abs=1e-5)
        assert found["difference"] == pytest.approx(np.mean(difference), abs=1e-5)
        for side in ("served_milliseconds", "shadow_milliseconds"):
            assert 0 < found[side]["p50"] <= found[side]["p99"]
            assert found[side]["mean"] > 0
        named = {each["request_id"] for each in found["examples"]}
        assert {name for name in named if name.startswith("image")} <= disagree
        assert len(found["examples"]) == min(20, 2 * len(disagree))
        times = [each["time"] for each in found["examples"]]
        assert times == sorted(times, reverse=True)
        text = client.get("/metrics").text
        pair = 'candidate="second",model="first"'
        assert f'mixer_shadow_copies_total{{{pair},outcome="compared"}} 60.0' in text
        # Copies are nobody's images: only what users sent is counted.
        assert "mixer_image_pixels_count 90.0" in text
        # A model that is asked for by name is not copied, nor what was refused.
        client.post("/classify?model=second", content=IMAGES[0])
        client.post("/classify", content=b"hello")
        # Every protocol's requests are.
        client.post("/hf", content=IMAGES[0])
        compares(client, 61)
        form = [("image", ("a.jpg", image)) for image in IMAGES[:3]]
        client.post("/classify/batch", files=form)
        compares(client, 64)


def test_without_a_shadow_there_is_no_report(gateway: Gateway, guarded: Guarded) -> None:
    with client_of(gateway) as client:
        response = client.get("/shadow")
        assert response.status_code == 404
        assert "--shadow candidate:5%" in response.json()["detail"]
    with client_of(guarded.gateway) as client:
        assert client.get("/shadow").status_code == 401


@pytest.mark.timeout(240)
def test_users_notice_nothing_when_the_candidate_hangs_or_dies(
    triton: LocalTriton, tmp_path: Path
) -> None:
    """The candidate has a Triton of its own, which is stopped, goes on, and is killed."""
    tiny_models.publish(tmp_path / "models", "candidate", seed=1)
    (tmp_path / "models/candidate/labels.txt").write_bytes(
        (CHECKOUT / f"model_repository/{DEFAULT_MODEL}/labels.txt").read_bytes()
    )
    with running_triton(tmp_path / "models") as other:
        flags = (
            *("--triton-url", f"{triton.grpc_url},{other.grpc_url}"),
            *("--default-model", DEFAULT_MODEL, "--shadow", "candidate:100%"),
            # A copy has as long; a machine that stands still for two seconds fails no user.
            *("--request-timeout", "4"),
        )
        with running_gateway(tmp_path / "log", *flags) as gateway, client_of(gateway) as client:

            def compared() -> int:
                return int(comparison(client)["compared"])

            wait_for(lambda: client.get("/models/candidate").status_code == 200, what="it")
            users = Users(gateway.url)
            with users.asking():
                wait_for(lambda: compared() > 20, what="comparisons")
                assert other.pid is not None
                # Its supervisor may end it meanwhile, since it hangs, and start it again.
                with frozen(other.pid):
                    stopped = compared()
                    wait_for(
                        lambda: comparison(client)["copies"].get("failed", 0) >= 1, what="a failure"
                    )
                    assert compared() <= stopped + 3

                    def fails_again() -> bool:
                        """The gateway is ready all the time, for a second at least."""
                        assert client.get("/readyz").status_code == 200
                        return int(comparison(client)["copies"]["failed"]) >= 2

                    wait_for(fails_again, what="another failure")
                wait_for(lambda: compared() > stopped + 20, 60, what="comparisons again")
                os.kill(wait_for(lambda: other.pid, what="a Triton"), signal.SIGKILL)
                killed = compared()
                failed = comparison(client)["copies"]["failed"]
                wait_for(
                    lambda: comparison(client)["copies"]["failed"] > failed, 60, what="a failure"
                )
                assert client.get("/readyz").status_code == 200
                # Its supervisor starts it again, and it is compared again.
                wait_for(lambda: compared() > killed + 20, 90, what="comparisons at last")
            assert len(users.answers) > 200
            assert set(users.answers) == {(200, DEFAULT_MODEL)}
