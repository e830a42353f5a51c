import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from binaries import server

import lade_tf
from lade_tf.models import export

COUNTS = [40, 20, 8]
PRIOR = np.array([0.1, 0.3, 0.6], np.float32)


@pytest.fixture(scope="module")
def model():
    network = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    model = lade_tf.LADEModel(network, COUNTS)
    model.set_target_prior([0.5, 0.25, 0.25])
    model.prior_adapt.set_temperature(1.5)
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "saved_model"
    model.export(folder, class_names=["ant", "bee", "cat"])
    return folder


@pytest.fixture(scope="module")
def served(folder):
    return tf.saved_model.load(folder)


def make_images(size):
    return np.random.default_rng(size).normal(size=(size, 6, 6, 2)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 5])
def test_serving_default_answers_at_the_stored_prior(model, served, size):
    outputs = served.signatures["serving_default"](images=tf.constant(make_images(size)))
    logits = model(make_images(size))
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-6)
    np.testing.assert_allclose(outputs["probabilities"], tf.nn.softmax(logits), atol=1e-6)
    np.testing.assert_array_equal(outputs["label"], np.argmax(logits, axis=1))


@pytest.mark.parametrize(
    "shape",
    [(1, 9, 9, 2), (2, 47, 91, 2), (1, 6, 5, 2), (0, 9, 9, 2), (1, 6, 6, 3), (6, 6, 2), (6,)],
)
@pytest.mark.parametrize("name", ["serving_default", "serve_with_prior"])
def test_images_of_another_shape_are_refused(served, name, shape):
    """The network would answer another size, and one of another rank would end the process."""
    prior = {"target_prior": tf.constant(PRIOR)} if name == "serve_with_prior" else {}
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        served.signatures[name](images=tf.zeros(shape), **prior)
    own, wanted = "[" + ",".join(map(str, shape)) + "]", "[?,6,6,2]"
    assert f"images {own} is not" in str(raised.value) and wanted in str(raised.value)


def answer_bad_requests(folder, path):
    """In a process of its own: what isn't refused in time ends the process."""
    served = tf.saved_model.load(folder)
    lines = []
    for shape in ((6, 6, 2), (6,), (), (1, 1, 6, 6, 2), (1, 1, 1, 2), (1, 0, 6, 2), (1, 6, 6, 0)):
        try:
            lines.append(served.signatures["serving_default"](images=tf.zeros(shape)))
        except tf.errors.InvalidArgumentError as error:
            lines.append("[?,6,6,2]" in str(error))
    lines.append(served.signatures["serving_default"](images=tf.zeros([2, 6, 6, 2]))["label"].shape)
    path.write_text(repr(lines))


@pytest.mark.slow
def test_no_request_ends_the_process_and_the_next_one_is_answered(folder, tmp_path):
    process = server.Process(target=answer_bad_requests, args=(str(folder), tmp_path / "answers"))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "answers").read_text() == repr([True] * 7 + [tf.TensorShape([2])])


