"""Checkpoints: what is written is read, and what is not one is told apart."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from kad_export.cutpaste.augment import AugmentationSettings
from kad_export.cutpaste.checkpoint import (
    load_checkpoint,
    read_document,
    to_tensors,
    write_document,
)
from kad_export.cutpaste.options import TrainingOptions
from kad_export.errors import CheckpointError

from kad_sdk.manifest import Denoise


@pytest.fixture
def checkpoint(trained):
    return trained / "best.safetensors"


def test_it_tells_all_that_an_export_needs(checkpoint, train_options):
    found = load_checkpoint(checkpoint)
    network = found.network()
    assert not network.training
    kept = ("tile", "stride", "epochs", "batch", "learning_rate", "seed", "augmentation", "variant")
    for name in kept:
        assert getattr(found.options, name) == getattr(train_options, name), name
    assert (found.run.steps, found.run.batch, found.run.optimizer) in [(3, 8, "sgd"), (6, 8, "sgd")]
    assert (found.weights.source, found.weights.name) == ("random", "random:0")
    assert (found.learnt.images, found.learnt.tiles) == (3, 60)
    assert (found.preprocessing.tile, found.preprocessing.normalisation) == (32, "imagenet")


def test_the_bytes_hang_on_the_content_alone(tmp_path, checkpoint):
    arrays, document, _ = read_document(checkpoint)
    shuffled = dict(reversed(list(arrays.items())))
    write_document(tmp_path / "copy", shuffled, dict(reversed(list(document.items()))))
    assert (tmp_path / "copy").read_bytes() == checkpoint.read_bytes()


def test_it_is_a_plain_safetensors_file(checkpoint):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    arrays, document, _ = read_document(checkpoint)
    found = load_file(checkpoint)
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    with safe_open(checkpoint, "np") as file:
        assert json.loads(file.metadata()["kad"]) == document


def test_options_come_back_from_settings():
    options = TrainingOptions(
        resize=(300, 200),
        denoise=Denoise(3.0, 3.0, 7, 21),
        variant="3-way",
        augmentation=AugmentationSettings(scar_width=(3, 9), transparency=20.0),
        seed=9,
    )
    settings = json.loads(json.dumps(dataclasses.asdict(options)))
    assert TrainingOptions.restored(settings) == options


def _cut(path, arrays, document):
    path.write_bytes(path.read_bytes()[:-7])


def _plain(path, arrays, document):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.float32)}, path)


def _other_format(path, arrays, document):
    write_document(path, arrays, {**document, "format_version": 2})


def _no_settings(path, arrays, document):
    write_document(path, arrays, {k: v for k, v in document.items() if k != "settings"})


def _other_network(path, arrays, document):
    write_document(path, arrays, {**document, "config": {"backbone": "resnet50", "classes": 2}})


def _more_classes(path, arrays, document):
    write_document(path, arrays, {**document, "config": {"backbone": "resnet18", "classes": 3}})


def _nan(path, arrays, document):
    broken = arrays["head.0.weight"].copy()
    broken[3, 4] = np.nan
    write_document(path, {**arrays, "head.0.weight": broken}, document)


def _missing(path, arrays, document):
    write_document(path, {k: v for k, v in arrays.items() if k != "classifier.bias"}, document)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, "is damaged"),
        (_plain, "a safetensors file without kad's metadata, so no checkpoint"),
        (_other_format, "expected a kad-cutpaste-checkpoint of version 1, got"),
        (_no_settings, "settings"),
        (_other_network, "it is of another network"),
        (_more_classes, r"classifier\.weight: expected .*\(3, 128\), got .*\(2, 128\)"),
        (_nan, r"head\.0\.weight holds NaN or Inf"),
        (_missing, r"classifier\.bias is missing"),
    ],
)
def test_what_is_none_is_refused(tmp_path, checkpoint, spoil, message):
    path = tmp_path / "spoilt.safetensors"
    path.write_bytes(checkpoint.read_bytes())
    arrays, document, _ = read_document(checkpoint)
    spoil(path, arrays, document)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(path)
    assert str(path.name) in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.safetensors cannot be read: No such file"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_tensors_have_memory_of_their_own(checkpoint):
    arrays, _, _ = read_document(checkpoint)
    tensors = to_tensors(arrays)
    tensors["classifier.bias"] += 1
    assert not torch.equal(tensors["classifier.bias"], torch.tensor(arrays["classifier.bias"]))
