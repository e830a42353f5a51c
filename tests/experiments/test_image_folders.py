"""train.py on a user's own images, in folders, as a user calls it."""

import json
import shutil

import h5py
import numpy as np
import pytest
from binaries import run
from PIL import Image
from reproduction import training
from reproduction.run_folder import RunFolder, load_model

from lade_tf.evaluation import SavedLogits

COUNTS = {"blue": 8, "green": 12, "red": 30}
FLAGS = ("--dataset=folder", "--data_dir=images", "--loss=lade", "--run_dir=run")
SMALL = ("--backbone=small_cnn", "--weights=none", "--image_size=72", "--batch_size=10")


def write_images(folder, counts, size=(90, 80), seed=0):
    """Writes noisy JPEGs whose colour is the name of their class."""
    rng = np.random.default_rng(seed)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(counts[name]):
            pixels = rng.integers(0, 150, (*size, 3))
            pixels[..., channel] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.jpg")


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path / "images" / "train", COUNTS)
    for seed, split in enumerate(("val", "test"), start=1):
        write_images(tmp_path / "images" / split, dict.fromkeys(COUNTS, 4), seed=seed)
    return tmp_path / "images"


@pytest.mark.slow
def test_a_folder_is_learnt_validated_and_exported(images, tmp_path):
    shutil.rmtree(images / "test" / "green")
    output = run("train.py", *FLAGS, *SMALL, "--epochs=4", "--export", cwd=tmp_path)
    assert "1 class without a test image, left out of every label distribution: green" in output
    assert "2 classes with fewer than 5 test images" in output and "\ntest  " in output
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metrics"]["accuracy"] > 0.6 and "bad_images" not in result
    exported = ("--model=run/saved_model", *FLAGS[:2], "--target_prior=uniform")
    run("evaluate.py", *exported, "--output=again.json", cwd=tmp_path)
    again = json.loads((tmp_path / "again.json").read_text())["metrics"]["uniform"]
    assert again["nll"] == pytest.approx(result["metrics"]["nll"], rel=1e-4)
    with open(tmp_path / "run" / "history.csv") as file:
        header, *rows = (line.strip().split(",") for line in file)
    scores = [float(row[header.index("val_accuracy")]) for row in rows]
    assert result["selected_epoch"] == np.argmax(scores) + 1
    with h5py.File(tmp_path / "run" / "best.weights.h5") as file:
        assert file.attrs["epoch"] == result["selected_epoch"]
    assert tuple(result["metrics_shifted"]) == training.REPORTED
    model = load_model(tmp_path / "run" / "best.keras")
    assert model.class_counts == list(COUNTS.values())
    names = (tmp_path / "run" / "saved_model" / "assets" / "class_names.json").read_text()
    assert json.loads(names) == list(COUNTS)


@pytest.mark.slow
def test_a_bad_image_ends_the_run_with_its_name_or_is_left_out(images, tmp_path):
    bad = images / "train" / "red" / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    flags = (*FLAGS, *SMALL, "--epochs=2")
    errors = run("train.py", *flags, cwd=tmp_path, fails=True)
    [line] = [line for line in errors.splitlines() if line.startswith("train.py: ")]
    assert line.startswith(f"train.py: {bad}: ") and "Invalid JPEG" in line
    assert "node Assert" not in errors and "Traceback" not in errors
    run("train.py", *flags, "--on_bad_image=skip", "--overwrite", cwd=tmp_path)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    [(path, reason)] = result["bad_images"]
    assert path == str(bad) and reason
    model = load_model(tmp_path / "run" / "best.keras")
    assert model.class_counts == [8, 12, 29]


@pytest.mark.slow
def test_the_body_has_a_learning_rate_of_its_own_or_is_frozen(images, tmp_path):
    flags = (*FLAGS, *SMALL, "--epochs=2", "--seed=3")
    weights = {}
    for name, more in {
        "frozen": ("--freeze_backbone",),
        "slow": ("--backbone_learning_rate=0",),
    }.items():
        run("train.py", *flags, *more, f"--run_dir={name}", cwd=tmp_path)
        model = load_model(tmp_path / name / "best.keras")
        weights[name] = {v.path: v.numpy() for v in model.network.variables}
    kernels = {path for path in weights["slow"] if path.endswith("_conv/kernel")}
    assert len(kernels) == 3
    for path in kernels:  # neither moved from where the seed put it
        np.testing.assert_array_equal(weights["slow"][path], weights["frozen"][path])
    assert np.abs(weights["slow"]["logits/kernel"] - weights["frozen"]["logits/kernel"]).max() > 0


