"""KerasHub's classifiers keep the preprocessor that stands beside their layers."""

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf
from lade_tf.models import adaptation, decoupled

COUNTS = [70, 20, 10]
SOURCE = np.array(COUNTS) / 100
LABELS = np.array([0, 1, 2, 0])
LOSS = keras.losses.SparseCategoricalCrossentropy
UINT8 = np.random.default_rng(0).integers(0, 256, (4, 20, 24, 3)).astype(np.uint8)
FLOATS = UINT8.astype(np.float32)


def classifier(activation=None, image_size=(8, 8), num_classes=3, vit=False):
    """Returns a small image classifier whose preprocessor resizes and scales."""
    import keras_hub

    converter = keras_hub.layers.ImageConverter(image_size=image_size, scale=1 / 255, offset=-0.5)
    preprocessor = keras_hub.models.ImageClassifierPreprocessor(image_converter=converter)
    if vit:
        sizes = {"patch_size": 4, "num_layers": 1, "num_heads": 1, "hidden_dim": 4, "mlp_dim": 4}
        backbone = keras_hub.models.ViTBackbone(image_shape=(8, 8, 3), **sizes)
        kind = keras_hub.models.ViTImageClassifier
    else:
        backbone = keras_hub.models.VGGBackbone([1], [4], image_shape=(None, None, 3))
        kind = keras_hub.models.ImageClassifier
    given = {"num_classes": num_classes, "preprocessor": preprocessor, "activation": activation}
    network = kind(backbone, **given)
    network.jit_compile = False  # Keras' default, XLA, takes seconds to compile
    return network


def test_the_preprocessor_is_kept_wherever_images_go_in():
    network = classifier()
    expected = network.predict(UINT8, verbose=0)
    expected_loss, _ = network.evaluate(UINT8, LABELS, verbose=0)

    adapted = lade_tf.adapt(network, COUNTS)
    adapted.set_target_prior(SOURCE)
    adapted.compile("sgd", LOSS(from_logits=True))
    for logits in (adapted(UINT8), adapted.predict(UINT8, verbose=0)):
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert adapted.evaluate(UINT8, LABELS, verbose=0) == pytest.approx(expected_loss, rel=1e-5)
    labelled = tf.data.Dataset.from_tensor_slices((UINT8, LABELS)).batch(3)
    for logits in (
        adaptation.predicted_logits(adapted, labelled, 3),
        adaptation.labelled_logits(adapted, "inputs", "labels", labelled, None, 3)[0],
    ):
        expected = adapted.raw_logits(UINT8)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_it_is_saved_and_exported(tmp_path):
    adapted = lade_tf.adapt(classifier("softmax"), COUNTS)
    expected = adapted(FLOATS)
    adapted.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(FLOATS), expected)
    adapted.export(tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    assert served.structured_input_signature[1]["images"].shape.as_list() == [None, None, None, 3]
    np.testing.assert_allclose(served(images=tf.constant(FLOATS))["logits"], expected, rtol=1e-6)


def test_where_it_doesnt_resize_the_size_is_the_networks_own():
    assert lade_tf.models.export.image_spec(classifier(vit=True)).shape[1:3] == [None, None]
    network = classifier(image_size=None, vit=True)
    assert lade_tf.models.export.image_spec(network).shape.as_list() == [None, 8, 8, 3]
    network.preprocessor = keras.Sequential([keras.layers.Resizing(8, 8)])
    assert lade_tf.models.export.image_spec(network).shape.as_list() == [None, None, None, 3]


def test_training_sees_prepared_images():
    network, other = classifier(), classifier()
    other.set_weights(network.get_weights())
    prepared = network.preprocess_samples(tf.constant(FLOATS))
    other.preprocessor = None
    for net, images in ((network, FLOATS), (other, prepared)):
        model = lade_tf.LADEModel(net, COUNTS)
        model.compile(keras.optimizers.SGD(0.1))
        model.train_on_batch(images, LABELS)
    for one, same in zip(network.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, same, rtol=1e-4, atol=1e-6)


def test_a_change_of_the_preprocessor_is_followed():
    network = classifier()
    adapted = lade_tf.adapt(network, COUNTS)
    adapted(FLOATS)
    for preprocessor in (None, keras.layers.Rescaling(1 / 255)):
        network.preprocessor = preprocessor
        expected = network.predict(FLOATS, verbose=0)
        np.testing.assert_allclose(adapted.raw_logits(FLOATS), expected, rtol=1e-4, atol=1e-6)


def test_one_output_of_a_classifier_is_two_classes():
    network = classifier("sigmoid", num_classes=1)
    network.compile("sgd", keras.losses.BinaryCrossentropy())
    adapted = lade_tf.adapt(network, [90, 10])
    adapted.set_target_prior([0.9, 0.1])
    found = tf.nn.softmax(adapted.predict(UINT8, verbose=0))[:, 1]
    np.testing.assert_allclose(found, network.predict(UINT8, verbose=0)[:, 0], rtol=1e-5)


@pytest.mark.slow
def test_text_is_taken_too(tmp_path):
    import keras_hub

    models = keras_hub.models
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fox", "ran"]
    tokenizer = keras_hub.tokenizers.BertTokenizer(vocabulary=words)
    preprocessor = models.BertTextClassifierPreprocessor(tokenizer, sequence_length=6)
    backbone = models.BertBackbone(len(words), 1, 1, 4, 4, max_sequence_length=6)
    network = models.BertTextClassifier(backbone, num_classes=3, preprocessor=preprocessor)
    network.jit_compile = False
    texts = tf.constant(["the fox", "ran the ran", "fox"])
    expected = network.predict(texts, verbose=0)
    adapted = lade_tf.adapt(network, COUNTS)
    adapted.set_target_prior(SOURCE)
    adapted.compile("sgd", LOSS(from_logits=True))
    np.testing.assert_allclose(adapted.predict(texts, verbose=0), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="exactly one input.* input_signature"):
        adapted.export(tmp_path / "served")
    adapted.export(tmp_path / "served", input_signature=[tf.TensorSpec([None], tf.string)])
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    np.testing.assert_allclose(served(images=texts)["logits"], expected, rtol=1e-5, atol=1e-6)


def test_a_preprocessor_that_would_be_lost_is_refused_with_the_way_out():
    network = classifier()
    with pytest.raises(ValueError, match="network.preprocessor = None"):
        decoupled.retrain_classifier(network)
    network.preprocessor = lambda images: images / 255
    for act in (lade_tf.adapt, lade_tf.LADEModel):
        with pytest.raises(ValueError, match="preprocessor must be a Keras layer.*= None"):
            act(network, COUNTS)
    network.preprocessor = None
    lade_tf.LADEModel(decoupled.retrain_classifier(network), COUNTS)


def test_the_library_imports_no_keras_hub():
    sources = pathlib.Path(lade_tf.__file__).parent.rglob("*.py")
    importing = re.compile(r"^\s*(import|from) keras_hub", re.MULTILINE)
    assert not [path for path in sources if importing.search(path.read_text())]
