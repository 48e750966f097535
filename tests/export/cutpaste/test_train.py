"""Training: the same losses for the same seed, through kills too; bad input loses nothing.

The network is a narrow one, since a run writes all of it again and again;
test_full_width.py has one of full width.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil

import numpy as np
import pytest
import torch
from cutpaste_runs import curves, make_narrow, weights
from kad_export.cutpaste import train as module
from kad_export.cutpaste.checkpoint import load_checkpoint, read_document
from kad_export.cutpaste.options import TrainingOptions
from kad_export.cutpaste.run_folder import RunFolder, Validation
from kad_export.cutpaste.train import train_cutpaste
from kad_export.data import tile_statistics
from kad_export.errors import CheckpointError, MemoryBudgetError, TrainingError
from kad_export.report import Console
from kad_export.weights import load_weights

from kad_sdk.dataset import scan_dataset
from kad_sdk.errors import InvalidArgumentError, OutputError, ProviderUnavailableError
from kad_sdk.tensors import encode_tensors

STEPS = 3  # of an epoch; there are two


@pytest.fixture(scope="module", autouse=True)
def narrow():
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_dataset, train_options, narrow):
    """The folder of a training; not to be changed: copy it first."""
    run = tmp_path_factory.mktemp("trained") / "narrow.run"
    train_cutpaste(small_dataset, run, train_options)
    return run


class Killed(BaseException):
    """Stands for a signal that no code can catch."""


def test_the_seed_decides_every_loss(tmp_path, small_dataset, train_options, trained):
    """Neither workers, nor memory for decoded boards, nor how often is saved changes a bit."""
    again = dataclasses.replace(train_options, workers=3, checkpoint_seconds=0.0)
    train_cutpaste(small_dataset, tmp_path / "again", again)
    assert curves(tmp_path / "again") == curves(trained)
    assert weights(tmp_path / "again") == weights(trained)
    assert len(curves(trained)[0]) == 4 * 2 * STEPS


def test_another_seed_is_another_training(tmp_path, small_dataset, train_options, trained):
    other = dataclasses.replace(train_options, seed=6, epochs=1)
    train_cutpaste(small_dataset, tmp_path / "other", other)
    assert curves(tmp_path / "other")[0] != curves(trained)[0][: 4 * STEPS]


def test_tiles_may_be_normalised_by_their_own_statistics(tmp_path, small_dataset, train_options):
    own = dataclasses.replace(train_options, normalisation="dataset", epochs=1)
    found = load_checkpoint(train_cutpaste(small_dataset, tmp_path / "own", own)).preprocessing
    mean, std, _ = tile_statistics(
        scan_dataset(small_dataset).train,
        tile=own.tile,
        stride=own.train_stride or own.stride,
        resize=own.resize,
        denoise=None,
        threads=1,
    )
    assert found.normalisation == "dataset"
    assert np.allclose((found.mean, found.std), (mean, std), atol=0.02)  # boards held out


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        ("_step", STEPS + 2),
        ("_judge", 1),  # between the last step of an epoch and its judgement
        ("_is_last", 1),  # the best checkpoint is written, the state is not
    ],
)
def test_a_stop_at_any_moment_can_be_gone_on_from(
    monkeypatch, tmp_path, small_dataset, train_options, trained, moment, count
):
    run, calls = tmp_path / "run", itertools.count(1)
    original = getattr(module._Trainer, moment)

    def stop(self, *words):
        if next(calls) == count:
            raise Killed
        return original(self, *words)

    options = dataclasses.replace(train_options, checkpoint_seconds=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(module._Trainer, moment, stop)
        with pytest.raises(Killed):
            train_cutpaste(small_dataset, run, options)
    train_cutpaste(small_dataset, run, dataclasses.replace(options, resume=True))
    assert curves(run) == curves(trained)
    assert weights(run) == weights(trained)


@pytest.mark.parametrize("freeze_epochs", [0, 1])
def test_adam_goes_on_too(monkeypatch, tmp_path, small_dataset, train_options, freeze_epochs):
    adam = dataclasses.replace(
        train_options, optimizer="adam", checkpoint_seconds=0.0, freeze_epochs=freeze_epochs
    )
    train_cutpaste(small_dataset, tmp_path / "whole", adam)
    original = module._Trainer._save

    def stop(self):
        original(self)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module._Trainer, "_save", stop)
        with pytest.raises(Killed):
            train_cutpaste(small_dataset, tmp_path / "stopped", adam)
    train_cutpaste(small_dataset, tmp_path / "stopped", dataclasses.replace(adam, resume=True))
    assert curves(tmp_path / "stopped") == curves(tmp_path / "whole")


def test_given_layers_stay_as_they_are_for_the_epochs_asked_for(
    tmp_path, small_dataset, train_options
):
    """Weights that end with layer3: layer4 and the head learn from the first epoch on."""
    whole = load_weights("random:0", "resnet18").state_dict
    last = ("layer4.", "fc.")
    trunk = {name: tensor.numpy() for name, tensor in whole.items() if not name.startswith(last)}
    (tmp_path / "trunk.safetensors").write_bytes(b"".join(encode_tensors(trunk)))
    start = {f"encoder.{name}": array.tobytes() for name, array in trunk.items()}
    changed = []
    for epochs in (1, 2):
        options = dataclasses.replace(
            train_options,
            weights=str(tmp_path / "trunk.safetensors"),
            epochs=epochs,
            freeze_epochs=1,
        )
        run = tmp_path / f"{epochs}.run"
        train_cutpaste(small_dataset, run, options)
        arrays, _, _ = read_document(RunFolder(run).last)
        state = {name.removeprefix("network/"): array for name, array in arrays.items()}
        changed.append({name for name in start if state[name].tobytes() != start[name]})
        assert len(np.unique(state["encoder.layer4.0.bn1.running_mean"])) > 1  # 0 at the start
    assert changed == [set(), set(start)]


def test_tensorboard_has_each_step_once(tmp_path, small_dataset, train_options, trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = shutil.copytree(trained, tmp_path / "run")
    events = EventAccumulator(str(RunFolder(run).curves))
    events.Reload()
    found = events.Scalars("train/loss")
    assert [event.step for event in found] == list(range(2 * STEPS))
    assert np.array([event.value for event in found], np.float32).tobytes() == curves(run)[0]
    rates = [event.value for event in events.Scalars("train/learning_rate")]
    half_cosine = 0.005 * (1 + np.cos(np.pi * np.arange(2 * STEPS) / (2 * STEPS)))
    np.testing.assert_allclose(rates, half_cosine, rtol=1e-6)
    assert [event.step for event in events.Scalars("held-out/loss")] == [STEPS - 1, 2 * STEPS - 1]


def test_the_best_epoch_is_kept_and_training_stops_when_it_gets_no_better(
    monkeypatch, capsys, tmp_path, small_dataset, train_options
):
    losses = iter([0.5, 0.4, 0.41, 0.45, 0.3])

    def judge(self):
        loss = next(losses)
        self._judged(Validation(self.position.epoch, len(self.curves.loss) - 1, loss, 0.5))

    monkeypatch.setattr(module._Trainer, "_judge", judge)
    options = dataclasses.replace(train_options, epochs=5, steps_per_epoch=1, patience=2)
    best = train_cutpaste(small_dataset, tmp_path / "run", options, console=Console())
    assert load_checkpoint(best).run.best_epoch == 2
    assert curves(tmp_path / "run")[2] == {"epoch": 4, "step": 0, "finished": True}
    told = capsys.readouterr().err
    assert "stopping early: the held-out loss has not fallen for 2 epochs; the best was" in told
    assert "epoch 2 of 5: loss" in told


@pytest.fixture
def run(tmp_path, trained):
    """A run of its own, to be spoilt."""
    return shutil.copytree(trained, tmp_path / "run")


def test_a_finished_run_has_nothing_left_to_do(run, small_dataset, train_options, snapshot):
    before = snapshot(run)
    best = train_cutpaste(small_dataset, run, dataclasses.replace(train_options, resume=True))
    assert best == run / "best.safetensors"
    assert snapshot(run) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.02}, "learning_rate: expected 0.01, got 0.02"),
        ({"seed": 9}, "seed: expected 5, got 9"),
        ({"normalisation": "white"}, 'normalisation: expected "imagenet", got "white"'),
        ({"weights": "random:1"}, 'weights.name: expected "random:0", got "random:1"'),
        ({"variant": "3-way"}, 'variant: expected "thesis", got "3-way"'),
    ],
)
def test_another_configuration_is_refused(
    run, small_dataset, train_options, snapshot, changes, message
):
    before = snapshot(run)
    options = dataclasses.replace(train_options, resume=True, **changes)
    with pytest.raises(CheckpointError, match=r"was started with another configuration: ") as error:
        train_cutpaste(small_dataset, run, options)
    assert message in str(error.value)
    assert snapshot(run) == before


def test_weights_may_move(tmp_path):
    settings = {"seed": 5, "weights": {"source": "file", "name": "a.pth", "sha256": "0" * 64}}
    moved = {"seed": 5, "weights": {"source": "imagenet", "name": "b.pth", "sha256": "0" * 64}}
    other = {"seed": 5, "weights": {"source": "file", "name": "a.pth", "sha256": "1" * 64}}
    folder = RunFolder(tmp_path / "r.run")
    folder.open(settings, resume=False)
    folder.open(moved, resume=True)
    with pytest.raises(CheckpointError, match=r"weights\.sha256: expected"):
        folder.open(other, resume=True)


def test_other_boards_are_another_configuration(
    run, tmp_path, small_dataset, train_options, snapshot
):
    data = shutil.copytree(small_dataset, tmp_path / "data")
    boards = sorted((data / "train" / "good").iterdir())
    for path in boards[1:]:
        shutil.copy(boards[0], path)
    before = snapshot(run)
    with pytest.raises(CheckpointError, match=r"configuration: learn\.fingerprint: expected"):
        train_cutpaste(data, run, dataclasses.replace(train_options, resume=True))
    assert snapshot(run) == before


def test_a_run_is_not_started_over(run, small_dataset, train_options, snapshot):
    before = snapshot(run)
    with pytest.raises(OutputError, match="holds a run already: go on with it by --resume"):
        train_cutpaste(small_dataset, run, train_options)
    assert snapshot(run) == before


def test_one_training_at_a_time_works_in_a_folder(run, small_dataset, train_options, snapshot):
    before, options = snapshot(run), dataclasses.replace(train_options, resume=True)
    with (
        RunFolder(run).held(),
        pytest.raises(OutputError, match=r"another training is at work in .* folder with --run"),
    ):
        train_cutpaste(small_dataset, run, options)
    assert snapshot(run) == before
    train_cutpaste(small_dataset, run, options)


def test_a_folder_of_something_else_is_left_alone(tmp_path, small_dataset, train_options):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists and holds no run"):
        train_cutpaste(small_dataset, tmp_path, train_options)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_state_is_told(run, small_dataset, train_options):
    state = RunFolder(run).last
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"last\.safetensors is damaged"):
        train_cutpaste(small_dataset, run, dataclasses.replace(train_options, resume=True))


def _broken_from(monkeypatch, step):
    """Losses are NaN from a step on."""
    original, calls = module._Trainer._forward, itertools.count(1)

    def forward(self, batch):
        loss, right = original(self, batch)
        broken = self.network.training and next(calls) >= step
        return (loss * torch.nan if broken else loss), right

    monkeypatch.setattr(module._Trainer, "_forward", forward)


def test_a_loss_of_nan_stops_the_training_and_keeps_the_best_network(
    monkeypatch, tmp_path, small_dataset, train_options, trained
):
    _broken_from(monkeypatch, STEPS + 2)
    run = tmp_path / "run"
    with pytest.raises(TrainingError) as error:
        train_cutpaste(
            small_dataset, run, dataclasses.replace(train_options, checkpoint_seconds=0.0)
        )
    text = str(error.value)
    assert f"the loss is nan in step {STEPS + 2}, in epoch 2: the training went astray" in text
    assert "the network of epoch 1 is kept in" in text
    assert "with a --learning-rate below 0.01" in text
    assert load_checkpoint(run / "best.safetensors").run.best_epoch == 1
    assert curves(run)[0] == curves(trained)[0][: 4 * (STEPS + 1)]  # the last good state


def test_a_loss_of_nan_at_once_leaves_no_checkpoint(
    monkeypatch, tmp_path, small_dataset, train_options
):
    _broken_from(monkeypatch, 1)
    with pytest.raises(TrainingError, match="no epoch was completed, so there is no checkpoint"):
        train_cutpaste(small_dataset, tmp_path / "run", train_options)
    assert not (tmp_path / "run" / "best.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"train_stride": 128},
            TrainingError,
            "tiles to learn from: expected at least 16, got 6 from 3 boards: add normal boards, "
            "lower --train-stride (128 px), or use a smaller --tile or a smaller --holdout (0.1)",
        ),
        (
            {"train_stride": 64},
            TrainingError,
            "tiles held out to judge by: expected at least 16, got 6 from 1 boards: add normal "
            "boards, lower --train-stride (64 px), or use a smaller --tile or a larger --holdout "
            "(0.1)",
        ),
        ({"memory_bytes": 1000}, MemoryBudgetError, "expected room for at least three"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(
    tmp_path, small_dataset, train_options, changes, error, message
):
    with pytest.raises(error) as raised:
        train_cutpaste(
            small_dataset, tmp_path / "run", dataclasses.replace(train_options, **changes)
        )
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_never_replaced_silently(tmp_path, small_dataset, train_options):
    with pytest.raises(ProviderUnavailableError, match="--device cuda: PyTorch finds no CUDA"):
        train_cutpaste(
            small_dataset, tmp_path / "run", dataclasses.replace(train_options, device="cuda")
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tile", 31),
        ("batch", 3),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("momentum", 1.0),
        ("optimizer", "lion"),
        ("variant", "4-way"),
        ("patience", 0),
        ("freeze_epochs", -1),
        ("holdout", 0.0),
        ("checkpoint_seconds", -1.0),
    ],
)
def test_options_out_of_range(name, value):
    with pytest.raises(InvalidArgumentError, match=f"^{name}: expected .*, got "):
        TrainingOptions(**{name: value})
