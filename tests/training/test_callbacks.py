import time
import types

import numpy as np
import pytest

from lade_tf.training import checkpoints
from lade_tf.training.callbacks import Checkpoint, StopOnNaN


def test_of_equal_scores_the_first_is_the_best(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(checkpoints, "save", lambda *args: names.append(list(args[3])))
    callback = Checkpoint(tmp_path, 1, np.zeros(1), checkpoints.Progress())
    optimizer = types.SimpleNamespace(learning_rate=0.1)
    callback.set_model(
        types.SimpleNamespace(optimizer=optimizer, raw_logits=np.zeros_like, stop_training=False)
    )
    third = float(np.float32(1 / 3))  # more than what nine digits say of it
    for epoch, score in enumerate((third, third, 0.5)):
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {"val_accuracy": score})
    assert names == [[checkpoints.BEST], [], [checkpoints.BEST]]


def test_a_number_of_images_gives_their_rate(tmp_path):
    callback = Checkpoint(tmp_path, 4, np.zeros(1), checkpoints.Progress(), batch_size=8)
    callback.set_model(types.SimpleNamespace(raw_logits=lambda probe: probe + np.nan))
    callback.started, callback.learning_rate = (time.monotonic() - 1, 0.0), 0.1
    logs = {"loss": 1.0}
    with pytest.raises(FloatingPointError, match="aren't finite after step 4 .* epoch 1.*no check"):
        callback.on_epoch_end(0, logs)
    assert logs["images_per_second"] == pytest.approx(32, rel=0.1) and not list(tmp_path.iterdir())


def test_where_another_process_writes_the_message_says_so():
    callback = StopOnNaN(None, 10, checkpoints.Progress(2, 3))
    callback.on_epoch_begin(2)
    callback.on_train_batch_end(0, {"loss": 0.5})
    with pytest.raises(FloatingPointError, match=r"step 25 \(epoch 3, batch 5\).*the chief's"):
        callback.on_train_batch_end(1, {"loss": np.inf})
