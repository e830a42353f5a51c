"""OLTR's network, loss and training against float64 NumPy."""

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from scipy.special import softmax

from lade_tf import backbones
from lade_tf.models import decoupled
from lade_tf.models.oltr import OLTR, centroids_loss, oltr_network

COUNTS = [40, 20, 8, 4]


def make_stage_one(nested=True, use_bias=True):
    pixels = keras.Input((6, 6, 1), name="images")
    x = keras.layers.Rescaling(0.5, dtype="float32")(pixels)
    images = keras.Input((6, 6, 1), name="images") if nested else x
    y = keras.layers.Conv2D(5, 3, strides=2, activation="relu")(images)
    y = keras.layers.BatchNormalization()(y)
    y = keras.layers.GlobalAveragePooling2D(name="features")(y)
    features = keras.Model(images, y, name="backbone")(x) if nested else y
    logits = keras.layers.Dense(4, use_bias=use_bias, dtype="float32", name="logits")(features)
    return keras.Model(pixels, logits, name="network")


def make_data(size=48, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, size)
    patterns = rng.normal(0, 2, (4, 6, 6, 1))
    images = patterns[labels] + rng.normal(0, 0.3, (size, 6, 6, 1))
    return images.astype(np.float32), labels


def feature_model(network):
    return keras.Model(network.input, network.layers[-1].input)


def make_model(images, labels, learning_rate=0.05, **kwargs):
    stage_one = make_stage_one()
    centroids = decoupled.class_means(stage_one, [(images, labels)], 4)
    model = OLTR(oltr_network(stage_one, centroids), COUNTS, **kwargs)
    model.compile(keras.optimizers.SGD(learning_rate, 0.9), metrics=["accuracy"])
    return model


def centroids_loss_oracle(x, labels, centroids, margin, repel=0.01):
    """Returns the loss, its gradient for x, and what the released code moves centroids by."""
    size, num_classes = len(x), len(centroids)
    counts = np.bincount(labels, minlength=num_classes)
    attraction = repulsion = 0.0
    x_gradient, centroid_gradient = np.zeros_like(x), np.zeros_like(centroids)
    repel_x, repel_centroids = np.zeros_like(x), np.zeros_like(centroids)
    for i, c in np.ndindex(size, num_classes):
        difference = x[i] - centroids[c]
        if labels[i] == c:
            attraction += (difference**2).sum() / 2 / size
            x_gradient[i] += difference / size
            centroid_gradient[c] -= difference / (1 + counts[c]) / size
        else:
            repulsion += (difference**2).sum() / (size * num_classes)
            repel_x[i] -= 2 * difference / (size * num_classes)
            repel_centroids[c] += 2 * difference / (size * num_classes)
    if repulsion < margin:
        x_gradient += repel * repel_x
        centroid_gradient += repel * repel_centroids
    return attraction + repel * max(0, margin - repulsion), x_gradient, centroid_gradient


@pytest.mark.parametrize("margin", [0.0, 10.0, 1e3])
def test_centroids_loss_and_its_gradients(margin):
    rng = np.random.default_rng(0)
    x, centroids = rng.normal(size=(7, 3)), rng.normal(size=(4, 3))
    labels = np.array([0, 0, 0, 2, 1, 1, 2])
    expected = centroids_loss_oracle(x, labels, centroids, margin)
    x, centroids = (tf.constant(value, tf.float32) for value in (x, centroids))
    with tf.GradientTape() as tape:
        tape.watch([x, centroids])
        loss = centroids_loss(x, labels, centroids, margin)
    actual = loss, *tape.gradient(loss, [x, centroids])
    for value, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-6)


def test_a_weight_in_the_centroids_loss_is_a_number_of_occurrences():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(5, 3)), np.array([0, 0, 1, 2, 3])
    weight = np.array([2, 1, 0, 3, 1])
    centroids = tf.Variable(rng.normal(size=(4, 3)), dtype=tf.float32)
    results = []
    for batch in ((x, labels, weight), (x.repeat(weight, 0), labels.repeat(weight), None)):
        with tf.GradientTape() as tape:
            loss = centroids_loss(*batch[:2], centroids, 10.0, batch[2])
        results.append((loss.numpy(), tf.convert_to_tensor(tape.gradient(loss, centroids))))
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_gradient_step_moves_centroids_and_features_together():
    rng = np.random.default_rng(0)
    x, labels = tf.Variable(rng.normal(size=(4, 3))), tf.range(4)
    centroids = tf.Variable(rng.normal(size=(4, 3)), dtype=tf.float32)

    def distance():
        return np.linalg.norm(x.numpy() - centroids.numpy())

    for variable in (x, centroids):
        before = distance()
        with tf.GradientTape() as tape:
            loss = centroids_loss(x, labels, centroids, margin=10.0)
        variable.assign_sub(0.5 * tf.cast(tape.gradient(loss, variable), variable.dtype))
        assert distance() < before


