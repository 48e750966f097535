"""TensorRT's engines: found, refused or built, never built unasked; and what is missing is named.

There is no GPU in these tests: libraries that answer as the driver and TensorRT would are compiled,
and ONNX Runtime's session is replaced by one that writes an engine's files (fake_tensorrt.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor, wait

import fake_tensorrt
import pytest
from click.testing import CliRunner
from fake_tensorrt import HERE, KEY

from kad_sdk import Detector, tensorrt
from kad_sdk.cli import main as kad
from kad_sdk.errors import InvalidArgumentError, OutputError, ProviderUnavailableError
from kad_sdk.session import NetworkSession
from kad_sdk.storage import locked_folder
from kad_sdk.tensorrt import Machine


@pytest.fixture
def builder(monkeypatch, tmp_path):
    return fake_tensorrt.install(monkeypatch, tmp_path / "cache")


def opened(tiny, **given):
    return NetworkSession(tiny.network, provider="tensorrt", **{"max_batch": 8, **given})


def folder_of(tiny, tmp_path):
    digest = hashlib.sha256(tiny.network).hexdigest()[:32]
    return tmp_path / "cache" / "kad" / "tensorrt" / KEY / digest


# ---- options -------------------------------------------------------------------------------------


def test_options_of_the_provider(tiny, builder, tmp_path):
    opened(tiny, device_id=2, build_engine=True)
    folder = folder_of(tiny, tmp_path)
    assert builder.made == [
        {
            "device_id": "2",
            "trt_fp16_enable": "0",
            "trt_int8_enable": "0",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder.parent),
            "trt_profile_min_shapes": "tiles:1x3x32x32",
            "trt_profile_opt_shapes": "tiles:8x3x32x32",
            "trt_profile_max_shapes": "tiles:8x3x32x32",
        }
    ]


def test_half_precision_is_asked_for_where_the_graph_is_of_it(tiny, builder):
    session = opened(tiny, build_engine=True, precision="fp16")
    assert builder.made[0]["trt_fp16_enable"] == "1"
    assert session.precision == "fp16"


def test_int8_is_refused_with_the_reason(tiny, builder, tmp_path):
    with pytest.raises(ProviderUnavailableError, match=r"unsigned.*--precision fp16 for TensorRT"):
        opened(tiny, build_engine=True, precision="int8")
    assert not (tmp_path / "cache").exists()


# ---- engines -------------------------------------------------------------------------------------


def test_an_engine_is_never_built_unasked(tiny, builder, tmp_path):
    with pytest.raises(ProviderUnavailableError) as caught:
        opened(tiny)
    text = str(caught.value)
    assert "kad-export tensorrt ARTIFACT --batch 8" in text
    assert "--build-engine" in text
    assert f"NVIDIA L4, TensorRT 10.9.0, in {folder_of(tiny, tmp_path)}, and there is none" in text
    assert builder.made == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("lazy", [False, True])
def test_what_was_built_is_taken_afterwards(tiny, builder, tmp_path, lazy):
    builder.lazy = lazy
    session = opened(tiny, build_engine=True)
    assert session.engine.before == {}
    assert builder.batches == [8]
    record = json.loads((folder_of(tiny, tmp_path) / "engine.json").read_text())
    assert record["batch"] == 8
    assert record["machine"]["gpu"] == "NVIDIA L4"
    assert set(record["files"].values()) == {6}
    for batch in (8, 3):  # smaller ones run with the same engine, and so with its profile
        again = opened(tiny, max_batch=batch)
        assert again.engine.batch == 8
        assert builder.made[-1] == builder.made[0]
    assert builder.batches == [8]
    assert opened(tiny, build_engine=True).engine.before  # there was one: it is not built anew


def test_a_larger_batch_needs_another_engine(tiny, builder, tmp_path):
    opened(tiny, build_engine=True)
    with pytest.raises(ProviderUnavailableError, match=r"batches of 9 .* for batches up to 8"):
        opened(tiny, max_batch=9)
    assert opened(tiny, max_batch=9, build_engine=True).engine.batch == 9
    assert opened(tiny, max_batch=8).engine.batch == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gpu", "NVIDIA L40"),
        ("capability", "9.0"),
        ("tensorrt", "10.9.1"),
        ("onnxruntime", "1.23.0"),
    ],
)
def test_an_engine_of_another_machine_is_none(tiny, builder, monkeypatch, name, value):
    opened(tiny, build_engine=True)
    monkeypatch.setattr(tensorrt, "find_machine", lambda *_: Machine(**{**vars(HERE), name: value}))
    with pytest.raises(ProviderUnavailableError, match="and there is none"):
        opened(tiny)


def test_graphs_and_machines_never_share_a_folder():
    assert HERE.key == KEY
    others = [Machine(**{**vars(HERE), name: "x1"}).key for name in vars(HERE)]
    assert len({KEY, *others}) == 5
    assert Machine("//\n", "8.9", "1", "1").key.startswith("gpu-sm89")


def spoil(change):
    def spoiled(folder):
        path = folder / "engine.json"
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))

    return spoiled


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "engine.json").unlink(),
        lambda folder: (folder / "engine.json").write_text("{"),
        lambda folder: (folder / "engine.json").write_text("[]"),
        lambda folder: next(folder.glob("*.engine")).unlink(),
        lambda folder: next(folder.glob("*.engine")).write_bytes(b"short"),
        lambda folder: next(folder.glob("*.profile")).unlink(),
        spoil(lambda record: record.update(batch=True)),
        spoil(lambda record: record.update(batch="16")),
        spoil(lambda record: record.update(version=2)),
        spoil(lambda record: record.update(precision="fp16")),
        spoil(lambda record: record.update(files={})),
        spoil(lambda record: record["machine"].update(tensorrt="10.9.9")),
        spoil(lambda record: record.update(input=["tiles", 3, 64, 64])),
    ],
)
def test_a_damaged_engine_is_none_and_can_be_built_again(tiny, builder, tmp_path, damage):
    opened(tiny, build_engine=True)
    folder = folder_of(tiny, tmp_path)
    damage(folder)
    with pytest.raises(ProviderUnavailableError, match="and there is none"):
        opened(tiny)
    assert opened(tiny, build_engine=True).engine.before == {}
    assert all(path.read_bytes() == b"engine" for path in folder.glob("*.engine"))
    assert opened(tiny).engine.before


def test_two_who_build_at_once_build_one_engine(tiny, builder, tmp_path):
    folder = folder_of(tiny, tmp_path)
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(2) as pool:
        with locked_folder(folder):
            opening = [pool.submit(opened, tiny, build_engine=True) for _ in range(2)]
            assert not wait(opening, timeout=0.5).done
            assert builder.made == []
        sessions = [future.result() for future in opening]
    assert builder.batches == [8]
    assert sorted(bool(session.engine.before) for session in sessions) == [False, True]


def test_an_engine_that_tensorrt_replaces_is_an_error(tiny, builder):
    opened(tiny, build_engine=True)
    builder.stubborn = True
    with pytest.raises(ProviderUnavailableError, match=r"has not taken .* kad-export tensorrt --f"):
        opened(tiny)


def test_no_engine_after_a_build_is_an_error(tiny, builder, tmp_path):
    builder.idle = True
    with pytest.raises(ProviderUnavailableError, match="has left no engine there"):
        opened(tiny, build_engine=True)
    assert not (folder_of(tiny, tmp_path) / "engine.json").exists()


def test_anew_builds_in_any_case(tiny, builder, tmp_path):
    opened(tiny, build_engine=True)
    timing = folder_of(tiny, tmp_path).parent / "cache_sm89.timing"
    assert timing.read_bytes() == b"times"
    assert opened(tiny, build_engine="anew", max_batch=4).engine.before == {}
    assert opened(tiny, max_batch=4).engine.batch == 4


def test_a_folder_that_cannot_be_made(tiny, builder, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(OutputError, match="name another one in XDG_CACHE_HOME"):
        opened(tiny, build_engine=True)


def test_engines_are_tensorrts(tiny):
    with pytest.raises(InvalidArgumentError, match="engines are TensorRT's, and the provider is"):
        NetworkSession(tiny.network, build_engine=True)


# ---- doors ---------------------------------------------------------------------------------------


def test_a_detector_is_refused_without_an_engine(tiny_artifact, builder):
    with pytest.raises(ProviderUnavailableError, match=r"--batch 16 on this machine"):
        Detector.open(tiny_artifact, "tensorrt")
    assert builder.made == []


def test_the_command_line_is_refused_alike(tiny_artifact, builder, tmp_path):
    words = ["verify", str(tiny_artifact), "--provider", "tensorrt"]
    result = CliRunner().invoke(kad, words)
    assert result.exit_code == 1
    assert "an engine for batches of" in result.stderr
    assert "Traceback" not in result.stderr
    assert builder.made == []
    CliRunner().invoke(kad, [*words, "--build-engine"])  # what the fake gives is no base map
    assert len(builder.made) == 1


# ---- the libraries -------------------------------------------------------------------------------

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return flags == 0 ? INIT : 1; }
int cuDeviceGet(int *device, int id) { *device = 40 + id; return id < 2 ? 0 : 101; }
int cuDeviceGetName(char *name, int n, int device) {
  strncpy(name, device == 41 ? "NVIDIA L4" : "Other", n);
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? device - 32 : -1;
  return 0;
}
int cuGetErrorString(int error, const char **text) {
  *text = error == 101 ? "invalid device ordinal" : "no CUDA-capable device is detected";
  return 0;
}
"""
ASK = "from kad_sdk.tensorrt import find_machine; print(find_machine(1, '1.22.0').key)"


