import json

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf

import lade_tf
from lade_tf.backbones import classifier_head, resnet32, small_cnn
from lade_tf.backbones.resnet32 import conv_bn
from lade_tf.models.bbn import BBN, split_branches

COUNTS = [40, 20, 8]
EPOCHS, STEPS = 4, 5  # of a run


def linear_network(**kwargs):
    images = keras.Input((4,), name="images")
    branches = [keras.layers.Dense(size, name=f"branch{size}", **kwargs)(images) for size in (2, 5)]
    features = keras.layers.Concatenate()(branches)
    return keras.Model(images, classifier_head(features, 3))


def convolutional_network(backbone=None):
    """As experiments build it: the backbone is a nested model, something stands before it."""
    pixels = keras.Input((8, 8, 1))
    backbone = backbone or small_cnn(branches=2)
    features = backbone(keras.layers.Rescaling(0.5, dtype="float32")(pixels))
    return keras.Model(pixels, classifier_head(features, 3))


def make_model(network=None, **kwargs):
    model = BBN(network or linear_network(), COUNTS, EPOCHS, STEPS, **kwargs)
    model.compile(lade_tf.optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"])
    return model


def make_pairs(shape=(4,), size=40, seed=0):
    rng = np.random.default_rng(seed)
    images = tuple(rng.normal(size=(size, *shape)).astype(np.float32) for _ in range(2))
    return images, tuple(rng.integers(0, 3, size) for _ in range(2))


def go_to_epoch(model, epoch):
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(epoch * STEPS + STEPS - 1)  # its last step


def values(weights):
    return [weight.numpy() for weight in weights]


def changes(model, action):
    """Returns {path: largest change} of every variable of the network during an action."""
    before = values(model.network.variables)
    action()
    after = zip(model.network.variables, before, strict=True)
    return {variable.path: np.abs(variable - old).max() for variable, old in after}


# The mathematics.


@pytest.mark.parametrize(("epoch", "mixing"), [(0, 1.0), (1, 15 / 16), (2, 0.75), (4, 0.0), (9, 0)])
def test_the_step_is_the_gradient_of_the_mixture(epoch, mixing):
    images, labels = make_pairs()
    model = make_model()
    model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    go_to_epoch(model, epoch)
    weights = [weight.astype(np.float64) for weight in values(model.network.weights)]

    def mixture(kernel_c, bias_c, kernel_r, bias_r, kernel, bias):
        features = [
            2 * mixing * (images[0] @ kernel_c + bias_c),
            2 * (1 - mixing) * (images[1] @ kernel_r + bias_r),
        ]
        logits = np.concatenate(features, axis=1) @ kernel + bias
        terms = [oracles.cross_entropy(logits, one).mean() for one in labels]
        return logits, mixing * terms[0] + (1 - mixing) * terms[1]

    logits, loss = mixture(*weights)
    actual = model.mixed_logits(*images, model.mixing_weight(model.optimizer.iterations))
    np.testing.assert_allclose(actual, logits, rtol=1e-5, atol=1e-6)
    logs = model.train_on_batch(images, labels, return_dict=True)
    assert logs["loss"] == pytest.approx(loss, rel=1e-5)
    assert logs["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels[0]).mean())
    for position, variable in enumerate(model.network.weights):
        for index in np.ndindex(*variable.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [weight.copy() for weight in weights]
                moved[position][index] += step
                ends.append(mixture(*moved)[1])
            expected = weights[position][index] - 0.1 * (ends[0] - ends[1]) / 2e-6
            assert variable.numpy()[index] == pytest.approx(expected, abs=1e-5)


def test_the_mixing_weight_changes_between_epochs_only():
    model = make_model()
    weights = [float(model.mixing_weight(step)) for step in range(EPOCHS * STEPS)]
    expected = np.repeat([1 - (epoch / EPOCHS) ** 2 for epoch in range(EPOCHS)], STEPS)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_half_and_half_of_the_same_images_give_the_plain_logits(policy):
    keras.config.set_dtype_policy(policy)
    images = keras.Input((4,))
    # Images that would lose all their digits if they were cast before the network casts them.
    digits = keras.layers.Rescaling(1.0, -1000.0, dtype="float32")(images)
    features = keras.layers.Concatenate()([keras.layers.Dense(2)(digits) for _ in range(2)])
    model = make_model(keras.Model(images, classifier_head(features, 3)))
    batch = 1000 + make_pairs()[0][0]
    expected = model.raw_logits(batch)
    np.testing.assert_allclose(model.mixed_logits(batch, batch, 0.5), expected, rtol=1e-6)


def test_inference_is_the_plain_network():
    (images, _), (labels, _) = make_pairs()
    model = make_model(target_prior=[0.2, 0.3, 0.5])
    logits = model.network(images).numpy()
    expected = logits + np.log([0.2, 0.3, 0.5])
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.raw_logits(images), logits)
    logs = model.evaluate(images, labels, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(oracles.cross_entropy(logits, labels).mean(), rel=1e-5)
    assert logs["accuracy"] == pytest.approx((expected.argmax(axis=1) == labels).mean())


# What each branch sees.


@pytest.mark.parametrize(("epoch", "idle"), [(0, "branch2"), (EPOCHS, "branch1")])
def test_at_either_end_one_branch_and_its_half_of_the_head_stand_still(epoch, idle):
    images, labels = make_pairs((8, 8, 1))
    model = make_model(convolutional_network())
    go_to_epoch(model, epoch)
    head = model.network.layers[-1].kernel.numpy()
    moved = changes(model, lambda: model.train_on_batch(images, labels))
    gradients = {path: change for path, change in moved.items() if "moving" not in path}
    assert all((change == 0) == (idle in path) for path, change in gradients.items())
    moved = np.abs(model.network.layers[-1].kernel - head).max(axis=1) > 0
    halves = moved[:64].any(), moved[64:].any()
    assert halves == ((True, False) if idle == "branch2" else (False, True))


def test_batch_norm_of_a_branch_sees_its_own_batch_and_the_shared_one_both():
    images, _ = make_pairs((8, 8, 1))
    model = make_model(convolutional_network())

    def moved_by(changed):
        start = values(model.network.variables)
        batches = [image + 1 if index == changed else image for index, image in enumerate(images)]
        model.mixed_logits(*batches, 0.5)
        moving = {
            variable.path.split("/")[-2]: variable.numpy()
            for variable in model.network.variables
            if variable.path.endswith("moving_mean")
        }
        for variable, value in zip(model.network.variables, start, strict=True):
            variable.assign(value)
        return moving

    plain = moved_by(None)
    for changed, layers in ((0, {"branch1_bn"}), (1, {"branch2_bn"})):
        other = moved_by(changed)
        seen = {name for name in plain if not np.array_equal(plain[name], other[name])}
        assert seen == {"block1_bn", "block2_bn"} | layers


def test_the_shared_part_sees_the_conventional_batch_first():
    images, _ = make_pairs((8, 8, 1))
    inputs = keras.Input((8, 8, 1))
    shared = conv_bn(inputs, 2, name="shared")
    branches = [conv_bn(shared, 3, name=f"branch{branch}") for branch in (1, 2)]
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Concatenate()(branches))
    model = make_model(keras.Model(inputs, classifier_head(pooled, 3)))
    layer = model.network.get_layer("shared_bn")
    convolved = [model.network.get_layer("shared_conv")(image).numpy() for image in images]
    first, second = (x.mean(axis=(0, 1, 2)) for x in convolved)
    tf.function(model.mixed_logits)(*images, 0.5)
    expected = 0.9 * 0.1 * first + 0.1 * second
    np.testing.assert_allclose(layer.moving_mean, expected, rtol=1e-4, atol=1e-7)


def test_activity_losses_of_both_batches_are_added():
    images, labels = make_pairs()

    def loss(**kwargs):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        shared = keras.layers.Dense(3, name="shared", **kwargs)(inputs)
        features = keras.layers.Concatenate()([keras.layers.Dense(2)(shared) for _ in range(2)])
        network = keras.Model(inputs, classifier_head(features, 3))
        own = sum(np.square(network.get_layer("shared")(batch)).sum() for batch in images)
        return make_model(network).train_on_batch(images, labels, return_dict=True)["loss"], own

    plain, own = loss()
    regularised, _ = loss(activity_regularizer=keras.regularizers.L2(1.0))
    assert regularised - plain == pytest.approx(own / len(labels[0]), rel=1e-4)


# The structure of the network.


@pytest.mark.parametrize("make", [lambda: convolutional_network(), linear_network])
def test_the_branches_are_the_halves_of_the_features_and_share_every_weight(make):
    network = make()
    conventional, rebalancing = split_branches(network)
    (images, _), _ = make_pairs(network.input_shape[1:])
    features = keras.Model(network.input, network.layers[-1].input)(images)
    halves = np.concatenate([conventional(images), rebalancing(images)], axis=1)
    np.testing.assert_allclose(halves, features, rtol=1e-5, atol=1e-6)
    own = {id(variable) for variable in network.variables}
    variables = [*conventional.variables, *rebalancing.variables]
    assert {id(variable) for variable in variables} < own
    assert len(make_model(network).trainable_variables) == len(network.trainable_variables)


def test_resnet32_splits_after_its_last_stage():
    backbone = resnet32()
    network = keras.Model(backbone.input, classifier_head(backbone.output, 3))
    for branch in split_branches(network):
        assert branch.output.shape == (None, 64)
        # A basic block of two convolutions, each with batch norm's scale and offset.
        block = 2 * (64 * 64 * 9 + 2 * 64)
        assert sum(np.prod(v.shape) for v in branch.trainable_variables) == 537_488 - block


def without_branches():
    return convolutional_network(small_cnn())


def three_branches():
    images = keras.Input((4,))
    branches = [keras.layers.Dense(2)(images) for _ in range(3)]
    return keras.Model(images, classifier_head(keras.layers.Concatenate()(branches), 3))


def rows_joined():
    images = keras.Input((8, 8, 1))
    joined = keras.layers.Concatenate(axis=1)([images, images])
    return keras.Model(images, classifier_head(keras.layers.GlobalAveragePooling2D()(joined), 3))


def no_head():
    images = keras.Input((3,))
    return keras.Model(images, keras.layers.LayerNormalization()(images))


def not_functional():
    return keras.Sequential([keras.layers.Dense(3)])


@pytest.mark.parametrize(
    "make", [without_branches, three_branches, rows_joined, no_head, not_functional]
)
def test_a_network_without_two_branches_is_refused(make):
    with pytest.raises(ValueError, match="network must be a functional model that ends in two"):
        BBN(make(), COUNTS, EPOCHS, STEPS)


def test_small_cnn_is_the_same_but_for_its_branches():
    keras.utils.set_random_seed(0)
    default = small_cnn()
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 1))
    x = keras.layers.ReLU()(conv_bn(images, 32, name="block1"))
    x = keras.layers.ReLU()(conv_bn(x, 64, stride=2, name="block2"))
    x = keras.layers.ReLU()(conv_bn(x, 64, name="block3"))
    plain = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    for one, other in zip(default.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    images = make_pairs((8, 8, 1))[0][0]
    np.testing.assert_array_equal(default(images), plain(images))
    assert small_cnn(branches=2).output.shape == (None, 128)
    with pytest.raises(ValueError, match="branches must be one of 1, 2; got 3"):
        small_cnn(branches=3)


# Saving, resuming, exporting.


def train(model, epochs, initial_epoch=0):
    data = tf.data.Dataset.from_tensor_slices(make_pairs((8, 8, 1))).batch(40 // STEPS)
    history = model.fit(data, epochs=epochs, initial_epoch=initial_epoch, verbose=0).history
    return model, history


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    def fresh():
        keras.utils.set_random_seed(0)
        model = make_model(convolutional_network())
        model.optimizer.build(model.trainable_variables)
        return model

    whole, history = train(fresh(), EPOCHS)
    half, _ = train(fresh(), 2)
    half.save_weights(tmp_path / "half.weights.h5")
    half.save(tmp_path / "half.keras")
    weights = fresh()
    weights.load_weights(tmp_path / "half.weights.h5")
    for again in (weights, keras.saving.load_model(tmp_path / "half.keras")):
        again, rest = train(again, EPOCHS, initial_epoch=2)
        assert rest["loss"] == history["loss"][2:]
        for one, other in zip(again.variables, whole.variables, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_loaded_model_is_the_same_and_shares_what_was_shared(tmp_path):
    model, _ = train(make_model(convolutional_network()), 1)
    model.set_target_prior([0.2, 0.3, 0.5])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    images = make_pairs((8, 8, 1))[0]
    np.testing.assert_array_equal(again(images[0]), model(images[0]))
    np.testing.assert_array_equal(
        again.mixed_logits(*images, 0.5), model.mixed_logits(*images, 0.5)
    )
    assert len(again.trainable_variables) == len(model.trainable_variables)
    config = json.dumps(keras.saving.serialize_keras_object(model))
    rebuilt = keras.saving.deserialize_keras_object(json.loads(config))
    assert json.dumps(keras.saving.serialize_keras_object(rebuilt)) == config
    assert (again.epochs, again.steps_per_epoch) == (EPOCHS, STEPS)


def test_the_files_weights_are_those_of_an_adapted_model(tmp_path):
    model = make_model(convolutional_network())
    model.save_weights(tmp_path / "model.weights.h5")
    plain = lade_tf.AdaptedModel(convolutional_network(), COUNTS)
    plain.load_weights(tmp_path / "model.weights.h5")
    assert [type(layer) for layer in model.layers] == [type(layer) for layer in plain.layers]
    images = make_pairs((8, 8, 1))[0][0]
    np.testing.assert_array_equal(plain(images), model(images))


def test_export(tmp_path):
    model, _ = train(make_model(convolutional_network()), 1)
    model.export(tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    images = make_pairs((8, 8, 1))[0][0]
    outputs = served(images=tf.constant(images))
    np.testing.assert_allclose(outputs["logits"], model(images), rtol=1e-5, atol=1e-5)


# How it is trained.


def test_validation_data_are_plain():
    model = make_model()
    images, labels = make_pairs()
    history = model.fit(images, labels, validation_data=(images[0], labels[0]), verbose=0).history
    logs = model.evaluate(images[0], labels[0], verbose=0, return_dict=True)
    assert history["val_loss"][0] == pytest.approx(logs["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_steps_like_float32(policy):
    images, labels = make_pairs((8, 8, 1))

    def step():
        keras.utils.set_random_seed(0)
        model = make_model(convolutional_network())
        go_to_epoch(model, 2)
        before = model.network.layers[-1].kernel.numpy()
        model.train_on_batch(images, labels)
        return model, model.network.layers[-1].kernel - before

    _, expected = step()
    keras.config.set_dtype_policy(policy)
    model, change = step()
    assert model.mixed_logits(*images, 0.5).dtype == tf.float32
    np.testing.assert_allclose(change, expected, rtol=0.1, atol=0.05 * np.abs(expected).max())


def test_xla_and_no_xla_agree():
    images, labels = make_pairs()
    models = make_model(), make_model()
    models[1].network.set_weights(models[0].network.get_weights())
    models[1].compile(lade_tf.optimizers.SGD(0.1, momentum=0.9), jit_compile=True)
    for model in models:
        model.fit(images, labels, batch_size=8, shuffle=False, epochs=3, verbose=0)
    for plain, compiled in zip(*(values(model.network.weights) for model in models), strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-5, atol=1e-6)


def test_two_replicas_train_like_one(two_replicas):
    images, labels = make_pairs()

    def run():
        keras.utils.set_random_seed(0)
        model = make_model()
        logs = model.fit(images, labels, batch_size=8, shuffle=False, epochs=3, verbose=0).history
        return values(model.network.weights), logs

    weights, logs = run()
    with two_replicas.scope():
        replica_weights, replica_logs = run()
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(replica_logs[name], logs[name], rtol=1e-5)
    for actual, expected in zip(replica_weights, weights, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_replica_without_examples_shows_a_finite_loss(two_replicas):
    images, labels = make_pairs()
    with two_replicas.scope():
        model = make_model()
    images, labels = ([part[:9] for part in parts] for parts in (images, labels))
    history = model.fit(images, labels, batch_size=8, verbose=0).history
    assert np.isfinite(history["loss"]).all()


# Bad input.


@pytest.mark.parametrize(
    "pick", [lambda x, y: (x[0], y[0]), lambda x, y: (x, y[0]), lambda x, y: (x[0], y)]
)
def test_data_of_another_form_are_refused(pick):
    x, y = pick(*make_pairs())
    data = tf.data.Dataset.from_tensors((x, y))
    with pytest.raises(ValueError, match=r"form \(\(images, rebalancing_images\), \(labels, reb"):
        make_model().fit(data, verbose=0)


def test_weights_and_a_loss_are_refused():
    images, labels = make_pairs()
    model, ones = make_model(), np.ones(len(labels[0]))
    for method in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match="class_weight must not be given to BBN"):
            method(images, labels, class_weight={0: 2.0})
        with pytest.raises(ValueError, match="sample_weight must not be given to BBN"):
            method(images, labels, sample_weight=ones)
    with pytest.raises(ValueError, match="sample_weight must not be given to BBN"):
        model.fit(tf.data.Dataset.from_tensors((images, labels, ones)), verbose=0)
    with pytest.raises(ValueError, match="loss must not be given to BBN.compile"):
        model.compile("sgd", "mse")


def test_labels_out_of_range_stop_fit():
    images, labels = make_pairs()
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels must be integers in 0..2"):
        make_model().fit(images, (labels[0], labels[1] + 3), verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((COUNTS, 0, 5), "epochs must be an integer >= 1; got 0"),
        ((COUNTS, 4, 2.5), "steps_per_epoch must be an integer >= 1; got 2.5"),
        (([3, 2, 0], 4, 5), "counts must hold numbers > 0"),
        (([3, 2], 4, 5), r"\[batch, 2\] logits"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BBN(linear_network(), *arguments)
