"""Train CutPasteNet on a folder of normal boards (thesis, sections 4.2.1 and 5.4.3)."""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from kad_export.cutpaste.checkpoint import save_checkpoint
from kad_export.cutpaste.curves import CurveWriter
from kad_export.cutpaste.data import (
    ORDER,
    SAMPLE,
    VALIDATION,
    TileStream,
    default_workers,
    generator,
    shuffled,
)
from kad_export.cutpaste.material import prepare
from kad_export.cutpaste.network import given_layers, initialise
from kad_export.cutpaste.options import TrainingOptions
from kad_export.cutpaste.run_folder import Curves, Position, RunFolder, Validation
from kad_export.errors import TrainingError
from kad_export.report import Silent
from kad_sdk.dataset import scan_dataset
from kad_sdk.errors import ProviderUnavailableError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from kad_export.cutpaste.data import Batch
    from kad_export.cutpaste.material import Material
    from kad_export.cutpaste.network import CutPasteNet
    from kad_export.report import Progress
    from kad_export.weights import Weights

__all__ = ["train_cutpaste"]

STEPS_PER_FLUSH = 10
"""Losses are fetched from a GPU once in so many steps: each fetch waits for it."""


def train_cutpaste(
    data: str | os.PathLike[str],
    run_dir: str | os.PathLike[str],
    options: TrainingOptions | None = None,
    *,
    console: Silent | None = None,
) -> Path:
    """Train CutPasteNet on the normal boards of a folder, or go on with a training.

    A kill at any moment, Ctrl-C too, leaves a run that ``options.resume`` continues. On a CPU, with
    the same number of threads, losses and weights are then bitwise those of a training that was
    not interrupted.

    Parameters
    ----------
    data : path
        Data folder, see :func:`kad_sdk.dataset.scan_dataset`; only its training boards are used.
    run_dir : path
        The run's folder, see :mod:`kad_export.cutpaste.run_folder`.
    options : TrainingOptions, optional
        What to train and how.
    console : Silent, optional
        Told the progress; silent by default.

    Returns
    -------
    Path
        The best checkpoint, for :func:`kad_export.cutpaste.checkpoint.load_checkpoint`.

    Raises
    ------
    TrainingError
        Too few tiles, or a loss that is NaN or infinite.
    CheckpointError
        The run in `run_dir` was started with other settings, or is damaged.
    OutputError
        `run_dir` holds a run and ``options.resume`` is not set, or another training is at work in
        it, or nothing can be written.
    KadError
        Other ways to fail, see :mod:`kad_sdk.errors` and :mod:`kad_export.errors`.
    """
    options, console = options or TrainingOptions(), console or Silent()
    folder = RunFolder(Path(run_dir))
    folder.check(resume=options.resume)
    device = _device(options.device)
    material = prepare(scan_dataset(data), options, console)
    network, weights = initialise(options.network(), options.weights, options.seed)
    console.line(f"network: {options.backbone}, weights: {weights.source} ({weights.name})")
    trainer = _Trainer(network.to(device), weights, material, folder, console)
    with _arithmetic(options), console.step("training"):
        return trainer.run(device)