def test_what_the_network_leaves_free_stays_free():
    network = keras.Sequential(
        [keras.Input((None, 6, 2)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    )
    model = lade_tf.LADEModel(network, COUNTS)
    serve = export._ServedModel(model, export.image_spec(network)).serve
    for height in (1, 6, 40):
        images = np.random.default_rng(0).normal(size=(2, height, 6, 2)).astype(np.float32)
        np.testing.assert_allclose(serve(images)["logits"], model(images), atol=1e-6)
    with pytest.raises(ValueError, match="input_signature must fit the network's input"):
        export.image_spec(network, tf.TensorSpec([None, 9, 9, 2]))
    narrowed = export.image_spec(network, tf.TensorSpec([4, 9, None, None], tf.uint8))
    assert narrowed == tf.TensorSpec([4, 9, 6, 2], tf.uint8, name="images")


@pytest.mark.parametrize("prior", [None, PRIOR, np.zeros([0, 3], np.float32)])
def test_an_empty_batch_gives_empty_outputs(served, prior):
    name = "serving_default" if prior is None else "serve_with_prior"
    prior = {} if prior is None else {"target_prior": tf.constant(prior)}
    outputs = served.signatures[name](images=tf.zeros([0, 6, 6, 2]), **prior)
    assert outputs["logits"].shape == outputs["probabilities"].shape == (0, 3)
    assert outputs["label"].shape == (0,)


@pytest.mark.parametrize("pixel", [np.nan, np.inf, -np.inf])
def test_an_image_with_a_pixel_that_is_no_number_has_no_answer(model, served, pixel):
    images = make_images(3)
    images[1, 5, 0, 1] = pixel
    outputs = served.signatures["serving_default"](images=tf.constant(images))
    logits = model(images).numpy()
    for name in ("logits", "probabilities"):
        np.testing.assert_array_equal(
            np.isnan(outputs[name]), [[False] * 3, [True] * 3, [False] * 3]
        )
    np.testing.assert_allclose(outputs["logits"].numpy()[[0, 2]], logits[[0, 2]], atol=1e-6)
    label = outputs["label"].numpy()
    assert label[1] == -1 and (label[[0, 2]] == logits[[0, 2]].argmax(axis=1)).all()


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_what_the_network_itself_cannot_compute_has_no_answer(dtype):
    images = keras.Input((2,), dtype=dtype)
    logits = keras.layers.Dense(3)(keras.ops.log(keras.ops.cast(images, "float32") - 1))
    model = lade_tf.LADEModel(keras.Model(images, logits), COUNTS)
    serve = export._ServedModel(model, export.image_spec(model.network)).serve
    outputs = serve(tf.constant([[2, 3], [0, 2]], dtype))
    assert np.isnan(outputs["probabilities"]).all(axis=1).tolist() == [False, True]
    assert outputs["label"].numpy()[1] == -1 and outputs["label"].dtype == tf.int64


def test_a_class_of_probability_zero_is_no_missing_answer(served):
    prior = tf.constant([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    outputs = served.signatures["serve_with_prior"](
        images=tf.constant(make_images(2)), target_prior=prior
    )
    np.testing.assert_array_equal(outputs["probabilities"], prior)
    assert outputs["label"].numpy().tolist() == [2, 1]


@pytest.mark.parametrize("prior", [PRIOR, np.stack([PRIOR, PRIOR[::-1], [1, 0, 0]])])
def test_serve_with_prior_answers_at_the_passed_prior(model, served, prior):
    outputs = served.signatures["serve_with_prior"](
        images=tf.constant(make_images(3)), target_prior=tf.constant(prior, tf.float32)
    )
    expected = tf.nn.softmax(model(make_images(3), target_prior=tf.constant(prior, tf.float32)))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.6, 0.2], "must hold probabilities >= 0 that sum to 1"),
        ([1.2, -0.1, -0.1], "must hold probabilities >= 0 that sum to 1"),
        ([np.nan, 0.5, 0.5], "must hold probabilities >= 0 that sum to 1"),
        ([0.5, 0.5], r"must have shape \[3\] or \[batch, 3\]; got"),
        (1.0, r"must have shape \[3\] or \[batch, 3\]; got"),
        ([[0.2, 0.3, 0.5]] * 2, r"must have shape \[3\] or \[batch, 3\]; got"),
        ([[[0.2, 0.3, 0.5]]], r"must have shape \[3\] or \[batch, 3\]; got"),
    ],
)
def test_what_is_no_prior_fails_with_a_readable_assertion(served, prior, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"target_prior {message}"):
        served.signatures["serve_with_prior"](
            images=tf.constant(make_images(1)), target_prior=tf.constant(prior, tf.float32)
        )


def test_the_stored_prior_can_be_changed_where_it_is_served(model, folder):
    served = tf.saved_model.load(folder)
    served.set_target_prior(tf.constant(PRIOR))
    outputs = served.signatures["serving_default"](images=tf.constant(make_images(4)))
    expected = model(make_images(4), target_prior=PRIOR)
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="sum to 1"):
        served.set_target_prior(tf.constant([0.5, 0.6, 0.7]))


def test_class_names_and_training_prior_are_assets(folder):
    assets = folder / "assets"
    assert json.loads((assets / "class_names.json").read_text()) == ["ant", "bee", "cat"]
    training = json.loads((assets / "training_prior.json").read_text())
    assert training["class_counts"] == COUNTS
    np.testing.assert_allclose(training["prior"], np.array(COUNTS) / 68)


