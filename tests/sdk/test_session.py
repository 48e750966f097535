"""The network session: providers are used or refused, and graphs are checked."""

from __future__ import annotations

import dataclasses
import sys
import types

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from kad_sdk.errors import (
    ArtifactCorruptError,
    InvalidArgumentError,
    MissingDependencyError,
    ProviderUnavailableError,
)
from kad_sdk.recording import gpu_lock
from kad_sdk.session import Buffer, NetworkSession


@pytest.fixture(scope="module")
def tiles():
    return np.random.default_rng(3).standard_normal((5, 3, 32, 32)).astype(np.float32)


def test_runs(tiny, tiles):
    session = NetworkSession(tiny.network, threads=1)
    assert (session.provider, session.device, session.precision) == ("cpu", "cpu", "fp32")
    assert (session.input_name, session.output_names) == ("tiles", ("base_map_0", "base_map_1"))
    assert [m.shape for m in session.run(tiles)] == [(5, 5, 8, 8), (5, 6, 4, 4)]
    session.check(tiny.manifest.graph())


def test_features_depend_on_neither_threads_nor_batch(tiny, tiles):
    expected = NetworkSession(tiny.network, threads=1).run(tiles)
    two = NetworkSession(tiny.network, threads=2)
    single = [two.run(tiles[i : i + 1]) for i in range(5)]
    for layer, maps in enumerate(expected):
        np.testing.assert_array_equal(two.run(tiles)[layer], maps)
        np.testing.assert_array_equal(np.concatenate([run[layer] for run in single]), maps)


def test_wrong_options(tiny):
    with pytest.raises(
        InvalidArgumentError, match="expected one of cpu, cuda, tensorrt, got 'gpu'"
    ):
        NetworkSession(tiny.network, provider="gpu")
    with pytest.raises(InvalidArgumentError, match="threads: expected at least 1"):
        NetworkSession(tiny.network, threads=0)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_wheel_without_the_provider(tiny, monkeypatch, provider):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        ProviderUnavailableError, match=r"it has CPUExecutionProvider.*kad-sdk\[gpu"
    ):
        NetworkSession(tiny.network, provider=provider)


class FakeBinding:
    """Records what is bound."""

    def __init__(self):
        self.calls = []

    def bind_input(self, *arguments):
        self.calls.append(arguments)

    bind_output = bind_input


class FakeSession:
    """Stands for ONNX Runtime's session of a GPU wheel; records how it was made."""

    made: tuple = ()
    error: Exception | None = None
    error_on_cpu: Exception | None = None
    error_in_run: Exception | None = None
    bound: tuple = ()
    used = ("CUDAExecutionProvider", "CPUExecutionProvider")

    def __init__(self, data, sess_options, providers, provider_options, enable_fallback):
        entry = sess_options.get_session_config_entry
        if providers != ["CPUExecutionProvider"]:
            type(self).made = (
                providers,
                provider_options[0],
                enable_fallback,
                entry("session.disable_cpu_ep_fallback"),
            )
            if type(self).error is not None:
                raise type(self).error
        elif type(self).error_on_cpu is not None:
            raise type(self).error_on_cpu

    def disable_fallback(self):
        pass

    def get_providers(self):
        return list(type(self).used)

    def io_binding(self):
        return FakeBinding()

    def run_with_iobinding(self, binding, options):
        entry = options.get_run_config_entry("disable_synchronize_execution_providers")
        type(self).bound = (binding.calls, entry)
        if type(self).error_in_run is not None:
            raise type(self).error_in_run

    def get_inputs(self):
        return [types.SimpleNamespace(name="tiles", shape=["batch", 3, 32, 32])]

    def get_outputs(self):
        return [types.SimpleNamespace(name="base_map_0")]


@pytest.fixture
def gpu_wheel(monkeypatch):
    fake = type("Fake", (FakeSession,), {})
    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", fake)
    monkeypatch.setattr(
        onnxruntime,
        "preload_dlls",
        lambda: sys.stdout.write("Failed to load libcudart.so.13: cannot open shared object file"),
    )
    return fake


def test_cuda_is_asked_for_without_fallback(tiny, gpu_wheel, capfd):
    session = NetworkSession(tiny.network, provider="cuda", device_id=1)
    providers, options, enable_fallback, cpu_kernels = gpu_wheel.made
    assert providers == ["CUDAExecutionProvider"]
    assert options["use_tf32"] == "0"
    assert options["device_id"] == "1"
    assert enable_fallback == 0
    assert cpu_kernels == "1"
    assert session.device == "cuda:1"
    assert capfd.readouterr().out == ""


def test_a_network_bound_to_the_memory_of_a_gpu(tiny, gpu_wheel):
    session = NetworkSession(tiny.network, provider="cuda", device_id=1, stream=12345)
    options = gpu_wheel.made[1]
    assert options["user_compute_stream"] == "12345"
    assert options["enable_cuda_graph"] == "1"
    assert options["use_tf32"] == "0"
    tiles, maps = Buffer(1000, (4, 3, 32, 32)), Buffer(2000, (4, 5, 8, 8))
    run = session.bind(tiles, [maps])
    run()
    where = ("cuda", 1, np.float32)
    assert gpu_wheel.bound == (
        [("tiles", *where, [4, 3, 32, 32], 1000), ("base_map_0", *where, [4, 5, 8, 8], 2000)],
        "1",
    )
    gpu_wheel.error_in_run = RuntimeError("Failed to allocate memory")
    with pytest.raises(
        ProviderUnavailableError, match="on cuda:1 with a batch of 4: Failed to all"
    ):
        run()
    with pytest.raises(InvalidArgumentError, match="expected provider 'cuda' and 1 outputs, got"):
        session.bind(tiles, [maps, maps])


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_a_gpu_is_used_while_no_graph_is_recorded(tiny, tiles, gpu_wheel, monkeypatch, provider):
    shared = []

    def note(self, *arguments):
        shared.append(bool(gpu_lock._sharing))
        return [tiles]

    monkeypatch.setattr(gpu_wheel, "run", note, raising=False)
    monkeypatch.setattr(gpu_wheel, "disable_fallback", note)
    monkeypatch.setattr(gpu_wheel, "used", [f"{provider.upper()}ExecutionProvider"])
    NetworkSession(tiny.network, provider=provider).run(tiles)
    assert shared == [provider == "cuda"] * 2