def _device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ProviderUnavailableError(
            "--device cuda: PyTorch finds no CUDA device; install a build of torch for CUDA and "
            "check nvidia-smi, or train with --device cpu"
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


@contextmanager
def _arithmetic(options: TrainingOptions) -> Iterator[None]:
    """Set the number of threads and cuDNN's deterministic algorithms; put back what was there."""
    threads = torch.get_num_threads()
    try:
        if options.threads:
            torch.set_num_threads(options.threads)
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.set_num_threads(threads)


class _Trainer:
    """The loop: epochs of steps, each followed by a judgement on held-out tiles."""

    def __init__(
        self,
        network: CutPasteNet,
        weights: Weights,
        material: Material,
        folder: RunFolder,
        console: Silent,
    ) -> None:
        self.options, self.material, self.weights = material.options, material, weights
        self.network, self.folder, self.console = network, folder, console
        self.given = given_layers(network, weights)
        self.optimizer = _optimizer(network, self.options)
        self.position, self.curves = Position(), Curves()
        workers = self.options.workers or default_workers()
        self.learn, self.held = (
            TileStream(tiles, self.options, material.window, workers)
            for tiles in (material.learn, material.held)
        )
        fit = max(1, len(material.learn) // self.options.tiles_per_batch)
        self.steps = self.options.steps_per_epoch or fit  # of an epoch
        self._fetched: list[torch.Tensor] = []  # loss and accuracy of steps, on the device

    def run(self, device: torch.device) -> Path:
        """Train from where the folder stands to the end; returns the best checkpoint."""
        self.device = device
        self.network.to(memory_format=torch.channels_last)
        self.settings = self.material.settings(self.weights)
        with self.folder.held():
            self._go_on()
        return self.folder.best

    def _go_on(self) -> None:
        if self.folder.open(self.settings, resume=self.options.resume):
            self.position, self.curves = self.folder.restore(self.network, self.optimizer)
            self._tell_position()
        elif self.options.resume:
            self.console.line(f"nothing to resume in {self.folder.path}: starting a training")
        if not self.position.finished:
            with CurveWriter(self.folder.curves, self.curves, self._learning_rate) as self.writer:
                self._epochs()

    def _epochs(self) -> None:
        while not self.position.finished:
            self._train_epoch()
            self._judge()
            self.position.epoch, self.position.step = self.position.epoch + 1, 0
            self.position.finished = self._is_last()
            self._save()

    def _train_epoch(self) -> None:
        epoch = self.position.epoch
        rng = generator(self.options.seed, ORDER, epoch)
        count = self.steps * self.options.tiles_per_batch
        order = shuffled(self.material.learn, self.material.window, rng, count)
        label = f"epoch {epoch + 1} of {self.options.epochs}"
        self.network.train()
        self._freeze(epoch < self.options.freeze_epochs)
        self._saved = time.monotonic()
        with (
            self.learn.batches(order, SAMPLE, epoch, self.position.step) as batches,
            self.console.progress(label, self.steps - self.position.step, "steps") as bar,
        ):
            for batch in batches:
                self._step(batch)
                self._after_step(bar)
        self._flush()
        self.learn.cache.clear()

    def _freeze(self, frozen: bool) -> None:
        """Let the given layers learn or stay as they are, batch norm's statistics too."""
        for layer in self.given:
            layer.requires_grad_(not frozen).train(not frozen)

    def _step(self, batch: Batch) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(len(self.curves.loss) + len(self._fetched))
        loss, right = self._forward(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self._fetched.append(torch.stack((loss.detach(), right)))
        self.position.step += 1

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss (equation 4.11) and the share of right answers."""
        # (B, 3, t, t) with the channels last in memory, as the convolutions like it
        tiles = torch.from_numpy(batch.tiles).to(self.device).permute(0, 3, 1, 2)
        labels = torch.from_numpy(batch.labels).to(self.device)
        mean, std = (
            torch.tensor(v, device=self.device).view(1, 3, 1, 1)
            for v in (self.material.preprocessing.mean, self.material.preprocessing.std)
        )
        with _mixed_precision(self.device):
            logits, _ = self.network((tiles.float() / 255 - mean) / std)
        logits = logits.float()  # (B, K)
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()

    def _after_step(self, bar: Progress) -> None:
        due = time.monotonic() - self._saved >= self.options.checkpoint_seconds
        if due or self.device.type == "cpu" or len(self._fetched) >= STEPS_PER_FLUSH:
            self._flush()
            loss, accuracy = self.curves.loss[-1], self.curves.accuracy[-1]
            bar.note(f"loss {loss:.4f}, accuracy {accuracy:.3f}")
        bar.advance()
        if due:
            self._save()

    def _flush(self) -> None:
        """Fetch losses and accuracies from the device.

        Raises
        ------
        TrainingError
            A loss is NaN or infinite.
        """
        now = time.time_ns() // 1_000_000
        for loss, accuracy in torch.stack(self._fetched).tolist() if self._fetched else []:
            if not math.isfinite(loss):
                raise self._astray(f"the loss is {loss} in step {len(self.curves.loss) + 1:,}")
            self.curves.loss.append(loss)
            self.curves.accuracy.append(accuracy)
            self.curves.time_ms.append(now)
        self._fetched.clear()
        self.writer.advance()

    @torch.inference_mode()
    def _judge(self) -> None:
        """Measure loss and accuracy on held-out tiles; the best network so far is kept."""
        rng = generator(self.options.seed, VALIDATION)
        count = min(len(self.material.held), self.options.validation_tiles)
        order = shuffled(self.material.held, self.material.window, rng, count)
        total = torch.zeros(2, dtype=torch.float64)
        n = 0
        self.network.eval()
        with self.held.batches(order, VALIDATION, 0) as batches:
            for batch in batches:
                total += len(batch.labels) * torch.stack(self._forward(batch)).double().cpu()
                n += len(batch.labels)
        self.held.cache.clear()
        loss, accuracy = (total / n).tolist()
        if not math.isfinite(loss):
            raise self._astray(f"the loss on held-out tiles is {loss}")
        self._judged(Validation(self.position.epoch, len(self.curves.loss) - 1, loss, accuracy))

    def _judged(self, validation: Validation) -> None:
        self.curves.validations.append(validation)
        self.writer.validated(validation)
        best = self.curves.best is validation
        if best:
            self._save_best(validation)
        recent = slice(-self.steps, None)
        losses, accuracies = self.curves.loss[recent], self.curves.accuracy[recent]
        self.console.line(
            f"epoch {validation.epoch + 1} of {self.options.epochs}: "
            f"loss {sum(losses) / len(losses):.4f}, "
            f"accuracy {sum(accuracies) / len(accuracies):.3f}; "
            f"held out: loss {validation.loss:.4f}, accuracy {validation.accuracy:.3f}"
            f"{' (the best so far)' if best else ''}"
        )

    def _is_last(self) -> bool:
        """Whether all epochs are done, or the held-out loss has not fallen for too long."""
        done = self.position.epoch
        since = done - 1 - self.curves.best.epoch
        if since >= self.options.patience and done < self.options.epochs:
            self.console.line(
                f"stopping early: the held-out loss has not fallen for {since} epochs; the best "
                f"was epoch {self.curves.best.epoch + 1}"
            )
            return True
        return done == self.options.epochs

    def _learning_rate(self, step: int) -> float:
        """Cosine annealing from the learning rate to 0 over all epochs."""
        share = step / (self.steps * self.options.epochs)
        return self.options.learning_rate * 0.5 * (1 + math.cos(math.pi * share))

    def _save(self) -> None:
        self.folder.save(self.network, self.optimizer, self.position, self.curves)
        self._saved = time.monotonic()

    def _save_best(self, validation: Validation) -> None:
        options = self.options
        scheme = {"variant": options.variant, **dataclasses.asdict(options.augmentation)}
        save_checkpoint(
            self.folder.best,
            self.network.state_dict(),
            self.network.config,
            self.material.preprocessing,
            run={
                "epochs": options.epochs,
                "best_epoch": validation.epoch + 1,
                "steps": validation.step + 1,
                "batch": options.batch,
                "optimizer": options.optimizer,
                "learning_rate": options.learning_rate,
                "seed": options.seed,
                "augmentation": scheme,
                "validation_accuracy": validation.accuracy,
            },
            settings=self.settings,
        )

    def _tell_position(self) -> None:
        if self.position.finished:
            self.console.line(f"the training in {self.folder.path} is complete")
            return
        self.console.line(
            f"going on with {self.folder.path} after {len(self.curves.loss):,} steps, in epoch "
            f"{self.position.epoch + 1} of {self.options.epochs}"
        )

    def _astray(self, what: str) -> TrainingError:
        best = self.curves.best
        kept = (
            f"the network of epoch {best.epoch + 1} is kept in {self.folder.best}"
            if best
            else "no epoch was completed, so there is no checkpoint"
        )
        return TrainingError(
            f"{what}, in epoch {self.position.epoch + 1}: the training went astray; {kept}. Train "
            f"again in another folder with a --learning-rate below {self.options.learning_rate:g}"
        )


def _optimizer(network: CutPasteNet, options: TrainingOptions) -> torch.optim.Optimizer:
    settings = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    if options.optimizer == "adam":
        betas = (options.momentum, 0.999)
        return torch.optim.Adam(network.parameters(), betas=betas, **settings)
    return torch.optim.SGD(network.parameters(), momentum=options.momentum, **settings)


def _mixed_precision(device: torch.device) -> torch.autocast:
    """Use bfloat16 on GPUs that have it, float32 elsewhere."""
    enabled = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
