"""The launcher inside NVIDIA's Triton image: ONNX Runtime at once, TensorRT as soon as it is built.

In: a model repository, and with --engines a folder to keep engines in. Out: a supervised
tritonserver on 8001 (gRPC) and 8002 (metrics), and its health on 8003. On a GPU the engine of each
model that has a configs/tensorrt.pbtxt is built with the trtexec of this very image, while ONNX
Runtime serves the model; then Triton loads the engine and lets go of ONNX Runtime, without a gap.
Only this launcher can let it load anything. Engines are kept under a key of TensorRT's release, the
GPU's kind and the graph, so the next start takes them at once. A model whose engine cannot be built
stays with ONNX Runtime, and the log has the reason. The repository is never written to: Triton
reads a folder of links (--served). Python's own library alone: the image has none of this project's
packages.

    python3 -m deploy.triton.nvidia --repository /models --engines /engines [-- MORE FLAGS]
"""

import argparse
import asyncio
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from contracts.repository import CONFIG_NAME
from deploy.triton.engines import CONFIG, PLAN, EngineError, Model, build, gpu, key, log
from server.local_triton.command_line import LOADING, RISKY, Listen
from server.local_triton.launch import Launch, LocalTritonError, NoModelError
from server.local_triton.options import add_common, fail, path, serve
from server.local_triton.restarts import Supervisor
from server.local_triton.status import Status, quoted
from server.observability import logs

# The states of a model's engine.
NO_ENGINE, MISSING, FAILED, SERVED = "none", "missing", "failed", "served"
CHECK_S = 5.0
# This image's backend for OpenVINO computes every batch at max_batch_size, and on the CPU alone.
# ONNX Runtime serves the same graph without both.
OPENVINO = re.compile(r"""\bbackend\s*:\s*["']openvino["']""")
KIND_CPU = re.compile(r"\bkind\s*:\s*KIND_CPU\b")
# Problems that show a broken engine. A model without an answer, or without a Triton, shows none.
IS_WRONG = re.compile("is not loaded|gives class|has probabilities|no numbers")


def models_of(repository: Path) -> list[Model]:
    """The models of a repository, by name."""
    models = []
    for config in sorted(repository.glob("*/config.pbtxt")):
        versions = [each for each in config.parent.iterdir() if each.name.isdigit()]
        if versions:
            newest = max(versions, key=lambda each: int(each.name))
            models.append(Model(config.parent, newest))
    return models


def lay_out(served: Path, model: Model, engine: Path | None) -> None:
    """Copy the model's files into `served`, and link its version: the graph's or the engine's."""
    folder = served / model.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in model.folder.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    config = folder / CONFIG_NAME
    stated = config.read_text(encoding="utf-8")
    if OPENVINO.search(stated):
        log.info("%s: ONNX Runtime instead of OpenVINO, which here pads every batch", model.name)
        config.unlink()  # the copy has the rights of the original, which may be to read alone
        stated = KIND_CPU.sub("kind: KIND_AUTO", OPENVINO.sub('backend: "onnxruntime"', stated))
        config.write_text(stated, encoding="utf-8")
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


class Nvidia:
    """The image's tritonserver on one model repository: a `Program`."""

    def __init__(self, options: argparse.Namespace, models: list[Model]) -> None:
        """The repository is not laid out yet; `plan` finds out the state of each engine."""
        self._options = options
        self.models = models
        self.engines: dict[Model, Path] = {}
        self.states: dict[Model, str] = dict.fromkeys(models, NO_ENGINE)

    async def plan(self) -> None:
        """Find the folder in which each model's engine lies or will lie, if it can have one."""
        if self._options.engines is None:
            return
        try:
            capability = await gpu()
        except EngineError as error:
            log.warning("%s: ONNX Runtime serves every model", error)
            return
        for model in self.models:
            if model.tensorrt_config.is_file():
                self.engines[model] = self._options.engines / key(model, capability)
                self.states[model] = MISSING

    def missing(self) -> list[Model]:
        """The models whose engines are to be built."""
        return [
            model
            for model, folder in self.engines.items()
            if self.states[model] == MISSING and not (folder / PLAN).is_file()
        ]

    def prepare(self, folder: Path, prefix: str) -> Launch:  # noqa: ARG002 - of the wheel's alone
        """Lay out the repository with the engines that exist."""
        served = self._options.served
        shutil.rmtree(served, ignore_errors=True)
        for model in self.models:
            engine = self.engines.get(model)
            ready = engine is not None and (engine / PLAN).is_file()
            ready = ready and self.states[model] != FAILED
            lay_out(served, model, engine if ready else None)
            if ready:
                self.states[model] = SERVED
            log.info("%s: %s", model.name, "TensorRT, from the cache" if ready else "ONNX Runtime")
        building = bool(self.missing())
        return Launch(
            binary=self._options.tritonserver,
            repository=served,
            flags=[
                *([f"--model-config-name={CONFIG}"] if self.engines else []),
                # Triton accepts requests to load a model only while an engine is missing, and only
                # from this launcher, which has the key.
                *(
                    ["--model-control-mode=explicit", "--load-model=*"]
                    if building
                    else ["--model-control-mode=none"]
                ),
                *self._options.more,
            ],
            environment=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
            closed_grpc=(*RISKY, *LOADING) if building else RISKY,
        )

    def lay_out(self, model: Model, engine: Path | None) -> None:
        """Lay out the model in the served folder, with its engine or without."""
        lay_out(self._options.served, model, engine)

    def forget(self, model: Model) -> None:
        """Remove an engine that does not serve, also from the cache, and lay out the graph."""
        self.states[model] = FAILED
        shutil.rmtree(self.engines[model], ignore_errors=True)
        self.lay_out(model, None)

    def can_do_without(self, error: LocalTritonError) -> bool:
        """Whether a start without the cached engines may help; removes those that Triton refused.

        The answer is yes once, if engines of the cache were in use.
        """
        used = [model for model, state in self.states.items() if state == SERVED]
        for model in used:
            if isinstance(error, NoModelError) and model.name in error.not_loaded:
                self.forget(model)
            self.states[model] = FAILED
        if used:
            log.error("%s; starting with ONNX Runtime, without engines", error)
        return bool(used)

    def helpers(self, pid: int) -> list[int]:  # noqa: ARG002 - as the base
        """None: the backends of this image run inside tritonserver."""
        return []

    def cpu_seconds(self, pid: int, model: str | None) -> float | None:  # noqa: ARG002 - as the base
        """Unknown: a model on a GPU uses none."""
        return None

    def metrics(self) -> Iterator[str]:
        """The state of each model's engine, in Prometheus' text format."""
        yield "# HELP mixer_triton_engine The state of the model's TensorRT engine."
        yield "# TYPE mixer_triton_engine gauge"
        for model, state in self.states.items():
            yield f'mixer_triton_engine{{model={quoted(model.name)},state="{state}"}} 1'


