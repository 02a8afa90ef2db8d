"""The gateway's HTTP contract, through a real gateway in front of a real Triton."""

import asyncio
import contextlib
import json
import os
import re
from pathlib import Path

import httpx
import numpy as np

from server import __version__
from server.local_triton.supervisor import LocalTriton
from server.web.dialects import ALL, of_path
from tests.photos import photo
from tests.server.web.problems import JPEG, RAW, check_problem
from tests.stack import DEFAULT_MODEL, Gateway, running_gateway
from tests.tiny_models import CLASSES
from tests.waiting import wait_for


def test_unknown_paths_and_methods(client: httpx.Client) -> None:
    check_problem(client.get("/nothing"), 404, "not-found", "/nothing")
    response = client.get("/classify")
    check_problem(response, 405, "method-not-allowed", "allowed is POST")
    assert response.headers["allow"] == "POST"
    assert client.post("/livez").headers["allow"] == "GET, HEAD"


def test_head_is_get_without_the_body(client: httpx.Client) -> None:
    for path, status in (
        ("/", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/no", 404),
        ("/classify", 405),
    ):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (status, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        assert abs(int(head.headers["content-length"]) - len(get.content)) < 3


def test_every_response_has_the_clients_id_or_a_new_one(client: httpx.Client) -> None:
    for path in ("/livez", "/models", "/nothing", "/docs", "/openapi.json"):
        response = client.get(path, headers={"X-Request-ID": "order-66/a:b"})
        assert response.headers["x-request-id"] == "order-66/a:b"
        assert re.search(r"total;dur=\d", response.headers["server-timing"])
    for unsafe in ("", "a b", "<script>", "x" * 129):
        given = client.get("/livez", headers={"X-Request-ID": unsafe}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", given)


def test_server_timing_tells_the_phases(client: httpx.Client) -> None:
    timing = client.post("/classify", content=JPEG, headers=RAW).headers["server-timing"]
    phases = dict(re.findall(r"(\w+);dur=([\d.]+)", timing))
    assert list(phases) == ["decode", "queue", "inference", "total"]
    parts = sum(float(phases[name]) for name in ("decode", "queue", "inference"))
    assert 0 < parts <= float(phases["total"])
    failed = client.post("/classify", content=b"hello", headers=RAW).headers["server-timing"]
    assert "inference" not in failed


def test_concurrent_answers_equal_lone_ones_and_share_batches(
    gateway: Gateway, triton: LocalTriton
) -> None:
    images = [photo(seed, 64, 48) for seed in range(32)]

    # `linear` waits 50 ms in Triton's queue for company, however slow this machine is.
    def counts() -> tuple[int, int]:
        text = httpx.get(triton.metrics_url, trust_env=False).text
        names = ("nv_inference_count", "nv_inference_exec_count")
        found = [re.search(rf'^{name}{{model="linear".*}} (\d+)', text, re.M) for name in names]
        return int(found[0][1]) if found[0] else 0, int(found[1][1]) if found[1] else 0

    async def settled() -> tuple[int, int]:
        """Triton counts a request after it has answered."""
        before, now = (-1, -1), counts()
        async with asyncio.timeout(30):
            while now != before:
                await asyncio.sleep(0.3)
                before, now = now, counts()
        return now

    async def classify_all() -> None:
        limits = httpx.Limits(max_connections=32)
        async with httpx.AsyncClient(
            base_url=gateway.url, trust_env=False, timeout=30, limits=limits
        ) as client:

            async def classify(image: bytes) -> list[dict[str, float]]:
                response = await client.post(
                    f"/classify?model=linear&top_k={CLASSES}", content=image, headers=RAW
                )
                assert response.status_code == 200, response.text
                ordered = sorted(response.json()["predictions"], key=lambda p: int(p["index"]))
                return [p["probability"] for p in ordered]

            alone = np.array([await classify(image) for image in images])
            inferences, executions = await settled()
            for _ in range(5):
                together = await asyncio.gather(*(classify(image) for image in images))
                # A batch is one matrix product, whose sums may be rounded in another order.
                assert np.abs(np.array(together) - alone).max() < 1e-6
            more_inferences, more_executions = await settled()
            assert more_inferences - inferences >= 5 * 32
            assert (more_inferences - inferences) / (more_executions - executions) > 2
            assert len({tuple(row) for row in alone}) == 32

    asyncio.run(classify_all())


def test_decoding_has_a_lower_priority_than_the_event_loop(
    triton: LocalTriton, tmp_path: Path
) -> None:
    """Also where the server itself was started with `nice`."""
    flags = (f"--triton-url={triton.grpc_url}", f"--default-model={DEFAULT_MODEL}")
    with running_gateway(tmp_path / "log", *flags, "--decode-threads=2") as gateway:
        os.setpriority(os.PRIO_PROCESS, gateway.pid, 15)
        files = [("image", JPEG)] * 4

        def lowest() -> int:
            """The priority of the lowest thread after four images at once."""
            # One thread has decoded the probe of /readyz before; two images at once need another,
            # if the first has not been quicker than the second came.
            url = f"{gateway.url}/classify/batch"
            answer = httpx.post(url, files=files, trust_env=False, timeout=30)
            assert answer.status_code == 200
            found = []
            for task in Path(f"/proc/{gateway.pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                    found.append(os.getpriority(os.PRIO_PROCESS, int(task.name)))
            return max(found)

        wait_for(lambda: lowest() == 19, what="a thread of the lowest priority")
        assert os.getpriority(os.PRIO_PROCESS, gateway.pid) == 15


def test_health(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "live", "version": __version__}
    for path in ("/readyz", "/healthz"):
        assert client.get(path).json() == {
            "status": "ready",
            "model": DEFAULT_MODEL,
            "version": "1",
        }


def test_the_openapi_document_names_every_answer(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    for reference in set(re.findall(r'"#/components/schemas/(\w+)"', text)):
        assert reference in document["components"]["schemas"]
    for path in ("/classify", "/classify/batch"):
        operation = document["paths"][path]["post"]
        assert set(operation["responses"]) == {
            "200", "400", "401", "404", "408", "413", "415", "422", "429",
            "431", "500", "502", "503", "504",
        }  # fmt: skip
        assert {p["name"] for p in operation["parameters"]} == {
            "model",
            "top_k",
            "threshold",
            "unsure",
            "X-Request-Timeout",
        }
        assert "multipart/form-data" in operation["requestBody"]["content"]
    bodies = set(document["paths"]["/classify"]["post"]["requestBody"]["content"])
    images = {"image/*", "application/octet-stream", "multipart/form-data"}
    assert bodies == images | {"application/json"}
    for path, operations in document["paths"].items():
        own = of_path(ALL.values(), path) is None  # else the errors of that dialect
        for operation in operations.values():
            for status, response in operation["responses"].items():
                for kind, content in response["content"].items():
                    assert ("problem" in kind) is (own and status != "200")
                    assert content["schema"] or not own
                    assert "example" in content or content["examples"]
    assert client.get("/docs").status_code == 200


def test_the_log_of_all_this_has_no_traceback(gateway: Gateway) -> None:
    assert "Traceback" not in Path(gateway.log).read_text()
