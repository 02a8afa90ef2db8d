"""What serving asks of an engine, asked of each: a real Triton, and ONNX Runtime in the process.

Both read one repository, so each is the other's oracle: what is served, why something is not, and
every bit of every answer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import numpy.typing as npt
import onnx
import pytest

from contracts.repository import CHECKPOINT_DIGEST, GRAPH_DIGEST, graph_digest
from server import problems
from server.engines.engine import Engine
from server.engines.model import Model, Unusable
from server.engines.onnxruntime.engine import OnnxRuntime
from server.engines.triton.balancer import Balancer
from server.local_triton.supervisor import LocalTriton
from tests import tiny_models
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Gateway, client_of, running_gateway, running_triton
from tests.waiting import CHECKOUT

T = TypeVar("T")
# So often Triton is asked, at most: a probe of its supervisor may have shared a batch, whose sums
# are rounded in another order then. What differs for another reason differs each time.
AGAIN = 3
ENGINES = ("triton", "onnxruntime")
USABLE = (
    *("plain", "external", "twins", "versions", "first_version", "few_labels", "random_weights"),
    DEFAULT_MODEL,
)
# Why each is not served.
UNUSABLE: dict[str, type[problems.Problem]] = {
    "missing_file": problems.ModelNotReady,
    "not_onnx": problems.ModelNotReady,
    "other_output": problems.ModelNotReady,
    "bad_number": problems.ModelNotReady,
    "other_name": problems.ModelNotReady,
    "changed": problems.ModelNotReady,
    "no_rule": problems.ContractBroken,
    "no_softmax": problems.ContractBroken,
    "bgr": problems.ContractBroken,
}


def rewrite(folder: Path, *changes: tuple[str, str]) -> None:
    config = folder / "config.pbtxt"
    text = config.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of every kind that an engine meets."""
    repository = tmp_path_factory.mktemp("repository")
    (repository / DEFAULT_MODEL).symlink_to(CHECKOUT / "model_repository" / DEFAULT_MODEL)
    tiny_models.publish(repository, "plain")
    tiny_models.publish(repository, "external", external_data=True)
    tiny_models.publish(repository, "twins", instances=2)
    # As `python -m export --model` writes it: random weights come from no file.
    tiny_models.publish(repository, "random_weights", parameters={CHECKPOINT_DIGEST: ""})
    (tiny_models.publish(repository, "few_labels") / "labels.txt").write_text("cat\r\n\r\ndog")
    for name in ("versions", "first_version"):
        folder = tiny_models.publish(repository, name)
        for version in ("2", "10"):
            (folder / version).mkdir()
            onnx.save(tiny_models.graph(int(version)), folder / version / "model.onnx")
    with (repository / "first_version/config.pbtxt").open("a") as config:
        config.write("version_policy { specific { versions: [ 1, 2 ] } }\n")
    broken = {name: tiny_models.publish(repository, name) for name in UNUSABLE}
    (broken["missing_file"] / tiny_models.MODEL_FILE).unlink()
    (broken["not_onnx"] / tiny_models.MODEL_FILE).write_bytes(b"not a graph")
    rewrite(broken["other_output"], ('"logits"', '"scores"'))
    rewrite(broken["other_name"], ('"other_name"', '"another"'))
    rewrite(broken["no_rule"], ('"squash"', '"somehow"'))
    rewrite(broken["bgr"], ('"image"', '"bgr"'))
    with (broken["bad_number"] / "config.pbtxt").open("a") as config:
        config.write('parameters { key: "execution_mode" value { string_value: "7" } }\n')
    with (broken["changed"] / "config.pbtxt").open("a") as config:
        digest = graph_digest(broken["changed"] / tiny_models.MODEL_FILE)
        config.write(
            f'parameters {{ key: "{GRAPH_DIGEST}" value {{ string_value: "{digest[::-1]}" }} }}\n'
        )
    for name, change in (("no_softmax", without_softmax), ("bgr", with_another_input)):
        onnx.save(change(tiny_models.graph(0)), broken[name] / tiny_models.MODEL_FILE)
    return repository


