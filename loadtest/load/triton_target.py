"""Triton itself as a target, over gRPC; and Triton's own statistics.

In: Triton's gRPC address, a model, images. Out: checked answers, statistics. The images are decoded
and resized beforehand, so that the difference between the two ways is the work of the gateway.
"""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contracts.repository import INPUT, PROBABILITIES
from loadtest.load import answers
from loadtest.load.sample_images import SampleImage
from loadtest.load.target import PATIENCE, Answered, TargetError

OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # ignore http_proxy: a proxy would be measured too
)
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
NANOSECONDS = 1e9


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Triton's counts for one model since the model was loaded."""

    images: int
    executions: int  # batches
    failed: int
    requests: int
    queue_seconds: float  # of all requests together
    compute_seconds: float  # of all executions together

    def __sub__(self, earlier: "Statistics") -> "Statistics":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(earlier), strict=True)
        return Statistics(*(later - before for later, before in pairs))


@dataclasses.dataclass(frozen=True)
class About:
    """The facts about a model that Triton reports."""

    height: int
    width: int
    instances: int
    max_batch_size: int
    queue_delay_us: int
    threads: int  # of one instance; 0: what the cores allow


class Triton:
    """A connection to one Triton."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        # From serialized request to serialized answer.
        self.raw_infer = self._channel.unary_unary(MODEL_INFER)

    async def close(self) -> None:
        """Disconnect."""
        await self._channel.close()

    async def version(self) -> str:
        """Triton's version; raises TargetError."""
        metadata = await self._call(
            self.stub.ServerMetadata, service_pb2.ServerMetadataRequest(), "its version"
        )
        return str(metadata.version)

    async def about(self, model: str) -> About:
        """Input size and batching of a model; raises TargetError."""
        request = service_pb2.ModelConfigRequest(name=model)
        config = (await self._call(self.stub.ModelConfig, request, model)).config
        height, width, _ = next(each.dims for each in config.input if each.name == INPUT)
        counts = [int(group.count) * max(1, len(group.gpus)) for group in config.instance_group]
        delay = config.dynamic_batching.max_queue_delay_microseconds
        stated = config.parameters["intra_op_thread_count"].string_value or "0"
        threads = int(stated) if stated.isdecimal() else 0
        return About(height, width, max(1, sum(counts)), config.max_batch_size, delay, threads)

    async def statistics(self, model: str) -> Statistics:
        """Triton's counts for a model so far; raises TargetError."""
        request = service_pb2.ModelStatisticsRequest(name=model)
        found = (await self._call(self.stub.ModelStatistics, request, model)).model_stats[0]
        stats = found.inference_stats
        return Statistics(
            images=found.inference_count,
            executions=found.execution_count,
            failed=stats.fail.count,
            requests=stats.success.count,
            queue_seconds=stats.queue.ns / NANOSECONDS,
            # Not inference_stats.compute_infer, which counts a batch once for each request in it.
            compute_seconds=sum(b.compute_infer.ns for b in found.batch_stats) / NANOSECONDS,
        )

    async def answer(
        self, model: str, pixels: npt.NDArray[np.uint8], output: str
    ) -> npt.NDArray[np.float32]:
        """One output, float32[K], for one image uint8[H, W, 3]; raises TargetError."""
        request = _request(model, pixels, output)
        found = await self._call(self.stub.ModelInfer, request, f"{output} of {model}")
        row: npt.NDArray[np.float32] = _rows(found)[0]
        return row

    async def _call(self, method: Any, request: object, what: str) -> Any:  # noqa: ANN401 - protobuf
        try:
            async with asyncio.timeout(PATIENCE):
                return await method(request)
        except grpc.aio.AioRpcError as error:
            raise TargetError(f"Triton at {self.address}: {what}: {error.details()}") from None
        except TimeoutError:
            raise TargetError(f"Triton at {self.address} does not answer") from None


class TritonTarget:
    """ModelInfer of one model, one image per request, as clients of the gateway send them.

    Requests are serialized once, which saves a tenth of the CPU time that a request costs this
    program.
    """

    images = 1

    def __init__(
        self,
        triton: Triton,
        requests: list[bytes],
        right: list[answers.Probabilities],
        tolerance: float,
    ) -> None:
        self._infer = triton.raw_infer
        self._requests = requests
        self._right = right
        self._tolerance = tolerance

    @classmethod
    async def prepare(
        cls, triton: Triton, model: str, sample_images: Sequence[SampleImage], precision: str
    ) -> "TritonTarget":
        """Record the right answers; raises TargetError."""
        about = await triton.about(model)
        requests = []
        for image in sample_images:
            request = _request(model, image.pixels(about.height, about.width), PROBABILITIES)
            requests.append(request.SerializeToString())
        target = cls(triton, requests, [], answers.TOLERANCE.get(precision, 1e-3))
        for request in requests:
            try:
                target._right.append(_rows(_parsed(await triton.raw_infer(request))))
            except grpc.aio.AioRpcError as error:
                raise TargetError(f"Triton at {triton.address}: {error.details()}") from None
        return target

    async def ask(self, number: int) -> Answered:
        """One image."""
        place = number % len(self._requests)
        call = self._infer(self._requests[place])
        # A call that takes too long is not cancelled: Triton before 24.12 can crash when it is.
        if not await _done(call, PATIENCE):
            return Answered(f"no answer within {PATIENCE:.0f} s", 0)
        try:
            rows = _rows(_parsed(await call))
        except grpc.aio.AioRpcError as error:
            return Answered(f"{error.code().name}: {error.details()}"[:200], 0)
        except TargetError as error:
            return Answered(str(error), 0)
        problem = answers.wrong_rows(rows, self._right[place], self._tolerance)
        return Answered(f"wrong answer: {problem}" if problem else "")


async def _done(call: Any, seconds: float) -> bool:  # noqa: ANN401 - a call of gRPC
    """Whether the call ends within so many seconds; the call is not cancelled."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[bool] = loop.create_future()

    def end(found: bool) -> None:
        if not ended.done():
            ended.set_result(found)

    call.add_done_callback(lambda _: end(True))
    timer = loop.call_later(seconds, end, False)
    try:
        return await ended
    finally:
        timer.cancel()


def _request(
    model: str, pixels: npt.NDArray[np.uint8], output: str
) -> service_pb2.ModelInferRequest:
    """ModelInfer of one image uint8[H, W, 3], for one output."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name=INPUT, datatype="UINT8", shape=(1, *pixels.shape))
    request.outputs.add(name=output)
    request.raw_input_contents.append(pixels.tobytes())
    return request


def _parsed(answer: bytes) -> service_pb2.ModelInferResponse:
    return service_pb2.ModelInferResponse.FromString(answer)


def _rows(response: service_pb2.ModelInferResponse) -> answers.Probabilities:
    """The only output, float32[N, K]; raises TargetError."""
    if len(response.outputs) != 1 or len(response.raw_output_contents) != 1:
        # Triton 2.51 answers so where the model's process ends while it computes.
        raise TargetError("Triton answered without an output")
    rows = np.frombuffer(response.raw_output_contents[0], np.float32)
    return rows.reshape(tuple(response.outputs[0].shape))
