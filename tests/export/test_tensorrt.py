"""The command kad-export tensorrt: engines of every graph, told about, where scoring finds them."""

from __future__ import annotations

import re
import time
import types

import fake_tensorrt
import onnxruntime
import pytest
import tiny_artifacts as tiny
from click.testing import CliRunner
from fake_tensorrt import KEY
from kad_export import tensorrt
from kad_export.cli import main
from kad_export.report import Console
from kad_export.tensorrt import EngineOptions, build_engines

from kad_sdk import Detector
from kad_sdk.errors import ArtifactError, InvalidArgumentError, ProviderUnavailableError


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Made before ONNX Runtime is replaced."""
    made = {
        "cutpaste": tiny.cutpaste("gaussian", "grad-cam"),
        **{
            precision: tiny.patchcore(precision=precision) for precision in ("fp32", "fp16", "int8")
        },
    }
    folder = tmp_path_factory.mktemp("artifacts")
    return {name: tiny.write(folder / f"{name}.kad", one) for name, one in made.items()}


@pytest.fixture
def artifact(artifacts):
    return artifacts["fp32"]


@pytest.fixture
def builder(monkeypatch, tmp_path, artifacts):
    """A fake whose session has the ports of the tiny artifact."""
    fake = fake_tensorrt.install(monkeypatch, tmp_path / "cache")
    outputs = [
        types.SimpleNamespace(name=f"base_map_{i}", shape=["batch", *shape], type="tensor(float)")
        for i, shape in enumerate([(5, 8, 8), (6, 4, 4)])
    ]
    tiles = types.SimpleNamespace(name="tiles", shape=["batch", 3, 32, 32], type="tensor(float)")
    monkeypatch.setattr(fake, "get_inputs", lambda _: [tiles])
    monkeypatch.setattr(fake, "get_outputs", lambda _: outputs)
    return fake


def run(*words):
    return CliRunner().invoke(main, ["tensorrt", *map(str, words)])


def test_scoring_takes_the_engine_that_was_built(artifact, builder):
    before = {path: path.read_bytes() for path in artifact.iterdir()}
    result = run(artifact, "--batch", 4)
    assert result.exit_code == 0, result.output
    assert "NVIDIA L4, compute capability 8.9" in result.stdout
    assert "TensorRT 10.9.0, ONNX Runtime 1.22.0" in result.stdout
    assert re.search(r"network.onnx +6 B, batches up to 4; built, ", result.stdout)
    assert KEY in result.stdout
    assert "an engine for batches up to 4; it can take minutes" in result.stderr
    assert {path: path.read_bytes() for path in artifact.iterdir()} == before
    detector = Detector.open(artifact, "tensorrt", 1, 4)
    assert detector.provider == "tensorrt"
    assert builder.made[1] == builder.made[0]
    with pytest.raises(ProviderUnavailableError, match=r"batches of 5 .* up to 4"):
        Detector.open(artifact, "tensorrt", 1, 5)
    with pytest.raises(ProviderUnavailableError, match="--batch 16"):
        Detector.open(artifact, "tensorrt", 1)


def test_what_is_there_is_left_unless_forced(artifact, builder):
    (folder,) = build_engines(artifact, EngineOptions(batch=4))
    built = (folder / "engine.json").stat().st_mtime_ns
    assert "was there already" in run(artifact, "--batch", 4).stdout
    assert (folder / "engine.json").stat().st_mtime_ns == built
    assert "batches up to 4; built" in run(artifact, "--batch", 4, "--force").stdout
    assert (folder / "engine.json").stat().st_mtime_ns > built


def test_cutpaste_has_an_engine_for_each_graph(artifacts, builder):
    folders = build_engines(artifacts["cutpaste"])
    assert len(set(folders)) == 2
    assert all((folder / "engine.json").is_file() for folder in folders)


def test_the_precision_is_that_of_the_artifact(artifacts, builder):
    build_engines(artifacts["fp16"])
    assert builder.made[0]["trt_fp16_enable"] == "1"
    with pytest.raises(ProviderUnavailableError, match="Export with --precision fp16"):
        build_engines(artifacts["int8"])


def test_a_long_build_is_told_about(artifact, builder, monkeypatch, capsys):
    monkeypatch.setattr(tensorrt, "TELL_EVERY_S", 0.02)
    build = builder._build
    monkeypatch.setattr(builder, "_build", lambda self: (time.sleep(0.1), build(self)))
    build_engines(artifact, console=Console())
    told = re.findall(r"network.onnx: building for [0-9.]+ s", capsys.readouterr().err)
    assert len(told) >= 2
    time.sleep(0.1)
    assert capsys.readouterr().err == ""  # whoever told has stopped


def test_a_wheel_without_tensorrt_is_refused_by_name(artifact, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    result = run(artifact)
    assert result.exit_code == 1
    assert "has no TensorrtExecutionProvider" in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_arguments(artifact, tmp_path, builder):
    assert run(artifact, "--batch", 0).exit_code == 2
    assert run(artifact, "--device-id", -1).exit_code == 2
    for wrong in ({"batch": 0}, {"batch": 5000}, {"device_id": -1}):
        with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
            EngineOptions(**wrong)
    with pytest.raises(ArtifactError):
        build_engines(tmp_path / "none.kad")
    assert builder.made == []
