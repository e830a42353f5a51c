"""estimate_prior.py and AdaptedModel.adapt_to, on the digits and a run of them."""

import dataclasses
import json

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from binaries import run
from reproduction import classifiers, image_files, provenance

import lade_tf
from lade_tf import label_shift, priors


@pytest.fixture(scope="module")
def samples():
    """The digits' test set in halves: a labelled source sample, and a target of another prior."""
    test = lade_tf.data.load("digits_lt").test
    source, target = np.arange(0, len(test.labels), 2), np.arange(1, len(test.labels), 2)
    keep = np.concatenate(
        [np.flatnonzero(test.labels[target] == c)[: 2 * c + 3] for c in range(10)]
    )
    return test.images[source], test.labels[source], test.images[target[keep]]


@pytest.fixture(scope="module")
def files(tmp_path_factory, samples):
    """The same as .npz files and as folders of PNG images."""
    folder = tmp_path_factory.mktemp("samples")
    source, labels, target = samples
    np.savez(folder / "source.npz", images=source, labels=labels)
    np.savez(folder / "target.npz", images=target)
    for index, (image, label) in enumerate(zip(source, labels, strict=True)):
        write_png(folder / "source" / str(label) / f"{index:04d}.png", image)
    for index, image in enumerate(target):
        write_png(folder / "target" / f"{index:04d}.png", image)
    return folder


def write_png(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(image).numpy())


@pytest.mark.parametrize(
    ("model", "ending"), [("--run=lade", ".npz"), ("--model=lade/saved_model", "")]
)
def test_the_written_prior_is_that_of_the_estimator(
    lade_run, files, samples, tmp_path, model, ending
):
    flag, name = model.split("=")
    flags = (
        f"{flag}={lade_run.parent / name}",
        f"--source={files / 'source'}{ending}",
        f"--target={files / 'target'}{ending}",
    )
    output = run("estimate_prior.py", *flags, "--bootstrap=3", "--plot=prior.png", cwd=tmp_path)
    assert "95 % interval" in output and "label shift" in output
    written = json.loads((tmp_path / "prior.json").read_text())
    loaded = keras.saving.load_model(lade_run / "best.keras", compile=False)
    source, labels, target = samples
    expected = loaded.adapt_to(target, source, labels)
    np.testing.assert_allclose(written["prior"], expected.prior, atol=1e-4)
    np.testing.assert_allclose(loaded.target_prior, expected.prior, rtol=1e-6, atol=1e-30)
    assert np.all(np.array(written["low"]) <= np.array(written["high"]))
    assert (tmp_path / "prior.png").stat().st_size > 5000
    assert min(written["prior"]) > 1e-4 and written["verdict"] in output
    assert written["pseudo_count"] == 0 and len(written["prior"]) == 10
    assert written["fit"]["reason"] in output and written["method"] == "hierarchical"
    run("evaluate.py", f"--run={lade_run}", "--target_prior=prior.json", cwd=tmp_path)


def test_adapt_to_sees_probabilities_at_the_uniform_prior(samples):
    source, labels, target = samples
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input(source.shape[1:]), keras.layers.Flatten()])
    network.add(keras.layers.Dense(10))
    counts = np.arange(10, 20)
    model = lade_tf.AdaptedModel(network, counts, priors.class_prior(counts), np.eye(10)[3])
    logits = network.predict(source, verbose=0), network.predict(target, verbose=0)
    source_probs, target_probs = (
        tf.nn.softmax(raw - np.log(priors.class_prior(counts))).numpy() for raw in logits
    )
    for method in ("em", "rlls"):
        expected = getattr(label_shift, method)(source_probs, labels, target_probs)
        estimate = model.adapt_to(
            target, source, labels, method=method, batch_size=7, pseudo_count=0
        )
        np.testing.assert_allclose(estimate.prior, expected, atol=1e-4)
        np.testing.assert_allclose(model.target_prior, expected, atol=1e-4)
        assert model.adapt_to(target, source, labels, method=method).prior.min() > 1e-4
    before = model.target_prior
    with pytest.raises(ValueError, match="target_probs must hold at least one sample"):
        model.adapt_to(target[:0], source, labels)
    np.testing.assert_array_equal(model.target_prior, before)


DIGITS = image_files.Format((8, 8, 1), "digits_lt")

