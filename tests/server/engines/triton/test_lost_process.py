"""A model whose process is lost is not ready, whichever of its words Triton has for that.

The real Triton says one of these only if the process ends while it holds a lock, and answers
without an output only if it ends in a certain moment, so here a server of gRPC does so.
tests/server/engines/triton/test_outages.py has the real one.
"""

import asyncio

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from server.engines.triton.client import TritonClient
from server.problems import ModelNotReady


class Lost(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc] # no types
    """Answers each inference with an error, or without words as a success that has no output."""

    def __init__(self, words: str) -> None:
        self._words = words

    async def ModelInfer(  # noqa: N802 - Triton's name
        self,
        request: service_pb2.ModelInferRequest,  # noqa: ARG002 - as the base
        context: grpc.aio.ServicerContext,
    ) -> service_pb2.ModelInferResponse:
        if self._words:
            await context.abort(grpc.StatusCode.INTERNAL, self._words)
        return service_pb2.ModelInferResponse(model_name="m", model_version="1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        *((words, words) for words in (
            "Stub process 'm_0_0' is not healthy.",
            "Stub process is not healthy.",
            "Failed to obtain the health mutex.",
        )),
        ("", "answered without an output"),
    ],
)  # fmt: skip
def test_a_lost_process_is_a_model_that_is_not_ready(words: str, said: str) -> None:
    async def main() -> None:
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Lost(words), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        client = TritonClient(f"127.0.0.1:{port}")
        try:
            with pytest.raises(ModelNotReady, match=said):
                await client.infer("m", [np.zeros((2, 2, 3), np.uint8)], 10.0)
            with pytest.raises(ModelNotReady, match=said):
                await client.labels("m", np.zeros((2, 2, 3), np.uint8), 2, 10.0)
        finally:
            await client.close(1.0)
            await server.stop(None)

    asyncio.run(main())
