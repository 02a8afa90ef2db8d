"""`python -m server.triton_alone`: the supervised Triton without a gateway, for a container.

In: flags. Out: a tritonserver that is started again whenever it dies, hangs or has lost a model's
process, until SIGINT or SIGTERM; then exit status 0, or 1 when it cannot be kept alive. Needs
Triton's environment (.venv-triton) and psutil alone, which that environment has too.
"""

import argparse
import asyncio
import logging
import os
import sys

from server.local_triton.options import add_common, fail, serve
from server.local_triton.status import Status
from server.local_triton.supervisor import LocalTriton, LocalTritonError
from server.observability import logs

logger = logging.getLogger("server.triton_alone")


def main() -> int:
    """Run until told to stop; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m server.triton_alone",
        description="Serve a model repository with the wheel's Triton, without a gateway.",
    )
    add_common(parser)
    parser.add_argument(
        "--allow-changed-models",
        action="store_true",
        help="serve models whose graph was changed after its export",
    )
    options = parser.parse_args()
    if options.allow_changed_models:
        os.environ["MIXER_ALLOW_CHANGED_MODELS"] = "1"  # as the backend reads it
    logs.set_up(options.log_level, "auto")
    triton = LocalTriton(
        options.repository,
        address=options.address,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        http_port=options.http_port,
    )
    try:
        asyncio.run(serve(options, triton, Status(triton, options.ready_when)))
    except LocalTritonError as error:
        return fail(logger, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
