"""Small artifacts of every kind, made without PyTorch: what the graphs compute means nothing.

Golden tiles are zeros: nothing here looks at more of them than their shapes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from kad_sdk._native import NativeIndex
from kad_sdk.artifact import write_artifact
from kad_sdk.artifact_folder import file_entry
from kad_sdk.manifest import (
    Bank,
    BaseMapNetwork,
    Coreset,
    CutPaste,
    CutPasteGolden,
    CutPasteManifest,
    CutPasteTolerance,
    CutPasteTraining,
    Density,
    MapSettings,
    Network,
    NetworkOutput,
    PatchCore,
    PatchCoreGolden,
    PatchCoreManifest,
    Preprocessing,
    Thresholds,
    Tolerance,
    Training,
    Weights,
    Windows,
)
from kad_sdk.patchcore import map_layout
from kad_sdk.tensors import encode_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from kad_sdk.manifest import Manifest

TILE, STRIDE, SEED = 32, 16, 20261127
CHANNELS = (5, 6)
SIDES = {"same-bilinear": (8, 4), "valid-adaptive": (6, 3)}  # of the base maps
RESAMPLINGS = {"same-bilinear": "bilinear", "valid-adaptive": "adaptive-average"}
GRID, ROWS, IMAGES = (8, 8), 60, ("a.png", "b é.png", "c.png")
EMBEDDING, SAMPLES, CAM = 16, 24, (8, 8)


def model(
    nodes: list[Any],
    outputs: dict[str, tuple[int | str, ...]],
    constants: list[Any],
    sides: tuple[int | str, int | str] = (TILE, TILE),
) -> bytes:
    """Give an ONNX graph from tiles (B, 3, TILE, TILE) to named outputs, as bytes."""
    tiles = helper.make_tensor_value_info("tiles", TensorProto.FLOAT, ["batch", 3, *sides])
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name, shape in outputs.items()
    ]
    graph = helper.make_graph(nodes, "tiny", [tiles], ports, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(made, full_check=True)
    return made.SerializeToString()


def _values(name: str, *shape: int) -> np.ndarray:
    values = np.random.default_rng([SEED, *map(ord, name)]).standard_normal(shape)
    return values.astype(np.float32) / 3


def _constant(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(_values(name, *shape), name)


def _pooled(source: str, to: str, kernel: int) -> Any:
    sides = [kernel, kernel]
    return helper.make_node("AveragePool", [source], [to], kernel_shape=sides, strides=sides)


def base_map_graph(weights: list[np.ndarray], sides: tuple[int, int]) -> bytes:
    """Give a graph of two layers: 3x3 convolution, ReLU, average pooling over TILE / side px."""
    nodes, constants, outputs = [], [], {}
    for i, (weight, side) in enumerate(zip(weights, sides, strict=True)):
        constants.append(numpy_helper.from_array(weight, f"w{i}"))
        nodes += [
            helper.make_node("Conv", ["tiles", f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
            _pooled(f"r{i}", f"base_map_{i}", TILE // side),
        ]
        outputs[f"base_map_{i}"] = (len(weight), side, side)
    return model(nodes, outputs, constants)


def _window_graph(channels_of: tuple[int, int]) -> bytes:
    """Give a graph of dynamic height and width: cells of 4 and of 8 px, a reach of 7 px."""
    nodes, constants, source, outputs = [], [], "tiles", {}
    for i, (taken, given) in enumerate(((3, 4), (4, channels_of[0]), channels_of)):
        constants.append(_constant(f"w{i}", given, taken, 3, 3))
        to = f"base_map_{i - 1}" if i else "r0"
        nodes += [
            helper.make_node(
                "Conv", [source, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1], strides=[2, 2]
            ),
            helper.make_node("Relu", [f"c{i}"], [to]),
        ]
        source = to
        if i:
            outputs[to] = (given, f"height_{i}", f"width_{i}")
    return model(nodes, outputs, constants, ("height", "width"))


def _embedding_graph(*, explain: bool) -> bytes:
    nodes = [
        helper.make_node("Conv", ["tiles", "w0"], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("GlobalAveragePool", ["r0"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "classes"], ["logits"]),
    ]
    constants = [_constant("w0", 6, 3, 3, 3), _constant("head", 6, EMBEDDING)]
    constants.append(_constant("classes", EMBEDDING, 2))
    outputs: dict[str, tuple[int, ...]] = {"logits": (2,), "embedding": (EMBEDDING,)}
    if explain:
        constants.append(_constant("w1", 1, 6, 1, 1))
        nodes += [
            helper.make_node("Conv", ["r0", "w1"], ["c1"]),
            helper.make_node("Relu", ["c1"], ["r1"]),
            _pooled("r1", "cam", TILE // CAM[0]),
        ]
        outputs["cam"] = (1, *CAM)
    return model(nodes, outputs, constants)


def _run(network: bytes, tiles: np.ndarray) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"tiles": tiles}), strict=True))


def _noise(count: int) -> np.ndarray:
    generator = np.random.default_rng(SEED)
    return generator.normal(0.9, 0.1, (count, 3, TILE, TILE)).astype(np.float32)


def _common(
    *,
    resize: Any = None,
    stride: int = STRIDE,
    board: str = "map-peak",
    threshold: float = 0.4,
    denoise: Any = None,
) -> dict[str, Any]:
    return {
        "created_by": {"kad-sdk": "0.1.0"},
        "preprocessing": Preprocessing(
            tile=TILE,
            stride=stride,
            train_stride=TILE,
            resize=resize,
            mean=(0.5, 0.45, 0.4),
            std=(0.25, 0.3, 0.2),
            normalisation="dataset",
            denoise=denoise,
        ),
        "map": MapSettings(sigma=2.0, radius=8),
        "thresholds": Thresholds(board, threshold, 0.1, threshold, 0.07, "fixed", 8, 4),
        "training": Training("folder", 3, 8, "0" * 64),
        "verification": {"scores": {"max_abs": 0.0}},
    }


def in_precision(graph: bytes, precision: str) -> bytes:
    """Bring a graph to a precision as an export does."""
    if precision == "fp16":
        from kad_export.half import to_half

        return to_half(graph)
    if precision == "int8":
        from kad_export.quantize import to_int8

        return to_int8(graph, [_noise(16)])
    return graph


def _network(kind: type[Network], precision: str = "fp32", **more: Any) -> Any:
    weights = Weights("random", "random:7", None)
    return kind(
        file="network.onnx",
        backbone="tiny",
        weights=weights,
        opset=18,
        precision=precision,
        input="tiles",
        **more,
    )


def patchcore(
    pooling: str = "same-bilinear",
    reweighting: str = "thesis",
    n_neighbors: int = 3,
    *,
    channels: tuple[int, int] = CHANNELS,
    rows: int = ROWS,
    precision: str = "fp32",
    in_windows: bool = False,
    **common: Any,
) -> tuple[Manifest, dict[str, Any]]:
    """Give manifest and files of a PatchCore artifact, as :func:`write_artifact` takes them."""
    sides = SIDES[pooling]
    if in_windows:
        graph = _window_graph(channels)
    else:
        weights = [_values(f"w{i}", n, 3, 3, 3) for i, n in enumerate(channels)]
        graph = base_map_graph(weights, sides)
    network = in_precision(graph, precision)
    generator = np.random.default_rng(SEED)
    noise = _noise(16 if rows == ROWS else 40)
    maps = _run(network, noise).values()
    dims = sum(channels)
    enlarged = [np.repeat(np.repeat(m, 2, 2), 2, 3)[:, :, : sides[0], : sides[0]] for m in maps]
    enlarged[0] = next(iter(_run(network, noise).values()))
    pool = np.concatenate(enlarged, axis=1).transpose(0, 2, 3, 1).reshape(-1, dims)
    bank = np.ascontiguousarray(pool[generator.choice(len(pool), rows, replace=False)])
    between = np.array([np.linalg.norm(bank - row, axis=-1) for row in bank])
    np.fill_diagonal(between, np.inf)
    outputs = tuple(
        NetworkOutput(f"base_map_{i}", *size)
        for i, size in enumerate(zip(channels, sides, sides, strict=True))
    )
    manifest = PatchCoreManifest(
        network=_network(BaseMapNetwork, precision, layers=("layer2", "layer3"), outputs=outputs),
        patchcore=PatchCore(RESAMPLINGS[pooling], pooling, GRID, reweighting, n_neighbors),
        bank=Bank(
            file="bank.safetensors",
            rows=rows,
            dims=dims,
            images=IMAGES,
            coreset=Coreset(
                *("random", 0.08, None, None, None, "float32", 512, 3, 11),
                *(0.5, 0.5, 2.0),
            ),
        ),
        golden=PatchCoreGolden("golden.safetensors", 1, Tolerance(1e-4, 1e-4)),
        **_common(**common),
    )
    golden = {
        "tiles": np.zeros((1, TILE, TILE, 3), np.uint8),
        "score": np.zeros(1, np.float32),
        "anomalous": np.zeros(1, np.uint8),
        "dist": np.zeros((1, GRID[0] * GRID[1]), np.float32),
        **{o.name: np.zeros((1, o.channels, o.height, o.width), np.float32) for o in outputs},
    }
    tensors = {
        "bank": bank,
        "neighbors": np.argsort(between, axis=1, kind="stable")[:, :8].astype(np.int64),
        "source_image": generator.integers(0, len(IMAGES), rows).astype(np.int32),
        "source_xy": generator.integers(0, 4000, (rows, 2)).astype(np.int32),
    }
    return manifest, {
        "network.onnx": network,
        "bank.safetensors": tensors,
        "golden.safetensors": golden,
    }


def windows(window: int = 64, margin: int = 8, **more: Any) -> tuple[Manifest, dict[str, Any]]:
    """Give manifest and files of a PatchCore artifact that scores boards in windows."""
    manifest, files = patchcore(in_windows=True, **more)
    settings = dataclasses.replace(
        manifest.patchcore,
        resampling="aligned-bilinear",
        mode="windows",
        windows=Windows(window, 16, 8, 4, margin),
    )
    return dataclasses.replace(manifest, patchcore=settings), files


def indexed(pooling: str = "same-bilinear") -> tuple[Manifest, dict[str, Any]]:
    """Give manifest and files of a PatchCore artifact with a bank that is worth an index."""
    manifest, files = patchcore(pooling, channels=(40, 56), rows=1100)
    tensors = files["bank.safetensors"]
    digest = file_entry(encode_tensors(tensors)).sha256
    layout = map_layout(manifest.network.outputs, manifest.patchcore)
    index = NativeIndex(tensors["bank"], layout=layout).store(digest)
    bank = dataclasses.replace(manifest.bank, index_file="index.safetensors")
    return dataclasses.replace(manifest, bank=bank), {
        **files,
        "index.safetensors": {"index": index},
    }


def cutpaste(
    kind: str = "gaussian", map_kind: str = "grad-cam", **common: Any
) -> tuple[Manifest, dict[str, Any]]:
    """Give manifest and files of a CutPaste artifact, as :func:`write_artifact` takes them."""
    explains = map_kind == "grad-cam"
    network = _embedding_graph(explain=False)
    embeddings = _run(network, _noise(SAMPLES))["embedding"]
    covariance = np.cov(embeddings.T) + 1e-3 * np.eye(EMBEDDING)
    density: dict[str, np.ndarray] = {"samples": embeddings}
    if kind == "gaussian":
        density = {
            "mean": embeddings.mean(axis=0),
            "cholesky": np.linalg.cholesky(covariance).astype(np.float32),
        }
    manifest = CutPasteManifest(
        network=_network(Network),
        cutpaste=CutPaste(
            classes=2,
            embedding_dims=EMBEDDING,
            anomalous_class=1,
            map=map_kind,
            explain_file="explain.onnx" if explains else None,
            map_grid=CAM if explains else (1, 1),
        ),
        density=Density(
            kind,
            "density.safetensors",
            SAMPLES,
            0.1 if kind == "gaussian" else None,
            None if kind == "gaussian" else 0.25,
        ),
        golden=CutPasteGolden("golden.safetensors", 1, CutPasteTolerance(1e-4, 1e-4, 1e-4)),
        cutpaste_training=CutPasteTraining(
            *(1, 0, 10, 4, "sgd", 1e-4, 0, {"scheme": "thesis"}, None, "0" * 64)
        ),
        **_common(**common),
    )
    golden = {
        "tiles": np.zeros((1, TILE, TILE, 3), np.uint8),
        "score": np.zeros(1, np.float32),
        "anomalous": np.zeros(1, np.uint8),
        "logits": np.zeros((1, 2), np.float32),
        "embedding": np.zeros((1, EMBEDDING), np.float32),
    }
    files: dict[str, Any] = {"network.onnx": network, "density.safetensors": density}
    if explains:
        golden["cam"] = np.zeros((1, *CAM), np.float32)
        files["explain.onnx"] = _embedding_graph(explain=True)
    return manifest, {**files, "golden.safetensors": golden}


def write(path: Path, made: tuple[Manifest, dict[str, Any]], **changes: Any) -> Path:
    """Write an artifact; `changes` replace files, by name with '_' for '.', or the manifest."""
    manifest, files = made
    manifest = changes.pop("manifest", manifest)
    replaced = {name.replace("_", ".", 1): content for name, content in changes.items()}
    return write_artifact(path, dataclasses.replace(manifest, files={}), {**files, **replaced})


def board(seed: int, height: int, width: int) -> np.ndarray:
    """Give an RGB board: bright, faint noise, dark squares at places of its own."""
    generator = np.random.default_rng([SEED, seed])
    image = 200 + generator.integers(-12, 13, (height, width, 3))
    for _ in range(3):
        y, x = generator.integers(0, height - 12), generator.integers(0, width - 12)
        image[y : y + 12, x : x + 12] = generator.integers(0, 256, 3)
    return image.astype(np.uint8)
