"""What the tests of the local Triton do to it: ask it, kill it, stop it, look for remains."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from server.local_triton.launch import LocalTritonError
from server.local_triton.process import SHARED_MEMORY
from server.local_triton.stubs import children
from server.local_triton.supervisor import LocalTriton
from tests.stack import DEFAULT_MODEL

IMAGE = np.arange(32 * 32 * 3).astype(np.uint8).reshape(1, 32, 32, 3)


def infer(url: str, model: str = DEFAULT_MODEL) -> npt.NDArray[np.float32] | None:
    """The model's probabilities for IMAGE; None when it does not answer."""
    image = triton_grpc.InferInput("image", IMAGE.shape, "UINT8")
    image.set_data_from_numpy(IMAGE)
    with triton_grpc.InferenceServerClient(url) as client:
        try:
            answer: npt.NDArray[np.float32] = client.infer(model, [image]).as_numpy("probabilities")
        except InferenceServerException:
            return None
    return answer


def shared_memory(launcher: int) -> list[Path]:
    return list(SHARED_MEMORY.glob(f"mixer_serving_{launcher}_*"))


def refusal(triton: LocalTriton) -> str:
    with pytest.raises(LocalTritonError) as caught:
        asyncio.run(triton.run())
    return str(caught.value)


def kill_server(triton: LocalTriton) -> None:
    assert triton.pid is not None
    os.kill(triton.pid, signal.SIGKILL)


def kill_stub(triton: LocalTriton) -> None:
    assert triton.pid is not None
    os.kill(children(triton.pid)[0], signal.SIGKILL)


def stop_for_good(server: int) -> "subprocess.Popen[bytes]":
    """Stop its stubs: like one that waits for a lock which tritonserver held when it was killed.

    Gives a process to be waited for, which the kernel needs: without a member that has its parent
    elsewhere it wakes a group that loses its leader (setpgid(2), orphaned process groups).
    """
    member = subprocess.Popen(["sleep", "600"], process_group=server)
    for stub in children(server):
        os.kill(stub, signal.SIGSTOP)
    return member
