"""Which of the served models were changed after their export, for GET /models.

In: settings that allow such models, and a model that is served from --repository. Out: whether its
graph still has the digest that its export wrote. A Triton elsewhere has its own repository, which
is not known here; it serves a changed model only if it was started with permission to do so.
"""

import asyncio
import functools
from pathlib import Path

from contracts.model_config import ConfigError, read_config
from contracts.repository import CONFIG_NAME, GRAPH_DIGEST, ONNX_PATH, PLAN_PATH, graph_digest
from server.engines.model import Model
from server.settings import Settings


async def is_changed(settings: Settings, model: Model) -> bool:
    """Whether the model was changed; reads the graph, in a thread, if the graph is new here."""
    here = settings.with_triton or settings.engine == "onnxruntime"
    expected = model.parameters.get(GRAPH_DIGEST)
    if not settings.allow_changed_models or not here or not expected:
        return False
    return await asyncio.to_thread(_differs, settings.repository / model.name, model, expected)


def _differs(folder: Path, model: Model, expected: str) -> bool:
    try:
        name = read_config(folder / CONFIG_NAME).default_model_filename or ONNX_PATH.name
        graph = folder / model.version / name
        status = graph.stat()
        if name == PLAN_PATH.name:  # an engine, which was built from the graph
            return False
        return _digest(graph, status.st_mtime_ns, status.st_size) != expected
    except (ConfigError, OSError):
        return False  # the model is being replaced


@functools.lru_cache(maxsize=256)
def _digest(graph: Path, _written: int, _size: int) -> str:
    return graph_digest(graph)
