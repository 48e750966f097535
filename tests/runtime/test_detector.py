"""The programs that go through the C ABI, on artifacts made here."""

from __future__ import annotations

import engines_on_disk
import onnx
import programs
import pytest
import share_detector
import tiny_artifacts as tiny

from kad_sdk.manifest import Denoise

ASAN = {
    "ASAN_OPTIONS": "detect_leaks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    made = {
        "patchcore": tiny.patchcore(),
        "cutpaste": tiny.cutpaste(),
        "tile-score": tiny.cutpaste("kernel", "tile-score", board="largest-tile"),
        "denoising": tiny.patchcore(denoise=Denoise(3.0, 4.0, 7, 21)),
    }
    return {name: tiny.write(folder / f"{name}.kad", artifact) for name, artifact in made.items()}


def failing_onnxruntime(preset: str):
    built = programs.program(preset, "failing_onnxruntime")
    return built.with_name(f"lib{built.name}.so")


@pytest.mark.parametrize("preset", ["test", "asan"])
@pytest.mark.parametrize("name", ["test_detector", "test_sessions", "test_callbacks"])
def test_api(artifacts, preset, name):
    library = programs.onnxruntime_library()
    result = programs.run(
        programs.program(preset, name), *artifacts.values(), KAD_ONNXRUNTIME=library, **ASAN
    )
    assert not result.stderr


@pytest.mark.parametrize("preset", ["test", "asan"])
def test_windows(tmp_path, preset):
    path = tiny.write(tmp_path / "windows.kad", tiny.windows())
    result = programs.run(programs.program(preset, "test_windows"), path, **ASAN)
    assert not result.stderr


def test_the_system_refuses(artifacts):
    result = programs.run(programs.program("asan", "test_system"), artifacts["patchcore"], **ASAN)
    assert result.stdout.endswith(" refusals of the system\n")


def test_threads_share_a_detector(tmp_path):
    """Under ThreadSanitizer; `make threads` does it for a minute."""
    printed = share_detector.share(3, share_detector.artifacts(tmp_path))
    assert printed.count("equal to those of one") == 2
    assert printed.count("calls cancelled as they ran") == 2


def test_threads_share_onnxruntime(tmp_path):
    printed = share_detector.share(2, share_detector.artifacts(tmp_path), "onnxruntime")
    assert printed.count("equal to those of one") == 2


@pytest.mark.parametrize("runtime", [False, True], ids=["own-network", "onnxruntime"])
def test_each_allocation_fails(artifacts, runtime):
    """What is lost the program counts itself: without a sanitizer every allocation has its turn."""
    library = failing_onnxruntime("test") if runtime else "-"
    paths = [artifacts[name] for name in ("patchcore", "cutpaste")]
    real = programs.onnxruntime_library()
    result = programs.run(
        programs.program("test", "test_memory"), "each", library, *paths, KAD_REAL_ONNXRUNTIME=real
    )
    assert result.stdout.count("memory ran out in") == 4


def test_memory_runs_out_under_sanitizers(artifacts):
    paths = [artifacts[name] for name in ("patchcore", "cutpaste")]
    result = programs.run(programs.program("asan", "test_memory"), "some", "-", *paths, **ASAN)
    assert result.stdout.count("memory ran out in") == 4


def test_onnxruntime_fails(artifacts, tmp_path):
    library = failing_onnxruntime("asan")
    paths = [artifacts[name] for name in ("patchcore", "cutpaste")]
    manifest, files = tiny.patchcore()
    unreadable = onnx.load_from_string(files["network.onnx"])
    unreadable.graph.node[0].op_type = "NoSuchOperator"
    made = (manifest, {**files, "network.onnx": unreadable.SerializeToString()})
    engines = engines_on_disk.an_engine(tmp_path / "engines", artifacts["patchcore"], batch=4)
    result = programs.run(
        programs.program("asan", "test_onnxruntime_failures"),
        *(library, engines, tiny.write(tmp_path / "unreadable.kad", made), *paths),
        KAD_REAL_ONNXRUNTIME=programs.onnxruntime_library(),
        LD_LIBRARY_PATH=engines_on_disk.nvidia("asan"),
        **ASAN,
    )
    assert result.stdout.count("failed one by one") == 2
    assert not result.stderr
