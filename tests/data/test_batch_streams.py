import pytest
import tensorflow as tf

import lade_tf
from lade_tf.data.batch_streams import prefetched


def test_the_elements_stay():
    assert list(prefetched(tf.data.Dataset.range(3), 2).as_numpy_iterator()) == [0, 1, 2]


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_stream_is_tuned(split):
    data = lade_tf.data.load("digits_lt")
    stream = data.train_batches(8, epochs=1, seed=0) if split == "train" else data.test_batches(8)
    assert stream.options().autotune.enabled is False
