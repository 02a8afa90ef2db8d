"""An INT8 model that was exported on a CPU with VNNI gives its answers on one without, too."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from contracts.cpu import EXACT, cpu_flags, int8_is_exact
from contracts.model_config import config_text, read_config
from server.engines.onnxruntime.session import session_options
from tests import exported
from tests.waiting import CHECKOUT

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
TRITON_PYTHON = CHECKOUT / ".venv-triton/bin/python"
PROGRAM = """
import sys
{first}
flags = {flags}
from pathlib import Path
import numpy as np
import {module} as module
if flags is not None:
    module.cpu_flags = lambda: flags
config = {config}
session = module.open_session(config, Path(sys.argv[1]), "1")
np.save(sys.argv[3], session.run(["logits"], {{"image": np.load(sys.argv[2])}})[0])
"""
Logits = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported.published_int8("mixer_tiny", tmp_path_factory.mktemp("int8") / "repository")


def answers(
    folder: Path,
    engine: str,
    *emulator: str,
    python: str | Path = sys.executable,
    flags: tuple[str, ...] | None = None,
    environment: dict[str, str] | None = None,
    parameters: dict[str, str] | None = None,
    first: str = "",
) -> Logits:
    """Of the golden images, by a process of its own, as a backend opens the model.

    `flags` are those that the engine sees instead of this machine's, which an emulator shows too.
    """
    config = {
        "input": [{"name": "image"}],
        "output": [{"name": "logits"}],
        "parameters": {key: {"string_value": value} for key, value in (parameters or {}).items()},
    }
    images, given = folder.parent / "images.npy", folder.parent / "logits.npy"
    np.save(images, exported.golden_logits("mixer_tiny")[0])
    module = f"server.engines.{engine}.session"
    program = PROGRAM.format(first=first, module=module, config=config, flags=flags)
    done = subprocess.run(
        [*emulator, python, "-c", program, folder, images, given],
        cwd=CHECKOUT,
        env={"PATH": "/usr/bin:/bin", "ORT_DISABLE_TELEMETRY": "1"} | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Logits = np.load(given)
    return found


@pytest.mark.skipif(platform.machine() != "x86_64", reason="is about kinds of x86-64")
@pytest.mark.skipif(not QEMU, reason="needs qemu-x86_64: Debian's package `qemu-user-static`")
def test_onnx_runtime_answers_on_a_haswell_as_with_vnni(folder: Path) -> None:
    """Emulated: AVX2 without VNNI."""
    haswell = (str(QEMU), "-cpu", "Haswell")
    expected = answers(folder, "onnxruntime")
    there = answers(folder, "onnxruntime", *haswell, flags=("avx2",))
    np.testing.assert_array_equal(there, expected)
    # What ONNX Runtime would answer there if it were left to itself.
    itself = {EXACT: "0"}
    alone = answers(folder, "onnxruntime", *haswell, flags=("avx2",), parameters=itself)
    assert np.abs(alone - expected).max() > 0.1


@pytest.mark.parametrize("flags", [["avx512_vnni"], ["avx2", "avx_vnni"], ["avx2"]])
def test_onnx_runtime_is_slowed_down_only_where_it_would_be_wrong(
    flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.cpu.platform.machine", lambda: "x86_64")
    monkeypatch.setattr("server.engines.onnxruntime.session.cpu_flags", lambda: flags)
    options = session_options({})
    if flags == ["avx2"]:
        assert options.get_session_config_entry(EXACT) == "1"
    else:
        with pytest.raises(RuntimeError, match=EXACT):
            options.get_session_config_entry(EXACT)


def test_the_setting_for_other_cpus_changes_no_bit_here(folder: Path) -> None:
    expected = answers(folder, "onnxruntime")
    exact = answers(folder, "onnxruntime", parameters={EXACT: "1"})
    np.testing.assert_array_equal(exact, expected)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="is about kinds of x86-64")
def test_openvino_leaves_int8_to_onnx_runtime_where_its_products_are_cut_off(folder: Path) -> None:
    """Its library is told to use no more than AVX2; the flags are those of such a CPU, or not."""
    avx2 = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    without = answers(folder, "openvino", python=TRITON_PYTHON, flags=("avx2",), environment=avx2)
    np.testing.assert_allclose(without, answers(folder, "onnxruntime"), atol=1e-5)
    vnni = ("avx512_vnni",)
    alone = answers(folder, "openvino", python=TRITON_PYTHON, flags=vnni, environment=avx2)
    assert np.abs(alone - without).max() > 0.1


def test_without_openvino_onnx_runtime_computes_what_asks_for_it(folder: Path) -> None:
    """In an environment of Triton that lacks the package, as one made before has it."""
    expected = answers(folder, "onnxruntime", python=TRITON_PYTHON)
    first = "sys.modules['openvino'] = None"  # so that an import fails
    alone = answers(folder, "openvino", python=TRITON_PYTHON, first=first)
    np.testing.assert_array_equal(alone, expected)
    if int8_is_exact(cpu_flags()):
        assert (answers(folder, "openvino", python=TRITON_PYTHON) != expected).any()


def test_the_gate_says_on_which_cpu_it_was_passed(folder: Path) -> None:
    config = read_config(folder / "config.pbtxt")
    said = config.parameters["gate_cpu_flags"].string_value
    assert said == (" ".join(cpu_flags()) or platform.machine())
    assert said in config_text(config)