def test_a_stream_is_for_cuda(tiny):
    with pytest.raises(InvalidArgumentError, match="stream: expected None with provider 'cpu'"):
        NetworkSession(tiny.network, stream=0)
    session = NetworkSession(tiny.network, threads=1)
    with pytest.raises(InvalidArgumentError, match="expected provider 'cuda' and 2 outputs, got"):
        session.bind(Buffer(0, (1, 3, 32, 32)), [])


def test_options_without_a_stream(tiny, gpu_wheel):
    NetworkSession(tiny.network, provider="cuda")
    assert "enable_cuda_graph" not in gpu_wheel.made[1]
    assert "user_compute_stream" not in gpu_wheel.made[1]


def test_a_missing_library_is_quoted(tiny, gpu_wheel):
    gpu_wheel.error = RuntimeError("nodes are assigned to the default CPU EP")
    with pytest.raises(ProviderUnavailableError) as caught:
        NetworkSession(tiny.network, provider="cuda")
    assert "nodes are assigned to the default CPU EP" in str(caught.value)
    assert "libcudart.so.13: cannot open shared object file" in str(caught.value)
    assert "nvidia-smi" in str(caught.value)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_graph_that_cannot_be_read_is_not_the_providers_fault(
    tiny, gpu_wheel, monkeypatch, provider
):
    gpu_wheel.error = RuntimeError("something of CUDA")
    monkeypatch.setattr(
        gpu_wheel, "get_inputs", lambda self: pytest.fail("a graph was read"), raising=True
    )
    error = onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph("NoSuchOperator")
    monkeypatch.setattr(gpu_wheel, "error_on_cpu", error)
    with pytest.raises(ArtifactCorruptError, match="cannot be read by ONNX Runtime: NoSuchOp"):
        NetworkSession(tiny.network, provider=provider)


@pytest.mark.parametrize("kind", ["RuntimeException", "RuntimeError", "Fail"])
def test_memory_that_runs_out_is_not_the_graphs_fault(tiny, gpu_wheel, monkeypatch, kind):
    state = onnxruntime.capi.onnxruntime_pybind11_state
    error = getattr(state, kind, RuntimeError)("std::bad_alloc")
    monkeypatch.setattr(gpu_wheel, "error_on_cpu", error)
    with pytest.raises(ProviderUnavailableError, match="3 threads: std::bad_alloc\nIf memory"):
        NetworkSession(tiny.network, threads=3)


def test_another_provider_than_asked_for_is_an_error(tiny, gpu_wheel):
    gpu_wheel.used = ("CPUExecutionProvider",)
    with pytest.raises(
        ProviderUnavailableError, match=r"asked for CUDA.*gave CPUExecutionProvider"
    ):
        NetworkSession(tiny.network, provider="cuda")


def test_onnxruntime_is_missing(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"Install kad-sdk\[cpu\], or kad-sdk\[gpu\]"):
        NetworkSession(tiny.network)


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x08\x07"])
def test_not_a_graph(data):
    refusals = "cannot be read by ONNX Runtime|the graph is empty|the graph is no ONNX file"
    with pytest.raises(ArtifactCorruptError, match=refusals):
        NetworkSession(data)


def test_the_graph_is_compared_with_the_manifest(tiny):
    session = NetworkSession(tiny.network, threads=1)
    network = tiny.manifest.network
    for changed in (
        dataclasses.replace(network, input="images"),
        dataclasses.replace(network, outputs=network.outputs[::-1]),
        dataclasses.replace(network, outputs=network.outputs[:1]),
    ):
        with pytest.raises(ArtifactCorruptError, match="expected input and outputs"):
            session.check(dataclasses.replace(tiny.manifest, network=changed).graph())


def test_a_fixed_batch_is_refused(tiny):
    def fixed(values):
        model = onnx.load_from_string(tiny.network)
        for value in values(model.graph):
            value.type.tensor_type.shape.dim[0].dim_value = 4
        return NetworkSession(model.SerializeToString(), threads=1)

    for values, name in (
        (lambda graph: [*graph.input, *graph.output], "tiles"),
        (lambda graph: graph.output[1:], "base_map_1"),
    ):
        with pytest.raises(ArtifactCorruptError, match=f"'{name}': expected a dynamic batch size"):
            fixed(values).check(tiny.manifest.graph())


def test_a_failing_run_says_so(tiny, tiles):
    session = NetworkSession(tiny.network, threads=1)
    with pytest.raises(ProviderUnavailableError, match="failed on cpu with a batch of 5"):
        session.run(tiles[:, :2])


def test_no_kernel_of_the_graph_is_left_out():
    """A graph with an unknown operator is refused when it is opened, not when it runs."""
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["b", 3])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["b", 3])
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])], "g", [value], [out]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(ArtifactCorruptError, match="NoSuchOperator"):
        NetworkSession(model.SerializeToString())


def test_a_gpu_is_not_named_for_the_cpu(tiny):
    with pytest.raises(InvalidArgumentError, match="names a GPU, and the provider is 'cpu'"):
        NetworkSession(tiny.network, device_id=1)