def test_another_number_of_names_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="class_names must hold 3 names; got 2"):
        model.export(tmp_path / "new", class_names=["ant", "bee"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("cat", "class_names must be a list of strings in label order; got 'cat'"),
        ({2: "emu", 0: "cat", 1: "dog"}, "class_names must be a list of strings in label order"),
        ({"emu", "cat", "dog"}, "class_names must be a list of strings in label order"),
        ([b"cat", b"dog", b"emu"], "class_names must be strings; got .b'cat'"),
        (["cat", None, "emu"], "class_names must be strings"),
        (["cat", "emu", "cat"], "class_names must differ; got 'cat' twice"),
        (np.array(["cat", "emu", "cat"]), "class_names must differ; got 'cat' twice"),
    ],
)
def test_what_are_no_names_in_label_order_is_refused(model, tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        model.export(tmp_path / "new", class_names=names)


def test_names_may_be_an_array_or_a_generator(model, tmp_path):
    for names in (np.array(["cat", "dog", "emu"]), iter(["cat", "dog", "emu"])):
        model.export(tmp_path / "new", class_names=names)
        written = (tmp_path / "new" / "assets" / "class_names.json").read_text()
        assert json.loads(written) == ["cat", "dog", "emu"]


def test_a_network_with_lookup_tables_is_exported(tmp_path):
    codes = keras.Input((1,), dtype="int64")
    encoded = keras.layers.IntegerLookup(vocabulary=[7, 9], output_mode="one_hot")(codes)
    model = lade_tf.LADEModel(keras.Model(codes, keras.layers.Dense(3)(encoded)), COUNTS)
    model.export(tmp_path / "new")
    served = tf.saved_model.load(tmp_path / "new").signatures["serving_default"]
    batch = tf.constant([[9], [7], [1]], tf.int64)
    np.testing.assert_allclose(served(images=batch)["logits"], model(batch), atol=1e-6)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_saved_model_is_never_replaced(model, tmp_path, kind):
    mine = tmp_path / "mine" if kind == "file" else tmp_path / "mine" / "thesis.tex"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("years of work")
    with pytest.raises(ValueError, match="filepath must be a new or empty folder, or a SavedModel"):
        model.export(tmp_path / "mine")
    assert mine.read_text() == "years of work"


def test_a_link_stays_and_what_it_points_to_is_replaced(model, tmp_path):
    (tmp_path / "v1").mkdir()
    (tmp_path / "current").symlink_to("v1")
    for _ in range(2):
        model.export(tmp_path / "current")
    assert (tmp_path / "current").is_symlink() and (tmp_path / "v1" / "saved_model.pb").exists()


@pytest.mark.parametrize(
    "signature",
    [
        [tf.TensorSpec([None, 6, 6, 2])],
        [keras.InputSpec(shape=(None, 6, 6, 2), dtype="float32")],
    ],
)
def test_the_signature_may_be_a_list_as_keras_documents(model, tmp_path, signature):
    model.export(tmp_path / "new", input_signature=signature)
    served = tf.saved_model.load(tmp_path / "new").signatures["serving_default"]
    assert served(images=tf.constant(make_images(2)))["label"].shape == (2,)
    for bad in (signature * 2, [keras.InputSpec(shape=(None, 6, 6, 2))], [(None, 5)]):
        with pytest.raises(ValueError, match="input_signature must be one"):
            model.export(tmp_path / "bad", input_signature=bad)


def test_a_network_that_is_not_built_is_refused(tmp_path):
    network = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="network must have exactly one input.*got no known"):
        lade_tf.LADEModel(network, COUNTS).export(tmp_path / "new")


def test_a_network_of_unknown_inputs_takes_a_signature(tmp_path):
    network = keras.Sequential([keras.layers.Dense(3)])
    model = lade_tf.LADEModel(network, COUNTS)
    images = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    logits = model(images)
    with pytest.raises(ValueError, match="verbos means nothing"):
        model.export(tmp_path / "new", verbos=True)
    model.export(tmp_path / "new", verbose=False, input_signature=tf.TensorSpec([None, 5]))
    served = tf.saved_model.load(tmp_path / "new").signatures["serving_default"]
    np.testing.assert_allclose(served(images=tf.constant(images))["logits"], logits, atol=1e-6)


def test_an_address_is_no_folder(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="filepath must be a local folder; got gs://bucket/model"):
        model.export("gs://bucket/model")
    assert not any(tmp_path.iterdir())


def test_exporting_again_replaces_the_whole_folder(model, tmp_path):
    for names in (["ant", "bee", "cat"], ["x", "y", "z"]):
        model.export(tmp_path / "new", class_names=names)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert json.loads((tmp_path / "new" / "assets" / "class_names.json").read_text()) == names


def test_other_formats_know_the_input_too(model, tmp_path):
    model.export(tmp_path / "model.tflite", format="litert", verbose=False)
    interpreter = tf.lite.Interpreter(str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    images = make_images(1)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    logits = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(logits, model(images), atol=1e-5)


def lite_input(model):
    """Returns the shape that TFLite's converter of a Keras model takes its inputs to have."""
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    details = tf.lite.Interpreter(model_content=content).get_input_details()
    return details[0]["shape_signature"].tolist()


def test_lite_converts_a_model_that_was_never_called(tmp_path):
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model = lade_tf.LADEModel(network, COUNTS)
    assert lite_input(model) == [-1, 4]
    model.save(tmp_path / "model.keras")
    assert lite_input(keras.saving.load_model(tmp_path / "model.keras")) == [-1, 4]


def test_lite_converts_a_network_whose_inputs_only_training_tells():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, inputs):
            return self.dense(inputs)

    model = lade_tf.LADEModel(Network(), COUNTS)
    model.compile("sgd")
    model.fit(np.zeros((2, 5), np.float32), np.array([0, 1]), verbose=0)
    assert lite_input(model) == [-1, 5]


def test_variables_that_no_layer_holds_are_exported(tmp_path):
    class Noisy(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed_generator = keras.random.SeedGenerator(0)

        def call(self, inputs):
            return inputs + 0 * keras.random.normal((1,), seed=self.seed_generator)

    network = keras.Sequential([keras.Input((4,)), Noisy(), keras.layers.Dense(3)])
    model = lade_tf.LADEModel(network, COUNTS)
    model.export(tmp_path / "new")
    served = tf.saved_model.load(tmp_path / "new").signatures["serving_default"]
    np.testing.assert_allclose(served(images=tf.ones([1, 4]))["logits"], model(tf.ones([1, 4])))
