"""The programs that go through the C ABI, on artifacts made here."""

from __future__ import annotations

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


@pytest.mark.parametrize("preset", ["test", "asan"])
def test_api(artifacts, preset):
    library = programs.onnxruntime_library()
    programs.run(
        programs.program(preset, "test_detector"),
        *artifacts.values(),
        KAD_ONNXRUNTIME=library,
        **ASAN,
    )


def test_threads_share_a_detector(tmp_path):
    """Under ThreadSanitizer; `make threads` does it for a minute."""
    printed = share_detector.share(3, share_detector.artifacts(tmp_path))
    assert printed.count("equal to those of one") == 2


def test_memory_runs_out(artifacts):
    paths = [artifacts[name] for name in ("patchcore", "cutpaste")]
    result = programs.run(programs.program("asan", "test_memory"), *paths, **ASAN)
    assert result.stdout.count("memory ran out in") == 4


def test_onnxruntime_fails(artifacts):
    failing = programs.program("asan", "failing_onnxruntime")
    library = failing.with_name(f"lib{failing.name}.so")
    paths = [artifacts[name] for name in ("patchcore", "cutpaste")]
    result = programs.run(
        programs.program("asan", "test_onnxruntime_failures"),
        *(library, *paths),
        KAD_REAL_ONNXRUNTIME=programs.onnxruntime_library(),
        **ASAN,
    )
    assert result.stdout.count("failed one by one") == 2