def without_softmax(graph: onnx.ModelProto) -> onnx.ModelProto:
    (node,) = (each for each in graph.graph.node if each.op_type == "Softmax")
    node.op_type = "Identity"
    del node.attribute[:]
    return graph


def with_another_input(graph: onnx.ModelProto) -> onnx.ModelProto:
    graph.graph.input[0].name = graph.graph.node[0].input[0] = "bgr"
    return graph


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[LocalTriton]:
    with running_triton(repository) as running:
        yield running


@pytest.fixture(scope="module", params=ENGINES)
def make(request: pytest.FixtureRequest, repository: Path) -> Callable[[], Engine]:
    """Makes one engine or the other, inside the running event loop."""
    if request.param == "onnxruntime":
        return lambda: OnnxRuntime(repository, "plain")
    server: LocalTriton = request.getfixturevalue("server")
    return lambda: Balancer(server.grpc_url, "plain", 60.0)


@contextlib.asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Engine]:
    """The engine with its models loaded."""
    watch = asyncio.create_task(engine.watch())
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    engine.entries()
                except problems.TritonAway:
                    await asyncio.sleep(0.01)
                else:
                    break
        yield engine
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await engine.close(5)


def on(make: Callable[[], Engine], use: Callable[[Engine], Awaitable[T]]) -> T:
    """What `use` returns for a running engine."""

    async def run() -> T:
        async with running(make()) as engine:
            return await use(engine)

    return asyncio.run(run())


def images(count: int, size: int = tiny_models.SIZE) -> list[npt.NDArray[np.uint8]]:
    random = np.random.default_rng(count)
    return list(random.integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def test_each_model_is_served_or_said_why_not(make: Callable[[], Engine]) -> None:
    async def use(engine: Engine) -> None:
        entries = {entry.name: entry for entry in engine.entries()}
        assert list(entries) == sorted([*USABLE, *UNUSABLE])
        for name, entry in entries.items():
            if name in USABLE:
                assert isinstance(entry, Model), entry
                assert engine.get(name) is engine.entry(name) is entry
                continue
            assert isinstance(entry, Unusable)
            with pytest.raises(UNUSABLE[name]) as raised:
                engine.get(name)
            assert type(raised.value) is UNUSABLE[name]
            assert name in raised.value.detail
            assert "/" not in raised.value.detail, "a client is told of the server's folders"

    on(make, use)


def test_an_unknown_model_is_refused_with_the_names_of_the_known(
    make: Callable[[], Engine],
) -> None:
    async def use(engine: Engine) -> None:
        with pytest.raises(problems.UnknownModel, match=r"no model 'none'; there are: .*plain"):
            engine.get("none")

    on(make, use)


def test_both_engines_tell_the_same_of_every_model(repository: Path, server: LocalTriton) -> None:
    async def told(engine: Engine) -> dict[str, object]:
        return {
            name: (engine.get(name).summary(), engine.get(name).labels, engine.get(name).instances)
            for name in USABLE
        }

    one = on(lambda: OnnxRuntime(repository, "plain"), told)
    other = on(lambda: Balancer(server.grpc_url, "plain", 60.0), told)
    assert one == other


def test_both_engines_answer_the_same_to_the_last_bit(
    repository: Path, server: LocalTriton
) -> None:
    batches = [images(count) for count in (1, 2, 7, tiny_models.MAX_BATCH_SIZE)]

    async def answers(engine: Engine) -> list[tuple[bytes, str]]:
        found = []
        for name in USABLE:
            for batch in batches:
                probabilities, version = await engine.infer(engine.get(name), batch, 30)
                assert probabilities.dtype == np.float32
                assert probabilities.shape == (len(batch), tiny_models.CLASSES)
                found.append((probabilities.tobytes(), version))
        return found

    one = on(lambda: OnnxRuntime(repository, "plain"), answers)
    for _ in range(AGAIN):
        other = on(lambda: Balancer(server.grpc_url, "plain", 60.0), answers)
        if other == one:
            break
    assert one == other


def test_many_calls_at_once_get_their_own_answers(make: Callable[[], Engine]) -> None:
    async def use(engine: Engine) -> None:
        model = engine.get("twins")
        assert engine.instances(model) == 2
        assert engine.slots(model) > engine.instances(model)
        batches = [images(count) for count in range(1, 9)]
        alone = [await engine.infer(model, batch, 30) for batch in batches]
        together = await asyncio.gather(*(engine.infer(model, batch, 30) for batch in batches))
        for (one, _), (other, _) in zip(alone, together, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)

    on(make, use)


def test_images_of_another_size_are_refused(make: Callable[[], Engine]) -> None:
    async def use(engine: Engine) -> None:
        with pytest.raises(problems.ContractBroken):
            await engine.infer(engine.get("plain"), images(1, size=31), 30)
        answers, _ = await engine.infer(engine.get("plain"), images(1), 30)
        assert len(answers) == 1

    on(make, use)


def test_a_passed_deadline_is_reported(make: Callable[[], Engine]) -> None:
    async def use(engine: Engine) -> None:
        with pytest.raises(problems.DeadlinePassed):
            await engine.infer(engine.get(DEFAULT_MODEL), images(32), 1e-4)
        answers, _ = await engine.infer(engine.get(DEFAULT_MODEL), images(1), 30)
        assert len(answers) == 1

    on(make, use)


def test_sound_models_pass_their_probes(make: Callable[[], Engine]) -> None:
    async def use(engine: Engine) -> list[problems.Problem]:
        return await engine.probe()

    assert on(make, use) == []


def test_the_average_batch_is_known_after_a_look(make: Callable[[], Engine]) -> None:
    async def use(engine: Engine) -> None:
        async with asyncio.timeout(30):
            while engine.average_batch.get("plain") != 4:
                await engine.infer(engine.get("plain"), images(4), 30)

    on(make, use)


def test_a_call_under_way_is_answered_before_the_engine_ends(make: Callable[[], Engine]) -> None:
    async def run() -> None:
        async with running(make()) as engine:
            model = engine.get(DEFAULT_MODEL)
            call = asyncio.create_task(engine.infer(model, images(32), 30))
            await asyncio.sleep(0)
        answers, _ = await call
        assert len(answers) == 32

    asyncio.run(run())


@pytest.fixture(scope="module")
def gateways(
    repository: Path, server: LocalTriton, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gateway, Gateway]]:
    """One gateway on each engine, on the same repository."""
    logs = tmp_path_factory.mktemp("logs")
    default = ("--default-model", DEFAULT_MODEL)
    in_process = ("--engine", "onnxruntime", "--repository", str(repository))
    with (
        running_gateway(logs / "one", "--triton-url", server.grpc_url, *default) as one,
        running_gateway(logs / "other", *in_process, *default) as other,
    ):
        yield one, other