def test_gradient_of_the_whole_head():
    """Central differences of a float64 oracle for features and all weights of the head."""
    images, labels = make_data(6)
    model = make_model(images, labels, centroid_weight=0.3)
    rng = np.random.default_rng(3)
    embedding, classifier = model.network.layers[-2:]
    head = embedding.centroids, *embedding.hallucinator.weights, *embedding.selector.weights
    head = [*head, classifier.kernel]
    for weight in head:
        weight.assign(rng.normal(0, 0.7, weight.shape))
    x = tf.constant(rng.normal(size=(6, 5)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = model.compute_loss(y=labels, y_pred=(x, classifier(embedding(x))))
    gradients = tape.gradient(loss, [x, *(weight.value for weight in head)])

    values = [np.asarray(value, np.float64) for value in (x, *head)]

    def oracle(x, memory, hall_kernel, hall_bias, sel_kernel, sel_bias, kernel):
        recalled = softmax(x @ hall_kernel + hall_bias, axis=1) @ memory
        nearest = np.linalg.norm(x[:, None] - memory, axis=2).min(axis=1, keepdims=True)
        v = 10 / nearest * (x + np.tanh(x @ sel_kernel + sel_bias) * recalled)
        squashed = v / (1 + np.linalg.norm(v, axis=1, keepdims=True))
        logits = 16 * squashed @ (kernel / np.linalg.norm(kernel, axis=0))
        return oracles.cross_entropy(logits, labels).mean()

    centroid_term, x_gradient, centroid_gradient = centroids_loss_oracle(
        values[0], labels, values[1], 10.0
    )
    assert loss.numpy() == pytest.approx(oracle(*values) + 0.3 * centroid_term, rel=1e-5)
    for position, value in enumerate(values):
        expected = np.zeros_like(value)
        for index in np.ndindex(value.shape) if position != 1 else ():
            shift = np.zeros_like(value)
            shift[index] = 1e-6
            ends = [
                oracle(*values[:position], value + sign * shift, *values[position + 1 :])
                for sign in (1, -1)
            ]
            expected[index] = (ends[0] - ends[1]) / 2e-6
        if position == 0:
            expected += 0.3 * x_gradient
        if position == 1:  # cross-entropy doesn't reach the centroids
            expected = 0.3 * centroid_gradient
        np.testing.assert_allclose(
            tf.convert_to_tensor(gradients[position]), expected, rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("nested", [True, False])
def test_the_network_starts_from_the_first_stage_and_shares_its_layers(nested):
    images, labels = make_data()
    stage_one = make_stage_one(nested)
    stage_one.layers[-1].bias.assign([0.1, 0.2, 0.3, 0.4])
    expected = feature_model(stage_one)(images)
    logits = stage_one(images)
    centroids = decoupled.class_means(stage_one, [(images, labels)], 4)
    network = oltr_network(stage_one, centroids)
    embedding = network.get_layer("meta_embedding")
    np.testing.assert_array_equal(keras.Model(network.input, embedding.input)(images), expected)
    np.testing.assert_allclose(embedding.centroids, centroids, rtol=1e-6)
    np.testing.assert_array_equal(embedding.hallucinator(expected), logits)
    assert network.output.dtype == "float32" and network.output.shape == (None, 4)
    assert network.input.name == stage_one.input.name
    shared = {id(weight) for weight in network.weights}
    body = [weight for weight in stage_one.weights if "logits" not in weight.path]
    assert len(body) == 6 and all(id(weight) in shared for weight in body)
    # attention 3 · 5·2+2, 2·5, 20·4+4; memory 4·5, 5·4+4, 5·5+5; classifier 5·4
    own = 36 + 10 + 84 + 20 + 24 + 30 + 20
    assert network.count_params() == own + sum(np.prod(weight.shape) for weight in body)
    np.testing.assert_array_equal(stage_one(images), logits)


@pytest.mark.parametrize("backbone", [backbones.resnet32, backbones.small_cnn])
def test_the_backbones_of_this_package(backbone):
    pixels = keras.Input((8, 8, 1), name="images")
    network = keras.Model(pixels, backbones.classifier_head(backbone((8, 8, 1))(pixels), 4))
    images = make_data(4)[0][:, :4, :4].repeat(2, 1).repeat(2, 2)
    expected = feature_model(network)(images)
    second = oltr_network(network)
    again = oltr_network(network)  # nothing of the first stage is used up
    for rebuilt in (second, again):
        features = keras.Model(rebuilt.input, rebuilt.get_layer("meta_embedding").input)
        np.testing.assert_allclose(features(images), expected, rtol=1e-6)


def test_a_classifier_without_bias():
    network = oltr_network(make_stage_one(use_bias=False))
    assert not np.any(network.get_layer("meta_embedding").hallucinator.bias)


def test_the_features_see_the_attention():
    images, labels = make_data(8)
    model = make_model(images, labels)
    attention = model.network.get_layer("backbone").get_layer("modulated_attention")
    before = model._features_and_logits(images)[0].numpy()
    attention.back.kernel.assign(np.ones(attention.back.kernel.shape))
    assert np.abs(model._features_and_logits(images)[0] - before).max() > 1e-3


@pytest.mark.parametrize("weighted", [False, True])
def test_the_two_terms_are_shown_and_make_up_the_loss(weighted):
    images, labels = make_data()
    weight = np.random.default_rng(1).integers(0, 4, len(labels)) if weighted else None
    model = make_model(images, labels, centroid_weight=0.5)
    logs = model.evaluate(
        images, labels, batch_size=12, sample_weight=weight, verbose=0, return_dict=True
    )
    assert set(logs) == {"loss", "cross_entropy", "centroids", "accuracy"}
    assert logs["loss"] == pytest.approx(logs["cross_entropy"] + 0.5 * logs["centroids"], rel=1e-5)
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = plain(labels, model.network(images), weight).numpy()
    assert logs["cross_entropy"] == pytest.approx(expected, rel=1e-4)


def test_losses_of_the_network_are_added():
    images, labels = make_data(8)
    losses = []
    for regularizer in (None, keras.regularizers.L2(1.0)):
        keras.utils.set_random_seed(0)
        network = make_stage_one()
        network.get_layer("backbone").layers[1].activity_regularizer = regularizer
        model = OLTR(oltr_network(network), COUNTS)
        model.compile("sgd")
        losses.append(model.evaluate(images, labels, verbose=0, return_dict=True)["loss"])
    activation = network.get_layer("backbone").layers[1](images / 2).numpy()
    expected = np.square(activation).sum() / len(images)
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-4)


def test_one_step_trains_all_weights_by_gradient_descent():
    images, labels = make_data(12)
    model = make_model(images, labels)
    model.network.get_layer("backbone").get_layer("modulated_attention").back.kernel.assign(
        np.full((2, 5), 0.1)
    )
    model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    before = [weight.numpy() for weight in model.trainable_variables]
    with tf.GradientTape() as tape:
        outputs = model._features_and_logits(images, training=True)
        loss = model.compute_loss(images, labels, outputs)
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
    model.train_on_batch(images, labels)
    for weight, old, gradient in zip(model.trainable_variables, before, gradients, strict=True):
        np.testing.assert_allclose(weight, old - 0.1 * gradient, rtol=1e-4, atol=1e-6)
        assert "phi/bias" in weight.path or not np.array_equal(weight, old), weight.path


def test_ten_steps_reduce_the_loss_and_it_learns():
    images, labels = make_data()
    model = make_model(images, labels)
    losses = [model.train_on_batch(images, labels)[0] for _ in range(10)]
    assert losses[-1] < 0.7 * losses[0]
    model.fit(images, labels, batch_size=12, epochs=15, verbose=0)
    assert model.evaluate(images, labels, verbose=0, return_dict=True)["accuracy"] > 0.9


def test_a_model_saved_half_way_goes_on_as_if_it_had_not_been(tmp_path):
    images, labels = make_data()

    def fit(model):
        model.fit(images, labels, batch_size=12, epochs=2, shuffle=False, verbose=0)

    model = make_model(images, labels, centroid_weight=0.2, margin=7.0, target_prior=[1, 0, 0, 0])
    fit(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert (again.centroid_weight, again.margin) == (0.2, 7.0)
    np.testing.assert_array_equal(again.target_prior, [1, 0, 0, 0])
    for trained in (model, again):
        fit(trained)
    assert len(again.weights) == len(model.weights)
    for actual, expected in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(actual, expected)
    model.save_weights(tmp_path / "model.weights.h5")
    again = OLTR(oltr_network(make_stage_one()), COUNTS)
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(again.network(images), model.network(images))


def test_exported_it_answers_alike(tmp_path):
    images, labels = make_data(12)
    model = make_model(images, labels)
    model.train_on_batch(images, labels)
    model.export(tmp_path / "saved_model")
    served = tf.saved_model.load(tmp_path / "saved_model").signatures["serving_default"]
    np.testing.assert_allclose(served(images=images)["logits"], model(images), atol=1e-5)


def test_predictions_follow_the_target_prior():
    images, labels = make_data(8)
    model = make_model(images, labels)
    assert model.prior_adapt.source_prior is None
    model.set_target_prior([0.1, 0.2, 0.3, 0.4])
    expected = model.network(images) + np.log([0.1, 0.2, 0.3, 0.4]).astype(np.float32)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(policy):
    keras.config.set_dtype_policy(policy)
    images, labels = make_data()
    model = make_model(images, labels)
    logs = model.fit(images, labels, batch_size=12, epochs=15, verbose=0).history
    assert model.network.get_layer("meta_embedding").input.dtype == policy.removeprefix("mixed_")
    assert model(images).dtype == tf.float32 and np.isfinite(logs["loss"]).all()
    assert logs["accuracy"][-1] > 0.8


def test_mixed_labels_share_the_loss():
    images, labels = make_data(12)
    others = labels[::-1].copy()
    model = make_model(images, labels)
    outputs = model._features_and_logits(images, training=True)
    first, second = (model.compute_loss(images, one, outputs).numpy() for one in (labels, others))
    mixed = tf.data.Dataset.from_tensors((images, (labels, others, tf.fill([12], 0.7))))
    logs = model.fit(mixed, shuffle=False, verbose=0).history
    assert logs["loss"][0] == pytest.approx(0.7 * first + 0.3 * second, rel=1e-4)


def test_two_replicas_show_the_loss_of_one(two_replicas):
    images, labels = make_data()

    def evaluate():
        keras.utils.set_random_seed(0)
        model = make_model(images, labels)
        return model.evaluate(images, labels, batch_size=48, verbose=0, return_dict=True)

    alone = evaluate()
    with two_replicas.scope():
        together = evaluate()
    # The hinge is open on both halves, so the centroids loss is a mean over examples.
    for name, value in alone.items():
        assert together[name] == pytest.approx(value, rel=1e-4)


def test_xla_and_no_xla_agree():
    images, labels = make_data(12)
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = make_model(images, labels)
        model.compile(keras.optimizers.SGD(0.05), jit_compile=jit_compile)
        model.train_on_batch(images, labels)
        results.append(model.network(images))
    np.testing.assert_allclose(*results, rtol=1e-3, atol=1e-4)


def test_bad_networks_are_refused():
    pixels = keras.Input((6, 6, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(pixels)
    dense = keras.layers.Dense(4)
    networks = [
        keras.Model(pixels, keras.layers.Dense(4, "softmax")(pooled)),
        keras.Model(pixels, dense(keras.layers.Flatten()(pixels))),
        keras.Model(pixels, pooled),
        keras.Sequential([pixels, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]),
        dense,
    ]
    for network in networks:
        with pytest.raises(ValueError, match="network must be a functional keras.Model that ends"):
            oltr_network(network)
    pixels = keras.Input((None, None, 3))
    anysize = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(pixels))
    with pytest.raises(ValueError, match="known height, width and channels"):
        oltr_network(keras.Model(pixels, anysize))
    with pytest.raises(ValueError, match="must have one MetaEmbedding layer.*network has 0"):
        OLTR(make_stage_one(), COUNTS)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"centroids must have shape \(4, 5\); got \(5, 4\)"):
        oltr_network(make_stage_one(), np.ones((5, 4)))
    with pytest.raises(ValueError, match="centroids must be finite"):
        oltr_network(make_stage_one(), np.full((4, 5), np.nan))
    network = oltr_network(make_stage_one())
    for name in ("margin", "centroid_weight"):
        with pytest.raises(ValueError, match=f"{name} must be a finite number >= 0; got -1"):
            OLTR(network, COUNTS, **{name: -1})
    with pytest.raises(ValueError, match=r"\[batch, 3\] logits"):
        OLTR(network, COUNTS[:3])
    model = OLTR(network, COUNTS)
    with pytest.raises(ValueError, match="loss must not be given to OLTR"):
        model.compile("sgd", loss="mse")


def test_labels_out_of_range_stop_fit():
    images, labels = make_data(8)
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be integers in 0..3"):
        make_model(images, labels % 4).fit(images, labels + 4, verbose=0)
