"""A gRPC connection to one Triton: its protocol (KServe v2), spoken with raw tensors.

In: uint8 batches and questions about models. Out: float32 probabilities and Triton's own messages;
what goes wrong on the way comes out as a `Problem`.

Triton before 24.12 can crash when a call is cancelled or carries a deadline of gRPC's. So no call
is ever cancelled: the caller stops waiting when its time (`seconds`) is over, and the call itself
runs to its end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from contracts.probing import PROCESS_LOST
from contracts.repository import INPUT, PROBABILITIES
from contracts.resizing import Pixels
from server.engines.model import Probabilities
from server.engines.triton import retries
from server.observability import tracing
from server.problems import ContractBroken, DeadlinePassed, ModelNotReady, TritonAway

# A Triton that comes back, perhaps on another address, must be found within a second or so; gRPC's
# defaults take up to two minutes. A tensor has no limit here: Triton's max_batch_size sets it.
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # By default channels to one address share a connection, even one that answers no more.
    ("grpc.use_local_subchannel_pool", 1),
    # Triton is reached without a proxy, whatever http_proxy and similar variables say.
    ("grpc.enable_http_proxy", 0),
    # `retries` says how often a call is repeated.
    ("grpc.enable_retries", 0),
)
RESTRICTED = "This protocol is restricted"
AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN}


class Client(Protocol):
    """The calls on a connection to one Triton; `TritonClient` says what each call returns."""

    url: str

    def reconnect(self) -> None: ...
    async def close(self, patience: float) -> None: ...
    async def infer(
        self, model: str, images: Sequence[Pixels], seconds: float, extras: Sequence[str] = ()
    ) -> tuple[Probabilities, str]: ...
    async def labels(
        self, model: str, image: Pixels, classes: int, seconds: float
    ) -> list[str]: ...
    async def index(
        self, seconds: float
    ) -> list[service_pb2.RepositoryIndexResponse.ModelIndex]: ...
    async def config(self, model: str, seconds: float) -> model_config_pb2.ModelConfig: ...
    async def metadata(self, model: str, seconds: float) -> service_pb2.ModelMetadataResponse: ...
    async def statistics(self, seconds: float) -> dict[str, tuple[int, int]]: ...


class TritonClient:
    """Made inside the running event loop. Connects by itself, and again after a loss."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._calls: set[asyncio.Task[Any]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._connect()

    def _connect(self) -> None:
        self._channel = grpc.aio.insecure_channel(self.url, options=CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def reconnect(self) -> None:
        """Make a new connection; calls on the old one, where no answer comes, are not cancelled.

        When the network drops packets, a connection stays up for many minutes; and even when the
        network works again, the connection waits longer and longer before it tries again.
        """
        if self._channel.get_state() is grpc.ChannelConnectivity.READY:
            task = asyncio.create_task(_close(self._channel, set(self._calls)))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._connect()

    async def close(self, patience: float) -> None:
        """Let the calls under way end, for at most `patience` seconds, then disconnect."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=patience)
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._channel.close()

    async def infer(
        self, model: str, images: Sequence[Pixels], seconds: float, extras: Sequence[str] = ()
    ) -> tuple[Probabilities, str]:
        """Probabilities float32[N, K] of N images uint8[H, W, 3], and the version that answered.

        Each row has the outputs `extras` behind its probabilities. Triton sends no other outputs.
        Raises `TritonAway`, `ModelNotReady`, `DeadlinePassed`, or `ContractBroken` if the answer
        has another shape.
        """
        request = _request(model, images, extras)
        response = await self._call(self._stub.ModelInfer, request, seconds)
        names = (PROBABILITIES, *extras)
        _check_names(response, names)
        rows = _tensor(response, 0, model, len(images))
        if extras:
            # Triton may send the outputs in any order.
            found = {output.name: at for at, output in enumerate(response.outputs)}
            parts = [_tensor(response, found[name], model, len(images)) for name in names]
            rows = np.concatenate(parts, axis=1)
        return rows, response.model_version

    async def labels(self, model: str, image: Pixels, classes: int, seconds: float) -> list[str]:
        """The label of each class, by its index; "" where the model has none.

        Triton's classification extension answers `value:index:label`, so that no label file needs
        to be shared. `image` is uint8[H, W, 3].
        """
        request = _request(model, [image])
        request.outputs[0].parameters["classification"].int64_param = classes
        response = await self._call(self._stub.ModelInfer, request, seconds)
        _check_names(response, (PROBABILITIES,))
        labels = [""] * classes
        for entry in _strings(response.raw_output_contents[0]):
            _value, index, *label = entry.split(":", 2)
            labels[int(index)] = label[0] if label else ""
        return labels

    async def index(self, seconds: float) -> list[service_pb2.RepositoryIndexResponse.ModelIndex]:
        """Every model of the repository: name, version, state and reason.

        While engines are built, the launcher of NVIDIA's Triton closes this interface to all other
        callers, since the interface can load models as well; then the result is the models that
        Triton has loaded.
        """
        request = service_pb2.RepositoryIndexRequest()
        try:
            response = await self._call(self._stub.RepositoryIndex, request, seconds)
        except TritonAway as problem:
            if RESTRICTED not in problem.detail:
                raise
            loaded = await self._call(
                self._stub.ModelStatistics, service_pb2.ModelStatisticsRequest(), seconds
            )
            return [
                service_pb2.RepositoryIndexResponse.ModelIndex(
                    name=model.name, version=model.version, state="READY"
                )
                for model in loaded.model_stats
            ]
        return list(response.models)

    async def config(self, model: str, seconds: float) -> model_config_pb2.ModelConfig:
        """The model's config.pbtxt as Triton uses it."""
        request = service_pb2.ModelConfigRequest(name=model)
        return (await self._call(self._stub.ModelConfig, request, seconds)).config

    async def metadata(self, model: str, seconds: float) -> service_pb2.ModelMetadataResponse:
        """The model's inputs and outputs, shapes with the batch dimension."""
        request = service_pb2.ModelMetadataRequest(name=model)
        return await self._call(self._stub.ModelMetadata, request, seconds)

    async def statistics(self, seconds: float) -> dict[str, tuple[int, int]]:
        """For each model: the inferences so far, and the executions (batches) they took."""
        request = service_pb2.ModelStatisticsRequest()
        response = await self._call(self._stub.ModelStatistics, request, seconds)
        return {
            model.name: (model.inference_count, model.execution_count)
            for model in response.model_stats
        }

    async def _call(
        self, method: Callable[..., Awaitable[Any]], request: object, seconds: float
    ) -> Any:  # noqa: ANN401 - protobuf's messages have no types
        task = asyncio.ensure_future(_finish(method, request))
        self._calls.add(task)
        task.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(task)
        except TimeoutError:
            raise DeadlinePassed(f"Triton did not answer within {seconds:.3g} s") from None
        except grpc.aio.AioRpcError as error:
            raise self._problem(error) from None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: else asyncio logs it as never retrieved

    def _problem(self, error: grpc.aio.AioRpcError) -> Exception:
        code, details = error.code(), error.details() or ""
        # Triton draining says NOT_FOUND "no available versions". A model whose process is lost is
        # not asked again here, but on another Triton: as long as the supervisor has not started
        # this Triton again, its next answer may be one to another call (backends/standstill.py).
        away = ("not ready", *PROCESS_LOST)
        if code == grpc.StatusCode.NOT_FOUND or any(words in details for words in away):
            return ModelNotReady(f"Triton does not serve the model now: {details}")
        if code in AWAY:
            return TritonAway(f"Triton at {self.url} does not answer: {details}")
        return ContractBroken(f"Triton refused the request: {code.name}: {details}")


async def _close(channel: grpc.aio.Channel, calls: set[asyncio.Task[Any]]) -> None:
    try:
        if calls:
            await asyncio.wait(calls)
    finally:
        await channel.close()


async def _finish(method: Callable[..., Awaitable[Any]], request: object) -> Any:  # noqa: ANN401 - gRPC's
    metadata = tracing.metadata()
    for _ in range(retries.SAME_ADDRESS):
        try:
            return await method(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(retries.SAME_ADDRESS_PAUSE)
        if isinstance(request, service_pb2.ModelInferRequest):  # no check if Triton is there
            retries.count(retries.Kind.SAME_ADDRESS)
    return await method(request, metadata=metadata)


def _request(
    model: str, images: Sequence[Pixels], extras: Sequence[str] = ()
) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name=INPUT, datatype="UINT8", shape=(len(images), *images[0].shape))
    request.outputs.add(name=PROBABILITIES)
    for name in extras:
        request.outputs.add(name=name)
    request.raw_input_contents.append(b"".join(image.data for image in images))
    return request


def _check_names(response: service_pb2.ModelInferResponse, expected: Sequence[str]) -> None:
    names = [output.name for output in response.outputs]
    if not names:
        # Triton 2.51 answers so, as if the call had succeeded, where the model's process ends while
        # it computes. A model that never answers an output does not pass its first probe.
        raise ModelNotReady("Triton answered without an output: it has lost the model's process")
    if sorted(names) != sorted(expected):
        raise ContractBroken(f"the model answered the outputs {names}, expected {list(expected)}")
    if len(response.raw_output_contents) != len(expected):
        raise ContractBroken(f"the model answered no tensor for {' and '.join(expected)}")


def _tensor(
    response: service_pb2.ModelInferResponse, at: int, model: str, images: int
) -> Probabilities:
    """An output of the answer, float32[N, W]."""
    output = response.outputs[at]
    if output.datatype != "FP32" or len(output.shape) != 2 or output.shape[0] != images:
        raise ContractBroken(
            f"model {model!r} answered {output.name} {output.datatype}{list(output.shape)}, "
            f"expected FP32[{images}, {'classes' if output.name == PROBABILITIES else 'width'}]"
        )
    numbers = np.frombuffer(response.raw_output_contents[at], np.float32)
    if numbers.size != output.shape[0] * output.shape[1]:
        raise ContractBroken(f"model {model!r} answered {numbers.size} numbers")
    return numbers.reshape(output.shape[0], output.shape[1])


def _strings(raw: bytes) -> list[str]:
    """The elements of a BYTES tensor: each has its length in 4 bytes, little-endian, before it."""
    strings, at = [], 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "little")
        strings.append(raw[at + 4 : at + 4 + length].decode("utf-8", "replace"))
        at += 4 + length
    return strings
