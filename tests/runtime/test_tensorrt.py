"""Both doors look for TensorRT's engines at the same places, and take and refuse the same ones."""

from __future__ import annotations

import dataclasses
import json
import types
from contextlib import ExitStack

import engines_on_disk
import programs
import pytest
import tiny_artifacts as tiny
from engines_on_disk import HERE, an_engine, digest_of, folder_of

from kad_sdk.artifact import Artifact
from kad_sdk.errors import ProviderUnavailableError
from kad_sdk.tensorrt import Engine

SECOND = dataclasses.replace(HERE, gpu="NVIDIA RTX (TM) 6000", capability="8.6")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("artifact") / "x.kad", tiny.patchcore())


@pytest.fixture
def cache(tmp_path, artifact):
    return an_engine(tmp_path / "engines", artifact, batch=8)


def with_c(cache, artifact, *, batch=8, device=0, precision="fp32", touch=(), **environment):
    """What libkad finds, or its error."""
    given = {"LD_LIBRARY_PATH": engines_on_disk.nvidia("asan"), **environment}
    found = programs.run(
        programs.program("asan", "find_engine"),
        *(cache, digest_of(artifact), precision, batch, HERE.onnxruntime, device, *touch),
        **given,
    )
    assert not found.stderr
    return found.stdout


def with_python(cache, artifact, *, batch=8, machine=HERE, precision="fp32"):
    """What kad_sdk finds, as libkad's program prints it; None where it is refused."""
    try:
        engine = Engine.find(
            Artifact.open(artifact).network,
            types.SimpleNamespace(name="tiles", shape=["batch", 3, 32, 32]),
            machine=machine,
            cache=cache,
            batch=batch,
            precision=precision,
            device_id=0,
            build=False,
            held=ExitStack(),
        )
    except ProviderUnavailableError:
        return None
    return f"{engine.folder}\n{engine.folder.parent}\n{engine.batch}\n"


@pytest.mark.parametrize("batch", [1, 8, 9])
def test_the_same_engine_for_the_same_batches(cache, artifact, batch):
    python, c = (door(cache, artifact, batch=batch) for door in (with_python, with_c))
    if batch <= 8:
        assert c == python == f"{folder_of(cache, artifact)}\n{cache / HERE.key}\n8\n"
    else:
        assert python is None
        assert c.startswith("KAD_ERROR_PROVIDER ")
        assert "for batches of 9 tiles is needed, and the one that is there is for batches up" in c
        assert "run kad-export tensorrt ARTIFACT --batch 9 on this machine" in c


def test_another_gpu_has_a_folder_of_its_own(cache, artifact):
    assert "and there is none" in with_c(cache, artifact, device=1)
    an_engine(cache, artifact, batch=3, machine=SECOND)
    assert SECOND.key.startswith("nvidia-rtx-tm-6000-sm86-trt10.9.0-ort")
    both = (
        with_c(cache, artifact, batch=2, device=1),
        with_python(cache, artifact, batch=2, machine=SECOND),
    )
    assert both[0] == both[1] == f"{folder_of(cache, artifact, SECOND)}\n{cache / SECOND.key}\n3\n"


def change(key, value):
    def spoil(folder):
        record = json.loads((folder / "engine.json").read_text())
        *path, last = key.split(".")
        place = record
        for name in path:
            place = place[name]
        place[last] = value
        (folder / "engine.json").write_text(json.dumps(record))

    return spoil


SPOILS = {
    "sound": lambda folder: None,
    "none": lambda folder: (folder / "engine.json").unlink(),
    "empty": lambda folder: (folder / "engine.json").write_text(""),
    "no-json": lambda folder: (folder / "engine.json").write_text("{"),
    "a-list": lambda folder: (folder / "engine.json").write_text("[]"),
    "huge": lambda folder: (folder / "engine.json").write_text(" " * (1 << 20) + "{}"),
    "no-engine": lambda folder: next(folder.glob("*.engine")).unlink(),
    "no-profile": lambda folder: next(folder.glob("*.profile")).unlink(),
    "another-size": lambda folder: next(folder.glob("*.engine")).write_bytes(b"more bytes"),
    "version": change("version", 2),
    "format": change("format", "x"),
    "graph": change("graph", "0" * 32),
    "precision": change("precision", "fp16"),
    "batch-text": change("batch", "8"),
    "batch-true": change("batch", True),
    "batch-null": change("batch", None),
    "batch-real": change("batch", 8.0),
    "input": change("input", ["images", 3, 32, 32]),
    "input-size": change("input", ["tiles", 3, 64, 64]),
    "input-short": change("input", ["tiles", 3, 32]),
    "gpu": change("machine.gpu", "NVIDIA L40"),
    "capability": change("machine.capability", "9.0"),
    "tensorrt": change("machine.tensorrt", "10.9.1"),
    "onnxruntime": change("machine.onnxruntime", "1.0.0"),
    "files-none": change("files", {}),
    "files-more": change("files", {"graph_0.engine": 5, "graph_1.engine": 5}),
    "unknown": change("unknown", 1),
    "unknown-inside": change("machine.unknown", 1),
}


@pytest.mark.parametrize("name", SPOILS)
def test_what_is_no_engine_is_none_at_both_doors(cache, artifact, name):
    SPOILS[name](folder_of(cache, artifact))
    python, c = with_python(cache, artifact), with_c(cache, artifact)
    if name == "sound":
        assert c == python
    else:
        assert python is None
        assert "and there is none; libkad builds none" in c


def test_int8_is_refused_with_the_reason(cache, artifact):
    assert with_python(cache, artifact, precision="int8") is None
    assert "--precision fp16 for TensorRT" in with_c(cache, artifact, precision="int8")


def test_an_engine_that_tensorrt_replaces_is_an_error(cache, artifact):
    engine = next(folder_of(cache, artifact).glob("*.engine"))
    text = with_c(cache, artifact, touch=[engine])
    assert "has not taken the engine that is there, and has built another" in text


def test_what_is_missing_is_named(cache, artifact, tmp_path):
    text = with_c(cache, artifact, LD_LIBRARY_PATH=str(tmp_path))
    if "TensorRT is missing here" not in text:
        pytest.skip("TensorRT is here")
    assert "TensorRT is missing here: libnvinfer.so.10 cannot be loaded (libnvinfer.so.10: " in text
    assert "no CUDA-capable device is detected" in with_c(cache, artifact, FAKE_NO_GPU="1")
    assert "GPU 2: the driver says to cuDeviceGet: invalid" in with_c(cache, artifact, device=2)
