"""The rooms of the project meet through files and protocols: none imports another."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
# What each room may import besides Python's own library and itself, by the import's first name.
ALLOWED = {
    "reference": {
        "flax",
        "jax",
        "matplotlib",
        "numpy",
        "onnxruntime",
        "optax",
        "orbax",
        "PIL",
        "rich",
        "tensorboardX",
        "tyro",
    },
    "export": {
        "google_crc32c",
        "httpx2",
        "huggingface_hub",
        "numpy",
        "onnx",
        "onnx_ir",
        "onnxruntime",
        "onnxscript",
        "PIL",
        "rich",
        "safetensors",
        "torch",
        "tyro",
    },
    "server": {
        "fastapi",
        "grpc",
        "httptools",
        "numpy",
        "onnxruntime",
        "opentelemetry",
        "openvino",
        "PIL",
        "prometheus_client",
        "psutil",
        "pydantic",
        "pydantic_settings",
        "python_multipart",
        "rich",
        "starlette",
        "tritonclient",
        "uvicorn",
        "uvloop",
    },
    # Runs inside Triton, in an environment of its own.
    "server/local_triton/backends": {
        "batched",
        "standstill",
        "jax",
        "numpy",
        "server",  # of which two modules are copied beside the backends
        "triton_python_backend_utils",
    },
    # A leaf, which no room's name is in.
    "contracts": {"google", "numpy", "PIL", "pillow_heif", "tritonclient"},
    "loadtest": {
        "fastapi",
        "onnx",
        "onnxruntime",
        "uvicorn",
        "uvloop",
        "gevent",
        "grpc",
        "httptools",
        "httpx",
        "locust",
        "markdown_it",
        "matplotlib",
        "mlperf_loadgen",
        "mosec",
        "numpy",
        "PIL",
        "psutil",
        "rich",
        "scipy",
        "tritonclient",
        "tyro",
    },
}
NOT_ROOMS = {"tests", "docs", "requirements", "model_repository", "deploy"}


def sources(room: str) -> list[Path]:
    """The room's own files; those of a room within it are not."""
    nested = [CHECKOUT / other for other in ALLOWED if other.startswith(f"{room}/")]
    return [
        path
        for path in sorted((CHECKOUT / room).rglob("*.py"))
        if not any(path.is_relative_to(folder) for folder in nested)
    ]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and first name of each import in the file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.lineno, node.module.partition(".")[0]


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    allowed = {room, *ALLOWED[room], *sys.stdlib_module_names}
    if room != "server/local_triton/backends":
        allowed.add("contracts")
    strangers = [
        f"{path.relative_to(CHECKOUT)}:{line} imports {name}"
        for path in sources(room)
        for line, name in imports(path)
        if name not in allowed
    ]
    assert not strangers


# What `make test-ROOM` does not install.
TESTS_LACK = {
    "contracts": {"reference", "loadtest", "torch", "jax", "onnx", "onnxruntime", "fastapi"},
    "server": {"export", "reference", "loadtest", "torch", "jax"},
    "reference": {"server", "export", "loadtest", "torch", "fastapi", "onnx"},
}


@pytest.mark.parametrize("room", TESTS_LACK)
def test_the_tests_of_a_room_import_only_what_is_installed_for_them(room: str) -> None:
    """Nor do the helpers that they import; what needs several rooms is a test of the system."""
    waiting = [CHECKOUT / "tests/conftest.py", *(CHECKOUT / "tests" / room).rglob("*.py")]
    seen: set[Path] = set()
    strangers = []
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
                for name in (node.module, *(f"{node.module}.{each.name}" for each in node.names)):
                    module = CHECKOUT / f"{str(name).replace('.', '/')}.py"
                    waiting += [module] if module.exists() else []
        strangers += [
            f"{path.relative_to(CHECKOUT)}:{line} imports {name}"
            for line, name in imports(path)
            if name in TESTS_LACK[room]
        ]
    assert len(seen) > 3
    assert not strangers


def test_triton_s_message_comes_in_at_one_place_alone() -> None:
    """Training, say, needs no gRPC: only what reads config.pbtxt does."""
    users = {
        path.name
        for path in sources("contracts")
        if {name for _, name in imports(path)} & {"google", "tritonclient"}
    }
    assert users == {"model_config.py"}


def test_every_folder_with_code_is_a_room() -> None:
    folders = {path.parent.name for path in CHECKOUT.glob("[a-z]*/*.py")}
    assert folders - NOT_ROOMS <= set(ALLOWED)
    assert "server" in folders


def test_the_gateway_loads_no_framework() -> None:
    """Nor does anything that it imports: `make serve` installs none."""
    code = (
        "import server.__main__, server.client, server.process.program, server.similar, sys; "
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "server" in loaded
    assert not {"torch", "jax", "flax", "onnx", "onnxruntime", "export", "reference"} & set(loaded)


# The rooms of server/ from the outside to the inside. An import only points down this list.
FLOORS = (
    ("__main__",),
    ("similar", "triton_alone"),
    ("client",),
    ("process",),
    ("web",),
    ("serving",),
    ("serving.images",),
    ("engines.openvino",),
    ("engines.onnxruntime", "engines.triton"),
    ("engines",),
    ("local_triton",),
    ("observability",),
    ("problems", "settings"),
    ("host",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Programs of their own, and what is chosen in one place: who may import these.
ONLY_FROM = {
    "engines.onnxruntime": {"server.engines.openvino.session", "server.web.app"},
    "engines.triton": {"server.web.app"},
    "local_triton": {"server.process.program", "server.triton_alone"},
}


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def graph_of(folder: str) -> dict[str, set[str]]:
    """For each module of the folder those of the folder that it imports, inside functions too."""
    modules = {module_of(path): path for path in sources(folder)}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert not node.level, f"{module}: imports are absolute"
                found = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in modules else node.module for name in found]
            graph[module] |= {name for name in names if name in modules and name != module}
    return graph


def room_of(module: str) -> str:
    """The innermost room of server/ that the module lies in; "" is the package itself."""
    inside = module.removeprefix("server").removeprefix(".")
    rooms = [room for room in FLOOR_OF if f"{inside}.".startswith(f"{room}.")]
    return max(rooms, key=len, default=inside)


def test_imports_inside_the_server_point_down() -> None:
    graph = graph_of("server")
    assert {room_of(module) for module in graph} == {*FLOOR_OF, ""}
    upward = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if room_of(other)
        and room_of(module) != room_of(other)
        and FLOOR_OF[room_of(module)] >= FLOOR_OF[room_of(other)]
    ]
    assert not upward
    side = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if room_of(module) != room_of(other)
        and module not in ONLY_FROM.get(room_of(other), {module})
    ]
    assert not side


@pytest.mark.parametrize("room", sorted({name.partition("/")[0] for name in ALLOWED}))
def test_no_imports_form_a_circle(room: str) -> None:
    graph = graph_of(room)
    assert graph
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' → '.join(error.args[1])}")


def test_serving_and_engines_know_no_http() -> None:
    """What they do for a request could be done for any protocol."""
    strangers = [
        f"{path.relative_to(CHECKOUT)}:{line} imports {name}"
        for room in ("server/serving", "server/engines")
        for path in sorted((CHECKOUT / room).rglob("*.py"))
        for line, name in imports(path)
        if name in {"fastapi", "starlette", "uvicorn", "httptools", "python_multipart"}
    ]
    assert not strangers
