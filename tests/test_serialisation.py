"""One test for every public class: config → JSON → object → same config and same behaviour."""

import json

import keras
import numpy as np
import pytest

import lade_tf

COUNTS = [60, 30, 8, 2]


def make_network():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)], name="network")


def make_branches():
    features = keras.Input((6,))
    branches = [keras.layers.Dense(size)(features) for size in (3, 5)]
    return keras.Model(features, keras.layers.Dense(4)(keras.layers.Concatenate()(branches)))


def make_embedding():
    features = keras.Input((6,))
    embedding = lade_tf.layers.MetaEmbedding(4)(features)
    return keras.Model(features, lade_tf.layers.CosineNormClassifier(4)(embedding))


LOSSES = {
    "LADE": lambda: lade_tf.losses.LADE(np.array(COUNTS), 0.2, 0.05, "reference", name="mine"),
    "ClassBalancedFocal": lambda: lade_tf.losses.ClassBalancedFocal(COUNTS, 0.99, 1.5, "smooth"),
    "Focal": lambda: lade_tf.losses.Focal(1.5, name="mine"),
    "LogitAdjustment": lambda: lade_tf.losses.LogitAdjustment(np.array(COUNTS), 0.7, "smooth"),
    "BalancedSoftmax": lambda: lade_tf.losses.BalancedSoftmax(COUNTS, "smooth", reduction="sum"),
    "LDAM": lambda: lade_tf.losses.LDAM(np.array(COUNTS), 0.4, 20.0, name="mine"),
}
MODELS = {
    "LADEModel": lambda: lade_tf.LADEModel(
        make_network(), np.array(COUNTS), 0.2, 0.05, "reference", zero_count="smooth"
    ),
    "AdaptedModel": lambda: lade_tf.adapt(make_network(), COUNTS),
    "DeferredReweightingModel": lambda: lade_tf.models.DeferredReweightingModel(
        make_network(), COUNTS, start_step=1, beta=0.9
    ),
}
# Their networks are of a kind of their own: tests/models saves and loads them.
OTHER_MODELS = {
    "BBN": lambda: lade_tf.models.BBN(make_branches(), COUNTS, epochs=3, steps_per_epoch=2),
    "OLTR": lambda: lade_tf.models.OLTR(make_embedding(), COUNTS, 0.02, margin=5.0),
}
LAYERS = {
    "CausalNormClassifier": lambda: lade_tf.layers.CausalNormClassifier(3, momentum=None),
    "ClassScale": lambda: lade_tf.layers.ClassScale(name="mine"),
    "CosineClassifier": lambda: lade_tf.layers.CosineClassifier(3, scale=10),
    "CosineNormClassifier": lambda: lade_tf.layers.CosineNormClassifier(3, scale=10),
    "MetaEmbedding": lambda: lade_tf.layers.MetaEmbedding(3, scale=5.0),
    "ModulatedAttention": lambda: lade_tf.layers.ModulatedAttention(name="mine"),
    "NearestClassMean": lambda: lade_tf.layers.NearestClassMean(3),
    "BatchNormalization": lambda: lade_tf.layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
    "GroupedConv2D": lambda: lade_tf.layers.GroupedConv2D(4, 3, groups=2),
    "PriorAdaptLayer": lambda: lade_tf.PriorAdaptLayer([0.4, 0.3, 0.2, 0.1], np.full(4, 0.25), 2),
}
METRICS = {
    "ExpectedCalibrationError": lambda: lade_tf.metrics.ExpectedCalibrationError(15, True),
    "ClasswiseCalibrationError": lambda: lade_tf.metrics.ClasswiseCalibrationError(15, True),
    "BrierScore": lambda: lade_tf.metrics.BrierScore(from_logits=True, name="mine"),
    "NegativeLogLikelihood": lambda: lade_tf.metrics.NegativeLogLikelihood(dtype="float32"),
    "PerClassAccuracy": lambda: lade_tf.metrics.PerClassAccuracy(4),
    "ShotAccuracy": lambda: lade_tf.metrics.ShotAccuracy(np.array(COUNTS)),
    "MacroF1": lambda: lade_tf.metrics.MacroF1(4, name="mine"),
}
OTHERS = {
    "SGD": lambda: lade_tf.optimizers.SGD(0.3, 0.8, 1e-3, ["bias"], [["kernel", 0.1]]),
    "WarmupStepDecay": lambda: lade_tf.optimizers.WarmupStepDecay(0.2, 42),
    "CosineByEpoch": lambda: lade_tf.optimizers.CosineByEpoch(0.2, 42, 90),
}
EVERYTHING = {**LOSSES, **MODELS, **OTHER_MODELS, **LAYERS, **METRICS, **OTHERS}


def public_classes():
    rooms = (
        lade_tf,
        lade_tf.losses,
        lade_tf.layers,
        lade_tf.metrics,
        lade_tf.models,
        lade_tf.optimizers,
    )
    keras_types = (
        keras.losses.Loss,
        keras.layers.Layer,
        keras.metrics.Metric,
        keras.optimizers.Optimizer,
        keras.optimizers.schedules.LearningRateSchedule,
    )
    return {
        name
        for room in rooms
        for name, value in vars(room).items()
        if isinstance(value, type) and issubclass(value, keras_types)
    }


def test_no_public_class_is_forgotten():
    assert public_classes() == set(EVERYTHING)


@pytest.mark.parametrize("name", EVERYTHING)
def test_config_round_trip(name):
    original = EVERYTHING[name]()
    config = json.dumps(keras.saving.serialize_keras_object(original))
    again = keras.saving.deserialize_keras_object(json.loads(config))
    assert type(again) is type(original)
    assert json.dumps(keras.saving.serialize_keras_object(again)) == config


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_gives_the_same_value(name):
    original = LOSSES[name]()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(original))
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert again([0, 1, 2, 3, 0], logits).numpy() == original([0, 1, 2, 3, 0], logits).numpy()


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_gives_the_same_value(name):
    original = METRICS[name]()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(original))
    batch = [0, 1, 2, 3], np.eye(4, dtype=np.float32)[[0, 1, 2, 2]]
    results = keras.tree.flatten(again(*batch)), keras.tree.flatten(original(*batch))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_the_same_after_saving_and_goes_on_training(name, tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(20, 6)).astype(np.float32), rng.integers(0, 4, 20)
    model = MODELS[name]()
    loss = None if name == "LADEModel" else lade_tf.losses.Focal()
    model.compile(lade_tf.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    model.fit(images, labels, verbose=0)
    model.set_target_prior([0.1, 0.2, 0.3, 0.4])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), model.predict(images, verbose=0)
    )
    np.testing.assert_array_equal(again.target_prior, model.target_prior)
    for trained in (model, again):
        trained.fit(images, labels, shuffle=False, verbose=0)
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), model.predict(images, verbose=0)
    )


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_the_same_inside_a_saved_functional_model(name, tmp_path):
    shape = (3, 3, 4) if name in ("ModulatedAttention", "GroupedConv2D") else (4,)
    inputs = keras.Input(shape)
    layer = LAYERS[name]()
    model = keras.Model(inputs, layer(inputs))
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(rng.uniform(0.1, 0.4, weight.shape))
    if name == "PriorAdaptLayer":  # what is no prior isn't loaded
        layer.set_target_prior(rng.dirichlet(np.ones(4)))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    features = rng.normal(size=(5, *shape)).astype(np.float32)
    np.testing.assert_array_equal(again(features), model(features))