@pytest.fixture
def libraries(tmp_path):
    """Compile libraries that answer as NVIDIA's; ask for the machine where they are found."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")

    def build(name, text, *flags):
        (tmp_path / "source.c").write_text(text)
        out = tmp_path / "lib" / name
        out.parent.mkdir(exist_ok=True)
        words = [compiler, "-shared", "-fPIC", *flags, "-o", out, tmp_path / "source.c"]
        subprocess.run(words, check=True)

    def ask(text=ASK):
        environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path / "lib")}
        return subprocess.run(
            [sys.executable, "-c", text],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return types.SimpleNamespace(build=build, ask=ask)


def with_tensorrt(libraries, number=101302):
    libraries.build("libnvinfer.so.10", f"int getInferLibVersion(void) {{ return {number}; }}")


def test_gpu_and_version_are_asked_of_the_libraries(libraries):
    with_tensorrt(libraries)
    libraries.build("libcuda.so.1", DRIVER, "-DINIT=0")
    assert libraries.ask().stdout.strip() == "nvidia-l4-sm89-trt10.13.2-ort1.22.0"
    first = ASK.replace("(1,", "(0,")
    assert libraries.ask(first).stdout.strip() == "other-sm88-trt10.13.2-ort1.22.0"
    assert "GPU 2: the driver says to cuDeviceGet: invalid device ordinal. Look at nvidia-smi" in (
        libraries.ask(ASK.replace("(1,", "(2,")).stderr
    )


def test_a_driver_without_a_gpu_is_quoted(libraries):
    with_tensorrt(libraries)
    libraries.build("libcuda.so.1", DRIVER, "-DINIT=100")
    assert "says to cuInit: no CUDA-capable device is detected" in libraries.ask().stderr


def test_a_missing_tensorrt_is_named(libraries):
    libraries.build("libcuda.so.1", DRIVER, "-DINIT=0")
    text = libraries.ask().stderr
    if "TensorRT is missing here" not in text:
        pytest.skip("TensorRT is here")
    assert "TensorRT is missing here: libnvinfer.so.10 cannot be loaded (libnvinfer.so.10: " in text
    assert "cannot open shared object file" in text
    assert "NVIDIA's wheel tensorrt" in text


def test_a_missing_driver_is_named(libraries):
    with_tensorrt(libraries)
    text = libraries.ask().stderr
    if "libcuda.so.1 cannot be loaded" not in text:
        pytest.skip("NVIDIA's driver is here")
    assert "NVIDIA's driver is missing here" in text


def test_tensorrt_is_found_in_nvidias_wheel(libraries, tmp_path):
    libraries.build("libcuda.so.1", DRIVER, "-DINIT=0")
    wheel = tmp_path / "site" / "tensorrt_libs"
    wheel.mkdir(parents=True)
    (wheel / "__init__.py").touch()
    with_tensorrt(libraries, 101005)
    shutil.move(tmp_path / "lib" / "libnvinfer.so.10", wheel)
    libraries.build("libnvonnxparser.so.10", "int parser_is_here(void) { return 7; }")
    shutil.move(tmp_path / "lib" / "libnvonnxparser.so.10", wheel)
    text = (
        f"import ctypes, sys; sys.path.insert(0, {str(wheel.parent)!r}); {ASK}; "
        "print(ctypes.CDLL(None).parser_is_here())"
    )
    assert libraries.ask(text).stdout.split() == ["nvidia-l4-sm89-trt10.10.5-ort1.22.0", "7"]