BAD_FLAGS = {
    "missing class": (
        {"source": "lacking.npz", "method": "em"},
        "label_shift.rlls gives a regularised estimate",
    ),
    "existing output": ({"output": "target.npz"}, "exists already: give a new file or --overwrite"),
    "SavedModel": ({"run": "lade/saved_model"}, "it is a SavedModel: give --model="),
    "shrink": (
        {"shrink": "true", "bootstrap": "0", "method": "em"},
        "--shrink needs --bootstrap",
    ),
    "no shrinking": ({"pseudo_count": "1"}, "--pseudo_count are for --method=em"),
    "plot": ({"plot": "prior.svg"}, "must end in .png or .pdf"),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", BAD_FLAGS.values(), ids=BAD_FLAGS)
def test_bad_flags_are_refused_in_one_message(change, lade_run, files, samples):
    source, labels, _ = samples
    np.savez(files / "lacking.npz", images=source[labels != 7], labels=labels[labels != 7])
    change, message = change
    if "run" in change:
        change = {"run": lade_run.parent / change["run"]}
    flags = {"run": lade_run, "source": "source.npz", "target": "target.npz", **change}
    given = [f"--{name}={value}" for name, value in flags.items()]
    errors = run("estimate_prior.py", *given, cwd=files, fails=True)
    assert message in errors and "Traceback" not in errors
    assert not (files / "prior.json").exists()


BAD_IMAGES = {
    "empty": "must hold at least one image",
    "bright.npz": "must have pixels of 0 to 16, as those of digits_lt .*; they are 0 to 17",
    "fractions.npz": "must have pixels of 0 to 16, as those of digits_lt .*; they are 0 to 1",
    "bright": "--target=.*bright must have pixels of 0 to 16",
    "nowhere": "must be a folder of images or an .npz file",
    "wrong.npz": "'images' in --target=.*wrong.npz must have shape",
    "small": r"0000.png must have the shape .8, 8, 1. that the model takes; got .4, 8, 1.",
    "damaged": "0.png can't be read as an image",
    "note.txt": "must be a folder of images or an .npz file",
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_refused(name, tmp_path):
    image = np.zeros((8, 8, 1), np.uint8)
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "0.png").write_bytes(b"no image")
    (tmp_path / "note.txt").write_text("no image")
    write_png(tmp_path / "small" / "0000.png", image[:4])
    np.savez(tmp_path / "wrong.npz", images=image[None, :4])
    image[0, 0] = 17
    write_png(tmp_path / "bright" / "0.png", image)
    np.savez(tmp_path / "bright.npz", images=image[None])
    np.savez(tmp_path / "fractions.npz", images=image[None] / 17)
    with pytest.raises(ValueError, match=BAD_IMAGES[name]):
        image_files.read_images(tmp_path / name, DIGITS, "--target")


def test_pixels_of_an_unknown_data_set_are_taken_as_they_are(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.full((2, 8, 8, 1), 300.0))
    [images] = image_files.read_images(
        tmp_path / "x.npz", image_files.Format((8, 8, 1)), "--target"
    )
    assert images.max() == 300


SPLITS = {"train": "data_256/a", "val": "val_256/val", "test": "val_256/test"}


def write_photographs(folder):
    """Writes four images in two classes, of different formats, that lie on their side."""
    rng = np.random.default_rng(0)
    on_its_side = PIL.Image.Exif()
    on_its_side[0x0112] = 6
    names = ("ant/1.png", "ant/2.jfif", "arena/hockey/3.webp", "arena/hockey/4.jpg")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = PIL.Image.fromarray(rng.integers(0, 256, (90, 120, 3)).astype(np.uint8))
        image.save(folder / name, "jpeg" if name.endswith("jfif") else None, exif=on_its_side)
    return names


@pytest.mark.parametrize(
    ("dataset", "size"),
    [
        ("folder", 32),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("folder", 72), ("places_lt", 32), ("places_lt", 72))
        ),
    ],
)
def test_image_files_are_read_as_the_test_images_of_their_data_set(dataset, size, tmp_path):
    for split, place in SPLITS.items():
        place = tmp_path / (split if dataset == "folder" else place)
        lines = [
            f"{(place / name).relative_to(tmp_path)} {label}"
            for name, label in zip(write_photographs(place), (0, 0, 1, 1), strict=True)
        ]
        (tmp_path / f"Places_LT_{split}.txt").write_text("\n".join(lines))
    (place / "ant" / "._1.png").write_bytes(b"macOS leaves these")
    data = lade_tf.data.load(dataset, data_dir=tmp_path, image_size=size)
    expected = np.concatenate([images for images, _ in data.test_batches(4)])
    form = image_files.Format((size, size, 3), dataset, from_files=True)
    batches, labels = image_files.read_labelled_images(place, data.class_names, form, "--source")
    np.testing.assert_array_equal(np.concatenate([*batches]), expected)
    np.testing.assert_array_equal(labels, data.test.labels)
    unlabelled = image_files.read_images(place, form, "--target")
    np.testing.assert_array_equal(np.concatenate([*unlabelled]), expected)


def test_bad_labels_are_refused(tmp_path):
    image = np.full((8, 8, 1), 16, np.uint8)
    arguments = ["ant", "bee"], DIGITS, "--source"
    write_png(tmp_path / "strange" / "cicada" / "0.png", image)
    with pytest.raises(
        ValueError, match="a folder for each class.*ant, bee.*cicada/0.png lies in none"
    ):
        image_files.read_labelled_images(tmp_path / "strange", *arguments)
    np.savez(tmp_path / "bare.npz", images=image[None])
    with pytest.raises(ValueError, match="bare.npz must be an .npz with 'labels'"):
        image_files.read_labelled_images(tmp_path / "bare.npz", *arguments)
    np.savez(tmp_path / "short.npz", images=image[None], labels=[0, 1])
    with pytest.raises(ValueError, match="'labels' in .* must have shape .1.; got .2."):
        image_files.read_labelled_images(tmp_path / "short.npz", *arguments)
    with pytest.raises(ValueError, match="give either --run or --model"):
        classifiers.load()


def test_what_stands_beside_an_estimate_is_known_in_a_prior_file():
    fields = {field.name for field in dataclasses.fields(label_shift.PriorEstimate)}
    assert fields | set(provenance.gather()) <= priors.FILE_KEYS
