"""Several Tritons and several gateways on one machine, started for a measurement.

In: a model repository, a model, the numbers of Tritons and gateways. Out: the servers, with the
facts that a measurement asks for: the pid of a tritonserver, the number of images that it has
classified, whether a gateway uses a given number of Tritons.
"""

import re
import shutil
from pathlib import Path

from contracts.model_config import config_text, read_config
from loadtest.machine.conditions import cores
from loadtest.servers.launch import Server, free_port, gateway, get
from loadtest.servers.processes import TRITONSERVER, named


class Triton(Server):
    """A Triton with a supervisor, which starts it again on the same port when it ends by itself."""

    def __init__(self, repository: Path, model: str) -> None:
        self.model = model
        self.grpc_port, self._metrics, http_port = free_port(), free_port(), free_port()
        arguments = (
            *("server.triton_alone", "--log-level", "error", "--repository", str(repository)),
            *("--grpc-port", str(self.grpc_port), "--metrics-port", str(self._metrics)),
            *("--http-port", str(http_port)),
        )
        super().__init__(arguments, http_port, f"/v2/models/{model}/ready", own_session=False)

    @property
    def server_pid(self) -> int:
        """The process id of tritonserver itself; 0 while there is no such process."""
        found = named(self.pid, TRITONSERVER)
        return found[0].pid if found else 0

    def images(self) -> int:
        """The number of images that this Triton has classified since it started."""
        _, text = get(f"http://127.0.0.1:{self._metrics}/metrics")
        pattern = rf'^nv_inference_count{{model="{self.model}",version="\d+"}} (\d+)'
        return sum(map(int, re.findall(pattern.encode(), text, re.MULTILINE)))


def gateway_before(tritons: list[Triton]) -> Server:
    """A gateway that uses these Tritons."""
    url = ",".join(f"127.0.0.1:{triton.grpc_port}" for triton in tritons)
    flags = ("--triton-url", url, "--default-model", tritons[0].model)
    return gateway(*flags, own_session=False)


def uses(server: Server, count: int) -> bool:
    """Whether a gateway uses exactly `count` Tritons now."""
    _, text = get(f"{server.url}/metrics")
    return f"\nmixer_triton_replicas {count}.0\n".encode() in text


def share_cores(repository: Path, model: str, tritons: int, folder: Path) -> Path:
    """Copy the model into `folder` with as many threads as one Triton's share of the cores."""
    shutil.copytree(repository / model, folder / model)
    config = folder / model / "config.pbtxt"
    threads = max(1, cores() // tritons)
    changed = read_config(config)
    changed.parameters["intra_op_thread_count"].string_value = str(threads)
    config.write_text(config_text(changed), encoding="utf-8")
    return folder
