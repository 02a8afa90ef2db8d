"""The rooms of the project meet through files and protocols: none imports another."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
# What each room may import besides Python's own library and itself, by the import's first name.
ALLOWED = {
    "reference": {"flax", "jax", "matplotlib", "numpy", "optax", "PIL", "rich", "tyro"},
    "export": {
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
        "opentelemetry",
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
    "server/local_triton/backends": {"numpy", "onnxruntime", "triton_python_backend_utils"},
    "contracts": {"google", "numpy", "PIL"},
    "loadtest": {
        "fastapi",
        "onnx",
        "onnxruntime",
        "uvicorn",
        "uvloop",
        "gevent",
        "grpc",
        "httpx",
        "locust",
        "matplotlib",
        "numpy",
        "PIL",
        "rich",
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


def test_every_folder_with_code_is_a_room() -> None:
    folders = {path.parent.name for path in CHECKOUT.glob("[a-z]*/*.py")}
    assert folders - NOT_ROOMS <= set(ALLOWED)
    assert "server" in folders


def test_the_gateway_loads_no_framework() -> None:
    """Nor does anything that it imports: `make serve` installs none."""
    code = (
        "import server.__main__, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "server" in loaded
    assert not {"torch", "jax", "flax", "onnx", "onnxruntime", "export", "reference"} & set(loaded)