async def build_all(program: Nvidia, trtexec: Path, supervisor: Supervisor | None) -> bool:
    """Build the missing engines one after the other, and let Triton load each.

    Returns whether all were built. Without a supervisor the engines are built and not loaded.
    """
    missing = program.missing()
    for number, model in enumerate(missing, start=1):
        position = f"{number} of {len(missing)}"
        try:
            await build(trtexec, model, program.engines[model], position)
            if supervisor is not None:
                await switch(program, model, supervisor)
                log.info("engine %s, %s: TensorRT serves it now", position, model.name)
        except (EngineError, OSError, LocalTritonError) as error:
            program.states[model] = FAILED
            text = "engine %s, %s: %s; it stays with ONNX Runtime"
            log.error(text, position, model.name, error)
    return not any(program.states[model] == FAILED for model in missing)


async def switch(program: Nvidia, model: Model, supervisor: Supervisor) -> None:
    """Let Triton load the engine instead of the ONNX graph; raises LocalTritonError."""
    await supervisor.serving.wait()
    if program.states[model] == SERVED:  # Triton was started again, and found the engine by itself
        return
    program.lay_out(model, program.engines[model])
    try:
        await supervisor.load(model.name)
        problem = await supervisor.probe(model.name)
    except LocalTritonError as error:
        problem = str(error)
    if problem:
        program.forget(model)
        await supervisor.load(model.name)
        raise LocalTritonError(f"Triton does not serve it: {problem}")
    program.states[model] = SERVED


async def look_after_engines(program: Nvidia, trtexec: Path, supervisor: Supervisor) -> None:
    """When Triton serves, build the missing engines; remove cached engines that fail."""
    await supervisor.serving.wait()
    await build_all(program, trtexec, supervisor)
    while True:
        await asyncio.sleep(CHECK_S)
        problems = supervisor.problems()
        bad = [
            model
            for model, state in program.states.items()
            if state == SERVED and IS_WRONG.search(problems.get(model.name, ""))
        ]
        for model in bad:
            text = "%s: the engine fails, since the model %s; it goes back to ONNX Runtime"
            log.error(text, model.name, problems[model.name])
            program.forget(model)
        if bad:
            supervisor.restart("an engine fails")


def tell_of_fault(task: asyncio.Task[None]) -> None:
    """Log the fault that has ended `look_after_engines`; the models are served on as they are."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.error("engines are built and checked no more: %r", fault, exc_info=fault)


async def run(options: argparse.Namespace) -> int:
    """Serve until told to stop; the exit status."""
    models = models_of(options.repository)
    if not models:
        log.error("%s holds no model (NAME/config.pbtxt and NAME/1)", options.repository)
        return 1
    program = Nvidia(options, models)
    await program.plan()
    if options.build_only:
        return 0 if await build_all(program, options.trtexec, None) else 1
    listen = Listen(options.grpc_port, options.metrics_port, options.http_port, options.address)
    supervisor = Supervisor(lambda: program, listen)
    engines = asyncio.create_task(look_after_engines(program, options.trtexec, supervisor))
    engines.add_done_callback(tell_of_fault)
    try:
        await serve(options, supervisor, Status(supervisor, options.ready_when, program.metrics))
    except LocalTritonError as error:
        return fail(log, error)
    finally:
        engines.cancel()
        await asyncio.gather(engines, return_exceptions=True)
    return 0


def main() -> int:
    """Read the command line, serve; the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m deploy.triton.nvidia", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_common(parser, address="0.0.0.0")  # noqa: S104  (an internal network)
    parser.add_argument("--engines", type=path, help="where engines are kept; none without")
    parser.add_argument(
        "--build-only",
        action="store_true",
        help="build the engines that are missing and end: 0 if all could be built, else 1",
    )
    parser.add_argument("--served", type=path, default=Path("/tmp/repository"))  # noqa: S108
    parser.add_argument("--tritonserver", default="tritonserver")
    parser.add_argument("--trtexec", type=path, default=Path("/usr/src/tensorrt/bin/trtexec"))
    parser.add_argument("more", nargs="*", help="more flags of tritonserver, after --")
    options = parser.parse_args()
    logs.set_up(options.log_level, "auto")
    return asyncio.run(run(options))


if __name__ == "__main__":
    sys.exit(main())
