"""What a load test says of a Triton that answers without an output.

Triton 2.51 does so only if a model's process ends in a certain moment, so here a server of gRPC
does it.
"""

import asyncio

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from loadtest.load.target import TargetError
from loadtest.load.triton_target import Triton, TritonTarget


class Empty(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc] # no types
    """Answers each inference as a success without an output."""

    async def ModelInfer(  # noqa: N802 - Triton's name
        self,
        request: service_pb2.ModelInferRequest,
        context: grpc.aio.ServicerContext,  # noqa: ARG002 - as the base
    ) -> service_pb2.ModelInferResponse:
        return service_pb2.ModelInferResponse(model_name=request.model_name)


def test_an_answer_without_an_output_has_failed() -> None:
    async def main() -> None:
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Empty(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        triton = Triton(f"127.0.0.1:{port}")
        try:
            with pytest.raises(TargetError, match="without an output"):
                await triton.answer("m", np.zeros((2, 2, 3), np.uint8), "logits")
            right = np.full((1, 2), 0.5, np.float32)
            answered = await TritonTarget(triton, [b""], [right], 1e-3).ask(0)
            assert (answered.error, answered.status) == ("Triton answered without an output", 0)
        finally:
            await triton.close()
            await server.stop(None)

    asyncio.run(main())