def test_imagenet_weights_that_can_not_be_fetched_are_said_before_anything_is_written(
    images, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("https_proxy", "http://localhost:9")
    errors = run("train.py", *FLAGS, "--batch_size=10", cwd=tmp_path, fails=True)
    assert "weights='imagenet' could not be fetched" in errors and "--weights=none" in errors
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_training_set_is_refused_in_terms_of_its_flag(images, tmp_path):
    flags = ("--backbone=small_cnn", "--weights=none")
    errors = run("train.py", *FLAGS, *flags, cwd=tmp_path, fails=True)
    assert errors.endswith(
        "train.py: --batch_size=64, from the recipe, is more than the 50 training images: give "
        "--batch_size=50 or less\n"
    )
    errors = run("train.py", *FLAGS, *flags, "--batch_size=51", cwd=tmp_path, fails=True)
    assert "--batch_size=51 is more than the 50" in errors and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_method_without_training_steps_has_no_batch_that_could_be_too_large(images, tmp_path):
    flags = (*FLAGS[:2], *SMALL[:2], "--image_size=32")
    more = ("--run_dir=softmax", "--batch_size=10", "--epochs=1")
    run("train.py", *flags, "--loss=softmax", *more, cwd=tmp_path)
    second = ("--loss=ncm", "--backbone=small_cnn", "--init_from=softmax", "--run_dir=run")
    run("train.py", *FLAGS[:2], "--image_size=32", *second, cwd=tmp_path)
    assert RunFolder(tmp_path / "run").finished


def test_a_class_without_a_test_image_is_left_out_of_a_result():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 2], [9, 30])
    saved = SavedLogits(rng.normal(size=(39, 3)), labels, list(COUNTS.values()))
    result = training.summarise(saved)
    assert list(result["metrics_shifted"])[:2] == ["test", "forward:50"]
    right = saved.adapted_to([0.5, 0, 0.5]).predicted == labels
    uniform = (right[:9].mean() + right[9:].mean()) / 2
    assert result["metrics"]["accuracy"] == pytest.approx(uniform, rel=1e-12)
    assert result["metrics_shifted"]["uniform"] == result["metrics"]


@pytest.mark.slow
def test_small_images_are_trained_on_in_memory(tmp_path):
    for split, counts in (("train", COUNTS), ("test", dict.fromkeys(COUNTS, 10))):
        write_images(tmp_path / "images" / split, counts, (32, 32))
    flags = ("--backbone=small_cnn", "--image_size=32", "--batch_size=10", "--epochs=4")
    run("train.py", *FLAGS, *flags, cwd=tmp_path)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metrics"]["accuracy"] > 0.6 and result["config"]["l2"] == 5e-4
    # Images of another size are resized as the test images were.
    flags = ("--run=run", "--source=images/test", "--target=new", "--bootstrap=0")
    write_images(tmp_path / "new", {"red": 20, "green": 1, "blue": 1}, (40, 48), seed=2)
    output = run("estimate_prior.py", *flags, cwd=tmp_path)
    assert "30 labelled and 22 unlabelled images" in output
    assert np.argmax(json.loads((tmp_path / "prior.json").read_text())["prior"]) == 2
    errors = run("estimate_prior.py", *flags, cwd=tmp_path, fails=True)
    assert "--output=prior.json exists already: give a new file or --overwrite" in errors
    (tmp_path / "new" / "red" / "0.jpg").write_bytes(b"")
    errors = run("estimate_prior.py", *flags, "--overwrite", cwd=tmp_path, fails=True)
    assert f"{tmp_path}/new/red/0.jpg: " in errors and "Traceback" not in errors


def test_a_bad_test_image_is_said_before_training(images, tmp_path):
    (images / "test" / "red" / "3.jpg").write_bytes(b"")
    errors = run("train.py", *FLAGS, *SMALL, "--epochs=2", cwd=tmp_path, fails=True)
    assert f"train.py: {images}/test/red/3.jpg: " in errors and "1 of the 24 images" in errors
    assert "--on_bad_image=skip" in errors and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_belongs_to_its_data(images, tmp_path):
    flags = (*FLAGS, *SMALL, "--epochs=2")
    run("train.py", *flags, cwd=tmp_path)
    images.rename(tmp_path / "moved")
    moved = (*flags, "--data_dir=moved")
    assert "is finished: shown as it is" in run("train.py", *moved, cwd=tmp_path)
    (tmp_path / "moved" / "train" / "red" / "7.jpg").unlink()
    message = "holds a run on other data (names and labels is "
    for finished in (True, False):
        errors = run("train.py", *moved, cwd=tmp_path, fails=True)
        assert message in errors and "train images is 50 there and 49 now" in errors
        if finished:
            (tmp_path / "run" / "result.json").unlink()
