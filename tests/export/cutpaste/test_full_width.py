"""A network of full width learns; a training that is killed goes on as if it had not been."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
from cutpaste_runs import curves, weights
from kad_export.cutpaste.options import TrainingOptions
from kad_export.cutpaste.run_folder import RunFolder
from kad_export.cutpaste.train import train_cutpaste


def test_it_learns(tmp_path, small_dataset, train_options):
    longer = dataclasses.replace(
        train_options, optimizer="adam", learning_rate=1e-3, epochs=1, steps_per_epoch=8, batch=16
    )
    train_cutpaste(small_dataset, tmp_path / "run", longer)
    loss = np.frombuffer(curves(tmp_path / "run")[0], np.float32)
    assert loss[0] > 0.6  # log 2 = 0.69 knows nothing
    assert loss[-3:].mean() < 0.8 * loss[0]


KILLED_TRAINING = """
import sys, json
from kad_export.cutpaste.options import TrainingOptions
from kad_export.cutpaste.train import train_cutpaste
data, run, options = sys.argv[1:]
train_cutpaste(data, run, TrainingOptions(**json.loads(options)))
"""


def test_sigkill_and_resume_give_the_uninterrupted_losses(
    tmp_path, small_dataset, train_options, trained
):
    folder = RunFolder(tmp_path / "killed")
    given = {name: getattr(train_options, name) for name in TrainingOptions.__dataclass_fields__}
    del given["augmentation"]
    words = (str(small_dataset), str(folder.path), json.dumps(given | {"checkpoint_seconds": 0.0}))
    process = subprocess.Popen([sys.executable, "-c", KILLED_TRAINING, *words])
    try:
        for _ in range(6000):
            if folder.last.exists() and len(curves(folder.path)[0]) >= 4 * 2:
                break
            assert process.poll() is None, "the training ended before it was killed"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    done = len(curves(folder.path)[0]) // 4
    assert 2 <= done < 2 * train_options.steps_per_epoch

    train_cutpaste(small_dataset, folder.path, dataclasses.replace(train_options, resume=True))

    assert curves(folder.path) == curves(trained)
    assert weights(folder.path) == weights(trained)