JPEG = {"Content-Type": "image/jpeg"}
REQUESTS: dict[str, Callable[[httpx.Client], httpx.Response]] = {
    "one": lambda client: client.post("/classify", content=photo(1), headers=JPEG),
    "top_k": lambda client: client.post("/classify?top_k=10", content=photo(2), headers=JPEG),
    "of_a_model": lambda client: client.post(
        "/classify?model=versions", content=photo(2), headers=JPEG
    ),
    "one_by_one": lambda client: client.post(
        "/classify/batch", files=[("image", ("a.jpg", photo(3))), ("image", ("b.jpg", b"no"))]
    ),
    "models": lambda client: client.get("/models/few_labels"),
    "unknown_model": lambda client: client.post("/classify?model=x", content=photo(1)),
    "too_many": lambda client: client.post("/classify?top_k=11", content=photo(1), headers=JPEG),
    "broken_model": lambda client: client.post("/classify?model=no_softmax", content=photo(1)),
    "not_loaded": lambda client: client.post("/classify?model=not_onnx", content=photo(1)),
    "ready": lambda client: client.get("/readyz"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_http_answers_are_equal(gateways: tuple[Gateway, Gateway], name: str) -> None:
    for _ in range(AGAIN):
        answers = []
        for gateway in gateways:
            with client_of(gateway) as client:
                answer = REQUESTS[name](client)
            content = answer.json()
            content.pop("request_id", None)
            if name == "not_loaded":  # each says where to look
                content.pop("detail")
            answers.append((answer.status_code, answer.headers["content-type"], content))
        if answers[0] == answers[1]:
            break
    assert answers[0] == answers[1]
