"""--weights: what it asks of a backbone, and what it puts into it."""

import keras
import numpy as np
import pytest
from reproduction import pretrained

import lade_tf
from lade_tf.backbones import resnet50, small_cnn

IMAGENET_ARGUMENTS = {"stride_in": "1x1", "conv_bias": True}


@pytest.fixture(scope="module")
def source():
    """A keras.applications network with random weights and statistics."""
    network = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg")
    rng = np.random.default_rng(0)
    for variable in network.variables:
        if variable.name in ("bias", "beta", "moving_mean"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
        elif variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return network


@pytest.fixture
def cnn():
    return small_cnn()


def assert_same_weights(backbone, other):
    for actual, expected in zip(backbone.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def assert_same_features(backbone, source):
    images = np.random.default_rng(1).integers(0, 256, (2, 48, 48, 3)).astype(np.float32)
    theirs = keras.applications.resnet.preprocess_input(images.copy())
    ours = (images / 255 - pretrained.IMAGENET_MEAN) / pretrained.IMAGENET_STD
    expected = source(theirs, training=False).numpy()
    actual = backbone(ours.astype(np.float32), training=False).numpy()
    assert expected.std() > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_copied_from_applications_takes_rgb_and_gives_the_same_features(source):
    backbone = resnet50((48, 48, 3), **IMAGENET_ARGUMENTS)
    pretrained.copy_from_applications(source, backbone)
    assert_same_features(backbone, source)


def test_imagenet_takes_the_network_of_keras_applications(source, monkeypatch):
    def fetch(**arguments):
        assert arguments == {"include_top": False, "weights": "imagenet"}
        return source

    monkeypatch.setitem(pretrained.APPLICATIONS, "resnet50", fetch)
    arguments = pretrained.backbone_arguments("resnet50", "imagenet")
    backbone = resnet50((48, 48, 3), **arguments)
    pretrained.load("resnet50", backbone, "imagenet")
    assert_same_features(backbone, source)


def test_imagenet_that_cannot_be_fetched_says_what_to_do(monkeypatch, cnn):
    def fetch(**_):
        raise Exception("URL fetch failure on https://host/file.h5")

    monkeypatch.setitem(pretrained.APPLICATIONS, "resnet152", fetch)
    with pytest.raises(ValueError) as error:
        pretrained.load("resnet152", cnn, "imagenet")
    for part in (
        "weights='imagenet' could not be fetched (URL fetch failure on https://host/file.h5)",
        "~/.keras/models/resnet152_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "--weights=none or --weights=PATH",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"stride_in": "3x3", "conv_bias": True}, r"'conv3_block1_1_conv' .*strides \(1, 1\); got"),
        ({"stride_in": "1x1", "conv_bias": False}, r"'conv1_conv' .*got .*bias \(64,\)"),
        ({"input_shape": (48, 48, 1), **IMAGENET_ARGUMENTS}, r"'conv1_conv' .*\(7, 7, 1, 64\)"),
    ],
)
def test_applications_weights_are_refused_by_another_network(source, arguments, message):
    backbone = resnet50(**{"input_shape": (48, 48, 3), **arguments})
    before = backbone.get_weights()
    with pytest.raises(ValueError, match=message):
        pretrained.copy_from_applications(source, backbone)
    for weight, old in zip(backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_what_the_weights_imply():
    for name in ("resnet50", "resnet152"):
        assert pretrained.backbone_arguments(name, "imagenet") == IMAGENET_ARGUMENTS
    for weights in ("none", "somewhere/best.keras"):
        assert pretrained.backbone_arguments("resnext50", weights) == {}


@pytest.mark.parametrize("name", ["resnext50", "resnet32", "small_cnn"])
def test_backbones_without_imagenet_weights(name, cnn):
    message = f"needs a backbone among resnet50, resnet152; got '{name}'"
    with pytest.raises(ValueError, match=message):
        pretrained.backbone_arguments(name, "imagenet")
    with pytest.raises(ValueError, match=message):
        pretrained.load(name, cnn, "imagenet")


def test_none_leaves_the_weights(cnn):
    copy = keras.models.clone_model(cnn)
    copy.set_weights(cnn.get_weights())
    pretrained.load("small_cnn", cnn, "none")
    assert_same_weights(cnn, copy)


def save(backbone, path):
    save = backbone.save if path.suffix == ".keras" else backbone.save_weights
    save(path)
    return str(path)


@pytest.mark.parametrize("file", ["cnn.weights.h5", "cnn.keras"])
def test_a_path_gives_the_weights_of_the_file(tmp_path, cnn, file):
    other = small_cnn((16, 16, 1), name="other")
    for variable in other.variables:
        variable.assign(np.random.default_rng(0).uniform(0.5, 1.5, variable.shape))
    pretrained.load("small_cnn", cnn, save(other, tmp_path / file))
    assert_same_weights(cnn, other)


@pytest.mark.parametrize("file", ["cnn.weights.h5", "cnn.keras"])
def test_a_file_that_does_not_fit_is_named(tmp_path, cnn, file):
    path = save(small_cnn((8, 8, 3)), tmp_path / file)
    with pytest.raises(ValueError, match=rf"(?s){file}' must hold a small_cnn with .*weights, but"):
        pretrained.load("small_cnn", cnn, path)


def test_a_file_of_another_network_is_refused(tmp_path, cnn):
    path = save(small_cnn(branches=2), tmp_path / "cnn.keras")
    with pytest.raises(ValueError, match="the same layers; 'block3_bn' and 5 others are in one"):
        pretrained.load("small_cnn", cnn, path)


@pytest.mark.parametrize("file", ["cnn.weights.h5", "cnn.keras"])
def test_a_broken_file_is_named(tmp_path, cnn, file):
    (tmp_path / file).write_text("not weights")
    with pytest.raises(ValueError, match=rf"(?s){file}' must hold a small_cnn"):
        pretrained.load("small_cnn", cnn, tmp_path / file)


def test_paths_that_do_not_exist_or_are_of_no_known_kind(cnn):
    with pytest.raises(ValueError, match="must name a file that exists; got 'gone.weights.h5'"):
        pretrained.load("small_cnn", cnn, "gone.weights.h5")
    with pytest.raises(ValueError, match="'imagenet', 'none' or the path .*; got 'Imagenet'"):
        pretrained.load("small_cnn", cnn, "Imagenet")


def test_the_model_of_a_run_gives_its_backbone(tmp_path, cnn):
    trained = small_cnn((16, 16, 1))
    for variable in trained.variables:
        variable.assign(np.random.default_rng(0).uniform(0.5, 1.5, variable.shape))
    images = keras.Input((16, 16, 1))
    network = keras.Model(images, keras.layers.Dense(3)(trained(images)))
    lade_tf.LADEModel(network, [3, 2, 1]).save(tmp_path / "best.keras")
    pretrained.load("small_cnn", cnn, tmp_path / "best.keras")
    assert_same_weights(cnn, trained)


@pytest.mark.slow
def test_a_run_that_began_from_imagenet_gives_its_form_and_its_normalisation(tmp_path):
    images = keras.Input((32, 32, 3))
    scale, offset = pretrained.normalisation("imagenet")
    normalised = keras.layers.Rescaling(scale, offset, name="normalise")(images)
    trained = resnet50((32, 32, 3), **IMAGENET_ARGUMENTS)
    network = keras.Model(images, keras.layers.Dense(3)(trained(normalised)))
    path = tmp_path / "best.keras"
    lade_tf.LADEModel(network, [3, 2, 1]).save(path)
    assert pretrained.backbone_arguments("resnet50", path) == IMAGENET_ARGUMENTS
    assert pretrained.normalisation(path) == (scale, offset)
    backbone = resnet50((32, 32, 3), **IMAGENET_ARGUMENTS)
    pretrained.load("resnet50", backbone, path)
    assert_same_weights(backbone, trained)


def test_files_that_tell_no_normalisation(tmp_path, cnn):
    assert pretrained.normalisation(save(cnn, tmp_path / "cnn.keras")) is None
    assert pretrained.normalisation("none") is None
    assert pretrained.normalisation("cnn.weights.h5") is None
