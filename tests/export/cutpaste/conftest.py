"""Networks that look trained, tiles for them, and one real but tiny training and its artifact."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from convert_once import convert_once
from kad_export.cli import main
from kad_export.cutpaste.network import NetworkConfig, initialise
from kad_export.cutpaste.options import TrainingOptions
from kad_export.cutpaste.train import train_cutpaste

TRAINING = (
    *("--weights", "random:0", "--tile", "32", "--stride", "32", "--epochs", "2"),
    *("--steps-per-epoch", "3", "--batch", "8", "--learning-rate", "0.01"),
    *("--validation-tiles", "8", "--seed", "5", "--device", "cpu"),
)


def _shake(network: torch.nn.Module) -> None:
    """Random statistics and scales, some of them negative or 0, as a trained network has."""
    generator = torch.Generator().manual_seed(1)
    norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    for layer in network.modules():
        if isinstance(layer, norms):
            layer.running_mean.normal_(std=0.3, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.weight.data.normal_(1, 0.3, generator=generator)
            layer.bias.data.normal_(std=0.3, generator=generator)
    network.encoder.bn1.weight.data[:3] = torch.tensor([0.0, -1.0, 0.5])


@pytest.fixture(scope="session")
def make_network():
    """Give a CutPasteNet in eval mode with batch norms that do something."""

    def make(backbone="resnet18", classes=2, weights="random:0"):
        network, _ = initialise(NetworkConfig(backbone, classes), weights, seed=0)
        _shake(network)
        return network.eval()

    return make


@pytest.fixture(scope="session")
def make_tiles():
    """Give normalised tiles (n, 3, t, t) float32: smooth noise, some with a bright blob."""

    def make(n, seed, tile=64, blobs=0):
        rng = np.random.default_rng(seed)
        tiles = []
        for i in range(n):
            image = cv2.GaussianBlur(rng.random((tile, tile, 3)).astype(np.float32), (0, 0), 2)
            if i < blobs:
                cv2.circle(image, (20 + 5 * i, 30), 6, (1.0, 0.9, 0.2), -1)
            tiles.append((image - 0.5) * 6)
        return np.ascontiguousarray(np.stack(tiles).transpose(0, 3, 1, 2), np.float32)

    return make


@pytest.fixture(scope="session")
def train_options():
    """Options of a training that takes a second: two epochs of three steps, one thread."""
    return TrainingOptions(
        weights="random:0",
        tile=32,
        stride=32,
        epochs=2,
        steps_per_epoch=3,
        batch=8,
        learning_rate=0.01,
        validation_tiles=8,
        seed=5,
        device="cpu",
        workers=1,
        threads=1,
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory, small_dataset, train_options):
    """The folder of that training; not to be changed: copy it first."""
    run = tmp_path_factory.mktemp("trained") / "small.run"
    train_cutpaste(small_dataset, run, train_options)
    return run


@pytest.fixture(scope="session")
def exported(tmp_path_factory, small_dataset, trained, graphs):
    """Export the finished training by ``kad-export cutpaste --resume``."""
    folder = tmp_path_factory.mktemp("exported")
    run = shutil.copytree(trained, folder / "small.run")
    words = (small_dataset, "--out", folder / "small.kad", "--run", run, "--resume", *TRAINING)
    with pytest.MonkeyPatch.context() as patch:
        convert_once(graphs, patch)
        done = CliRunner().invoke(main, ["cutpaste", *map(str, words), "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert "is complete" in done.stderr
    return folder / "small.kad"
