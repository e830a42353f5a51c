"""The large recipes on real counts, real photographs and their real networks."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from binaries import run
from PIL import Image
from reproduction import training
from reproduction.config import RunConfig
from reproduction.run_folder import load_model

import lade_tf
from lade_tf.data import FileData, FileSplit

COUNTS = {
    "places_lt": "places_lt_train.json",
    "imagenet_lt": "imagenet_lt_train.json",
    "inaturalist2018": "inat2018_train.json",
}


@pytest.mark.slow
@pytest.mark.parametrize("dataset", COUNTS)
def test_a_step_with_the_real_prior_on_the_real_backbone(dataset, shared_data):
    counts = json.loads((shared_data / "data" / "counts" / COUNTS[dataset]).read_text())
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    train = FileSplit(("/nowhere.jpg",) * len(labels), labels)
    names = tuple(map(str, range(len(counts))))
    data = FileData(dataset, names, train, train, None, (0.5,) * 3, (0.2,) * 3)
    overrides = {"weights": "none", "seed": 0, "data_seed": 0, "precision": "float32"}
    config = RunConfig.resolve(dataset, "lade", **overrides)
    model = training.build_trainee(config, data).model
    assert model.class_counts == counts
    images = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype(np.float32)
    kernel = model.trainable_variables[0].numpy()
    logs = model.train_on_batch(images, np.array([0, len(counts) - 1]), return_dict=True)
    assert np.isfinite(logs["loss"]) and logs["cross_entropy"] > 1
    assert not np.array_equal(model.trainable_variables[0].numpy(), kernel)


@pytest.mark.slow
def test_an_epoch_of_resnet_50_on_photographs_runs_and_exports(shared_data, tmp_path):
    samples = sorted((shared_data / "data" / "imagenet_samples").glob("*/*"))[:20]
    for number, path in enumerate(samples):  # a class has one image: neighbours make one
        for split in ("train", "test"):
            folder = tmp_path / "images" / split / f"class{number // 4}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    flags = ("--dataset=folder", "--data_dir=images", "--loss=lade", "--run_dir=run")
    more = ("--weights=none", "--schedule=step", "--epochs=1", "--batch_size=10", "--export")
    run("train.py", *flags, *more, cwd=tmp_path)
    served = tf.saved_model.load(tmp_path / "run" / "saved_model")
    outputs = served.signatures["serving_default"](images=tf.zeros([1, 224, 224, 3]))
    assert outputs["probabilities"].shape == (1, 5)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["config"]["image_size"] == 224


@pytest.fixture(scope="module")
def cifar(shared_data):
    return lade_tf.data.load("cifar100_lt", 100, 0, shared_data / "data" / "tfds")


@pytest.fixture(scope="module")
def cifar_folder(cifar, tmp_path_factory):
    """CIFAR-100-LT as a folder of PNGs."""
    root = tmp_path_factory.mktemp("cifar")
    for split in ("train", "test"):
        part = getattr(cifar, split)
        for name in cifar.class_names:
            (root / split / name).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            folder = root / split / cifar.class_names[label]
            Image.fromarray(image).save(folder / f"{number:05}.png", compress_level=1)
    return root


@pytest.mark.slow
def test_a_folder_of_cifar_images_is_the_data_set_of_cifar(cifar, cifar_folder):
    folder = lade_tf.data.load("folder", data_dir=cifar_folder, image_size=32)
    assert folder.class_names == cifar.class_names
    for split in ("train", "test"):
        found, wanted = getattr(folder, split), getattr(cifar, split)
        # A folder's images come class by class; within a class, by their number.
        order = np.argsort(wanted.labels, kind="stable")
        np.testing.assert_array_equal(found.labels, wanted.labels[order])
        np.testing.assert_array_equal(found.images, wanted.images[order])


@pytest.mark.slow
def test_a_folder_of_cifar_images_trains_as_cifar_does(cifar, cifar_folder, shared_data, tmp_path):
    check_trained_alike(cifar, cifar_folder, shared_data, tmp_path, "small_cnn", epochs=2)


@pytest.mark.nightly
def test_a_folder_of_cifar_images_trains_resnet_32_too(cifar, cifar_folder, shared_data, tmp_path):
    check_trained_alike(cifar, cifar_folder, shared_data, tmp_path, "resnet32", epochs=5)


def check_trained_alike(cifar, cifar_folder, shared_data, tmp_path, backbone, epochs):
    settings = ("--loss=lade", f"--epochs={epochs}", "--alpha=0.1", "--remine_lambda=0.01")
    settings += (f"--backbone={backbone}", "--batch_size=64")
    of_folder = ("--dataset=folder", f"--data_dir={cifar_folder}", "--image_size=32")
    of_cifar = ("--dataset=cifar100_lt", f"--data_dir={shared_data / 'data' / 'tfds'}")
    for name, flags in {"folder": of_folder, "cifar": of_cifar}.items():
        run("train.py", *settings, *flags, f"--run_dir={name}", cwd=tmp_path)
    results = {
        name: json.loads((tmp_path / name / "result.json").read_text())
        for name in ("folder", "cifar")
    }
    configs = [dict(result["config"]) for result in results.values()]
    differing = {key for key in configs[0] if configs[0][key] != configs[1].get(key)}
    assert differing == {"dataset", "imbalance_ratio", "image_size", "allow_duplicates"}
    models = [load_model(tmp_path / name / "best.keras") for name in results]
    assert models[0].class_counts == models[1].class_counts == cifar.class_counts.tolist()
    accuracies = [result["metrics"]["accuracy"] for result in results.values()]
    # Another order of the images; seeds differ by about this much after 5 epochs.
    assert abs(accuracies[0] - accuracies[1]) < 0.03 and min(accuracies) > 0.05
