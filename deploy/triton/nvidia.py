"""The launcher inside NVIDIA's Triton image: ONNX Runtime at once, TensorRT as soon as it is built.

In: a model repository, and with --engines a folder to keep engines in. Out: a tritonserver on 8001
(gRPC) and 8002 (metrics), with HTTP on loopback for the health check. On a GPU the engine of each
model that has a configs/tensorrt.pbtxt is built with the trtexec of this very image, while ONNX
Runtime serves the model; then Triton loads the engine and lets go of ONNX Runtime, without a gap.
Engines are kept under a key of TensorRT's release, the GPU's kind and the graph, so the next start
takes them at once. A model whose engine cannot be built stays with ONNX Runtime, and the log has
the reason. The repository is never written to: Triton reads a folder of links (--served).

    python3 -m deploy.triton.nvidia --repository /models --engines /engines [-- MORE FLAGS]
"""

import argparse
import asyncio
import http.client
import shutil
import signal
import sys
from pathlib import Path

from deploy.triton.engines import CONFIG, PLAN, EngineError, Model, build, gpu, key, say
from server.local_triton.command_line import LOOPBACK, Listen, command_line


def models_of(repository: Path) -> list[Model]:
    """The models of a repository, by name."""
    models = []
    for config in sorted(repository.glob("*/config.pbtxt")):
        versions = [path for path in config.parent.iterdir() if path.name.isdigit()]
        if versions:
            newest = max(versions, key=lambda path: int(path.name))
            models.append(Model(config.parent, newest))
    return models


def lay_out(served: Path, model: Model, engine: Path | None) -> None:
    """Let Triton see the model: its files, and as its version the ONNX's or the engine's folder."""
    folder = served / model.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in model.folder.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    configs = folder / "configs"
    if engine is None:
        shutil.rmtree(configs, ignore_errors=True)
    link = folder / f".{model.version.name}"
    link.unlink(missing_ok=True)
    link.symlink_to(model.version if engine is None else engine)
    link.rename(folder / model.version.name)
    if engine is not None:
        configs.mkdir(exist_ok=True)
        shutil.copy(model.tensorrt_config, configs)


async def plan(options: argparse.Namespace, models: list[Model]) -> dict[Model, Path]:
    """Where the engine of each model that can have one is, or will be."""
    if options.engines is None:
        return {}
    try:
        capability = await gpu()
    except EngineError as error:
        say(f"{error}: ONNX Runtime serves every model")
        return {}
    return {
        model: options.engines / key(model, capability)
        for model in models
        if model.tensorrt_config.is_file()
    }


def own_flags(options: argparse.Namespace, tensorrt: bool, building: bool) -> list[str]:
    """The flags that this launcher's tritonserver needs beside those of `command_line`."""
    return [
        *([f"--model-config-name={CONFIG}"] if tensorrt else []),
        # Loading can be asked for only while there is an engine to switch to.
        *(
            ["--model-control-mode=explicit", "--load-model=*"]
            if building
            else ["--model-control-mode=none"]
        ),
        *options.more,
    ]


def ask(port: int, method: str, path: str) -> tuple[int, str]:
    """Status and text of an answer on loopback; 0 while nobody listens."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=600)
    try:
        connection.request(method, path, b"{}" if method == "POST" else None)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error)
    finally:
        connection.close()


async def live(port: int) -> None:
    """Return when tritonserver answers over HTTP."""
    while True:
        status, _ = await asyncio.to_thread(ask, port, "GET", "/v2/health/live")
        if status == 200:
            return
        await asyncio.sleep(0.2)


def switch(options: argparse.Namespace, model: Model, engine: Path) -> None:
    """Let Triton load the engine in ONNX Runtime's place, or raise EngineError and leave it."""
    load = f"/v2/repository/models/{model.name}/load"
    lay_out(options.served, model, engine)
    status, answer = ask(options.http_port, "POST", load)
    if status != 200:
        lay_out(options.served, model, None)
        ask(options.http_port, "POST", load)
        raise EngineError(f"Triton does not load it: {answer}")


async def build_and_switch(options: argparse.Namespace, missing: dict[Model, Path]) -> None:
    """Build what is missing, one after the other, and let Triton load each as it is done."""
    await live(options.http_port)
    for number, (model, folder) in enumerate(missing.items(), start=1):
        position = f"{number} of {len(missing)}"
        try:
            await build(options.trtexec, model, folder, position)
            await asyncio.to_thread(switch, options, model, folder)
        except (EngineError, OSError) as error:
            say(f"engine {position}, {model.name}: {error}; it stays with ONNX Runtime")
        else:
            say(f"engine {position}, {model.name}: TensorRT serves it now")


async def run(options: argparse.Namespace) -> int:
    """Serve until tritonserver ends; its exit status."""
    models = models_of(options.repository)
    if not models:
        say(f"{options.repository} holds no model (NAME/config.pbtxt and NAME/1)")
        return 1
    planned = await plan(options, models)
    missing = {model: path for model, path in planned.items() if not (path / PLAN).is_file()}
    shutil.rmtree(options.served, ignore_errors=True)
    for model in models:
        there = model in planned and model not in missing
        lay_out(options.served, model, planned[model] if there else None)
        say(f"{model.name}: {'TensorRT, from the cache' if there else 'ONNX Runtime'}")
    process = await asyncio.create_subprocess_exec(
        *command_line(
            options.tritonserver,
            options.served,
            Listen(options.grpc_port, options.metrics_port, options.http_port, options.address),
            exit_timeout_s=10,
            more=own_flags(options, bool(planned), bool(missing)),
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, process.terminate)
    builder = asyncio.create_task(build_and_switch(options, missing))
    try:
        return await process.wait()
    finally:
        builder.cancel()
        await asyncio.gather(builder, return_exceptions=True)


def main() -> int:
    """Read the command line, serve; the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m deploy.triton.nvidia", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repository", type=Path, required=True, help="the model repository")
    parser.add_argument("--engines", type=Path, help="where engines are kept; none without")
    parser.add_argument("--served", type=Path, default=Path("/tmp/repository"))  # noqa: S108
    parser.add_argument("--tritonserver", default="tritonserver")
    parser.add_argument("--trtexec", type=Path, default=Path("/usr/src/tensorrt/bin/trtexec"))
    parser.add_argument("--address", default="0.0.0.0")  # noqa: S104  (an internal network)
    parser.add_argument("--http-port", type=int, default=8000, help="on 127.0.0.1 alone")
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    parser.add_argument("more", nargs="*", help="more flags of tritonserver, after --")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
