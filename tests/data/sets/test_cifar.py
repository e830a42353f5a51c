import numpy as np
import pytest
import tensorflow_datasets as tfds

from lade_tf import data
from lade_tf.data.image_data import Split
from lade_tf.data.sets import cifar


@pytest.fixture
def fake_reader(monkeypatch):
    """Replaces the folder by a set of the right sizes whose images say where they lay."""

    class Builder:
        def __init__(self, num_classes):
            names = [f"class {index}" for index in range(num_classes)]
            features = {"label": tfds.features.ClassLabel(names=names)}
            self.num_classes = num_classes
            self.info = type("Info", (), {"features": features})

    def read(builder, split):
        size = 50000 if split == "train" else 10000
        position = np.arange(size, dtype="<u4")
        images = position.view(np.uint8).reshape(size, 1, 4, 1)[..., :3, :]
        return images.repeat(3, axis=-1), (position % builder.num_classes).astype(np.int32)

    sizes = {"cifar10": 10, "cifar100": 100}
    monkeypatch.setattr(cifar, "_prepared_builder", lambda name, folder: Builder(sizes[name]))
    monkeypatch.setattr(cifar, "_read", read)


@pytest.mark.parametrize(("imbalance_ratio", "size"), [(100, 10847), (50, 12608), (10, 19573)])
def test_cifar100_sizes(fake_reader, imbalance_ratio, size):
    loaded = cifar.load_cifar100(imbalance_ratio)
    counts = loaded.class_counts
    np.testing.assert_array_equal(
        counts, [int(500 * (1 / imbalance_ratio) ** (c / 99)) for c in range(100)]
    )
    assert counts.sum() == size
    assert len(loaded.test.labels) == 10000
    shots = {100: (35, 35), 50: (41, 41), 10: (69, 31)}[imbalance_ratio]
    assert ((counts > 100).sum(), ((counts >= 20) & (counts <= 100)).sum()) == shots
    assert loaded.steps_per_epoch(256) == {100: 42, 50: 49, 10: 76}[imbalance_ratio]


def test_cifar10_sizes(fake_reader):
    loaded = data.load("cifar10_lt", imbalance_ratio=50)
    np.testing.assert_array_equal(
        loaded.class_counts, [int(5000 * (1 / 50) ** (c / 9)) for c in range(10)]
    )
    assert loaded.name == "cifar10_lt" and len(loaded.test.labels) == 10000


def test_the_data_seed_alone_decides(fake_reader):
    first, again, other = (data.load("cifar100_lt", data_seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert (first.train.images != other.train.images).any()
    np.testing.assert_array_equal(first.test.images, other.test.images)


@pytest.mark.parametrize("name", ["cifar10_lt", "cifar100_lt"])
def test_a_data_dir_that_is_none(name, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for data_dir in (tmp_path / "absent", file, "gs://tfds-data/datasets"):
        with pytest.raises(ValueError, match="data_dir must be an existing folder; got"):
            data.load(name, data_dir=data_dir)


def test_an_absent_set_gives_the_command(tmp_path):
    with pytest.raises(ValueError, match=f"cifar10 is not prepared in {tmp_path};") as caught:
        data.load("cifar10_lt", data_dir=tmp_path)
    assert (
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.load('cifar10', data_dir='{tmp_path}')\""
    ) in str(caught.value)


def test_where_it_looks_without_a_data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(ValueError, match=f"not prepared in {tmp_path / 'elsewhere'};"):
        data.load("cifar100_lt")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=f"not prepared in {tmp_path / 'tensorflow_datasets'};"):
        data.load("cifar100_lt")


def test_data_dir_goes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(ValueError, match=f"not prepared in {tmp_path};"):
        data.load("cifar100_lt", data_dir=tmp_path)


def test_the_newest_version_is_read(tmp_path, monkeypatch):
    for version in ("3.0.2", "3.0.10", "incomplete.AB_3.1.0"):
        (tmp_path / "cifar100" / version).mkdir(parents=True)
        (tmp_path / "cifar100" / version / "dataset_info.json").touch()
    monkeypatch.setattr(tfds, "builder_from_directory", lambda folder: folder)
    folder = cifar._prepared_builder("cifar100", tmp_path)
    assert folder == tmp_path / "cifar100" / "3.0.10"


def test_a_wrong_imbalance_ratio_comes_before_reading(monkeypatch):
    monkeypatch.setattr(cifar, "_prepared_builder", lambda name, folder: None)
    with pytest.raises(ValueError, match="imbalance_ratio must be a finite number >= 1; got 0.5"):
        data.load("cifar100_lt", imbalance_ratio=0.5)


def test_real_test_set_in_stored_order(shared_data):
    builder = cifar._prepared_builder("cifar100", shared_data / "data/tfds")
    test = Split(*cifar._read(builder, "test"))
    np.testing.assert_array_equal(np.bincount(test.labels), [100] * 100)
    in_order = tfds.ReadConfig(interleave_cycle_length=1)
    first = builder.as_dataset(split="test", read_config=in_order).take(50).as_numpy_iterator()
    for image, label, example in zip(test.images, test.labels, first, strict=False):
        np.testing.assert_array_equal(image, example["image"])
        assert label == example["label"]


@pytest.mark.slow
def test_real_cifar100(shared_data):
    loaded = data.load("cifar100_lt", data_dir=shared_data / "data/tfds")
    assert loaded.class_counts.sum() == 10847
    assert loaded.image_shape == (32, 32, 3)
    assert loaded.class_names[:2] == ("apple", "aquarium_fish")
    np.testing.assert_allclose(loaded.test.images.mean() / 255, np.mean(loaded.mean), atol=0.02)
    images, labels = next(iter(loaded.train_batches(256, epochs=1, seed=0)))
    assert images.shape == (256, 32, 32, 3) and images.numpy().max() == 255
    assert len(set(labels.numpy())) > 20
