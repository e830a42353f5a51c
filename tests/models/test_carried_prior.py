"""What a network's logits carry, as `adapt` and `AdaptedModel` understand it."""

import functools
import warnings

import keras
import numpy as np
import pytest

import lade_tf
from lade_tf import losses

COUNTS = np.array([70, 20, 10])
PRIOR = COUNTS / 100
NAME = "sparse_categorical_crossentropy"


def normalised(values):
    return np.asarray(values) / np.sum(values)


def network(loss=None, activation=None, outputs=3):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(outputs, activation)])
    if loss is not None:
        model.compile("sgd", loss)
    return model


def taken_of(model):
    return model.prior_adapt.source_prior


def own_function(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


class Own(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return own_function(y_true, y_pred)


class Inherits(keras.losses.SparseCategoricalCrossentropy):
    """A Keras cross-entropy by name alone: what it adds takes the prior out."""

    def call(self, y_true, y_pred):
        return super().call(y_true, y_pred + np.log(PRIOR).astype(np.float32))


class Stated(Own):
    source_prior = np.array([0.2, 0.3, 0.5])


FOCAL = keras.losses.CategoricalFocalCrossentropy


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (None, PRIOR),
        (NAME, PRIOR),
        ("SparseCategoricalCrossentropy", PRIOR),
        (keras.losses.CategoricalCrossentropy(label_smoothing=0.1), PRIOR),
        (keras.losses.sparse_categorical_crossentropy, PRIOR),
        (functools.partial(keras.losses.sparse_categorical_crossentropy, from_logits=True), PRIOR),
        (FOCAL(), PRIOR),
        (FOCAL(alpha=[1, 2, 5]), PRIOR * [1, 2, 5]),
        (losses.Focal(), PRIOR),
        (losses.LDAM(COUNTS), PRIOR),
        (losses.LogitAdjustment(COUNTS, tau=0), PRIOR),
        (losses.LogitAdjustment(COUNTS, tau=0.5), PRIOR**0.5),
        (losses.LADE(COUNTS), None),
        ([losses.BalancedSoftmax(COUNTS)], None),
        ({"dense": losses.ClassBalancedFocal(COUNTS)}, None),
        (Stated(), [0.2, 0.3, 0.5]),
    ],
)
def test_adapt_asks_the_compiled_loss(loss, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        taken = taken_of(lade_tf.adapt(network(loss), COUNTS))
        weighted = taken_of(lade_tf.adapt(network(loss), COUNTS, class_weight=[2, 1, 3]))
    if expected is None:
        assert taken is None
    else:
        np.testing.assert_allclose(taken, normalised(expected))
    left = np.ones(3) if expected is None else np.asarray(expected)
    np.testing.assert_allclose(weighted, normalised(left * [2, 1, 3]))


@pytest.mark.parametrize("loss", ["BalancedSoftmax", NAME, Own])
def test_a_softmax_put_after_a_compiled_network_changes_nothing(loss):
    loss = losses.BalancedSoftmax(COUNTS) if loss == "BalancedSoftmax" else loss
    trained = network(loss() if loss is Own else loss)
    wrapped = keras.Sequential([trained, keras.layers.Softmax()])
    if loss is Own:
        with pytest.warns(UserWarning, match="Own"):
            lade_tf.adapt(wrapped, COUNTS)
        return
    assert taken_of(lade_tf.adapt(wrapped, COUNTS)) == taken_of(lade_tf.adapt(trained, COUNTS))


@pytest.mark.parametrize(
    "loss",
    [Own(), own_function, Inherits(from_logits=True), keras.losses.MeanSquaredError(), "mse"],
)
def test_a_loss_that_does_not_say_is_named_in_one_warning(loss):
    model = network(loss)
    name = {"mse": "mse"}.get(str(loss), getattr(loss, "__name__", type(loss).__name__))
    with pytest.warns(UserWarning, match=f'{name}.*source_prior="uniform"') as caught:
        adapted = lade_tf.adapt(model, COUNTS)
    assert [one.filename for one in caught if one.category is UserWarning] == [__file__]
    np.testing.assert_allclose(taken_of(adapted), PRIOR)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert taken_of(lade_tf.adapt(model, COUNTS, source_prior="uniform")) is None
        for told in ("training", PRIOR):
            np.testing.assert_allclose(
                taken_of(lade_tf.adapt(model, COUNTS, source_prior=told)), PRIOR
            )


class OwnStep(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(own_function(y, y_pred))


def test_a_model_with_a_loss_of_its_own_does_not_say_either():
    model = OwnStep([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile("sgd")
    with pytest.warns(UserWarning, match="OwnStep"):
        lade_tf.adapt(model, COUNTS)
    plain = network()
    plain.compile("sgd")
    np.testing.assert_allclose(taken_of(lade_tf.adapt(plain, COUNTS)), PRIOR)


def test_losses_that_disagree_are_not_chosen_from():
    model = network([losses.LADE(COUNTS), losses.Focal()])
    with pytest.raises(ValueError, match="source_prior must be given for this model: .*LADE, Foc"):
        lade_tf.adapt(model, COUNTS)
    assert taken_of(lade_tf.adapt(model, COUNTS, source_prior="uniform")) is None


def test_every_loss_says_what_it_leaves():
    for name in ("LADE", "BalancedSoftmax", "ClassBalancedFocal"):
        assert getattr(losses, name)(COUNTS).source_prior is None
    assert losses.Focal().source_prior == losses.LDAM(COUNTS).source_prior == "training"
    public = [one for one in vars(losses).values() if isinstance(one, type)]
    assert all(hasattr(one, "source_prior") for one in public)


WEIGHTS = {0: 0.5, 2: 4.0}


@pytest.mark.parametrize(
    ("told", "factor"),
    [
        ({"class_weight": WEIGHTS}, [0.5, 1, 4]),
        ({"class_weight": {np.int64(1): 2}}, [1, 2, 1]),
        ({"class_weight": [0.5, 1, 4]}, [0.5, 1, 4]),
        ({"class_weight": "balanced"}, 1 / PRIOR),
        ({"sampled_counts": [70, 70, 70]}, 1 / PRIOR),
        ({"sampled_counts": [35, 20, 40]}, [0.5, 1, 4]),
    ],
)
def test_weights_and_samplers_multiply_what_the_loss_leaves(told, factor):
    adapted = lade_tf.adapt(network(NAME), COUNTS, **told)
    np.testing.assert_allclose(taken_of(adapted), normalised(PRIOR * factor))
    model = lade_tf.AdaptedModel(network(), COUNTS, **told)
    np.testing.assert_allclose(taken_of(model), normalised(np.ones(3) * factor))
    for one in (adapted, model):
        config = one.get_config()
        assert config["source_prior"] == taken_of(one)
        assert not {"class_weight", "sampled_counts"} & set(config)
        assert taken_of(lade_tf.AdaptedModel.from_config(config)) == taken_of(one)


def test_a_model_with_its_own_loss_keeps_the_weights_it_was_told_of():
    model = lade_tf.LADEModel(network(), COUNTS, sampled_counts=[10, 10, 10])
    again = lade_tf.LADEModel.from_config(model.get_config())
    np.testing.assert_allclose(taken_of(again), normalised(1 / PRIOR))


def test_smoothed_counts_are_those_that_weights_refer_to():
    options = {"class_weight": "balanced", "zero_count": "smooth"}
    np.testing.assert_allclose(taken_of(lade_tf.adapt(network(), [7, 2, 0], **options)), 1 / 3)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        *(
            (
                {"class_weight": given},
                'class_weight must be a dict, a list of weights or "balanced"',
            )
            for given in ("auto", 2.0, np.array(2.0), np.array("auto"))
        ),
        ({"class_weight": {3: 1.0}}, "classes, 0 to 2, as keys; got 3"),
        ({"class_weight": {"a": 1.0}}, "classes, 0 to 2, as keys; got 'a'"),
        ({"class_weight": {True: 1.0}}, "classes, 0 to 2, as keys; got True"),
        ({"class_weight": {0: "2"}}, "class_weight must hold numbers > 0; got '2' for class 0"),
        ({"class_weight": {0: 0.0}}, "class_weight must hold numbers > 0.*class 0"),
        ({"class_weight": {0: -1.0}}, "class_weight must hold numbers >= 0; got -1"),
        ({"class_weight": {0: np.nan}}, "class_weight must hold finite numbers"),
        ({"class_weight": [1, 2]}, "class_weight must hold 3 classes; got 2"),
        ({"sampled_counts": [1, 2]}, "sampled_counts must hold 3 classes; got 2"),
        (
            {"sampled_counts": [1, 2, 0], "zero_count": "smooth"},
            "sampled_counts must hold numbers > 0, as .* isn't trained; got 0 at class 2",
        ),
        ({"source_prior": "none"}, r'source_prior must be \[classes\], "training" or "uniform"'),
        ({"source_prior": [0.5, 0.5]}, "source_prior must have 3 entries"),
        (
            {"source_prior": PRIOR, "class_weight": "balanced"},
            "at most one of source_prior.*got source_prior and class_weight",
        ),
        (
            {"sampled_counts": COUNTS, "class_weight": "balanced"},
            "got class_weight and sampled_counts",
        ),
    ],
)
def test_bad_statements_are_refused(told, message):
    for make in (lade_tf.adapt, lade_tf.AdaptedModel):
        with pytest.raises(ValueError, match=message):
            make(network(), COUNTS, **told)


@pytest.mark.parametrize("method", ["fit", "train_on_batch"])
def test_class_weights_that_a_model_was_not_told_of_are_refused(method):
    data = np.zeros([6, 2], np.float32), np.array([0, 1, 2, 0, 1, 2])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def train(model, loss, class_weight):
        model.compile("sgd", loss)
        options = {"verbose": 0} if method == "fit" else {}
        getattr(model, method)(*data, class_weight=class_weight, **options)

    balanced = dict(enumerate((1 / PRIOR).round(1)))
    adapted = lade_tf.adapt(network(), COUNTS)
    with pytest.raises(ValueError, match=r"adapt\(network, class_counts, class_weight=class_wei"):
        train(adapted, loss, balanced)
    with pytest.raises(ValueError, match=r"AdaptedModel\(network, class_counts, class_weight=cla"):
        train(lade_tf.AdaptedModel(network(), COUNTS), losses.BalancedSoftmax(COUNTS), balanced)
    half = losses.LogitAdjustment(COUNTS, tau=0.5)
    with pytest.raises(ValueError, match="loss.source_prior times the weights"):
        train(lade_tf.AdaptedModel(network(), COUNTS, half.source_prior), half, balanced)
    with pytest.raises(ValueError, match="class_weight must not be given to DeferredReweighting"):
        drw = lade_tf.models.DeferredReweightingModel(network(), COUNTS, start_step=1)
        train(drw, loss, balanced)
    # What changes nothing, what was told, and what gives the uniform prior that is taken.
    train(adapted, loss, {0: 2.0, 1: 2.0, 2: 2.0})
    train(lade_tf.adapt(network(), COUNTS, class_weight=WEIGHTS), loss, WEIGHTS)
    train(lade_tf.AdaptedModel(network(), COUNTS), loss, balanced)
    for own in (losses.BalancedSoftmax(COUNTS), Own()):
        train(lade_tf.AdaptedModel(network(), COUNTS, class_weight=WEIGHTS), own, WEIGHTS)


def test_a_model_that_was_told_of_weights_is_loaded_with_its_loss(tmp_path):
    model = lade_tf.AdaptedModel(network(), COUNTS, class_weight=WEIGHTS)
    model.compile("sgd", losses.BalancedSoftmax(COUNTS))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert taken_of(again) == taken_of(model)
    with pytest.raises(ValueError, match="loss must fit the prior that this model takes out"):
        lade_tf.adapt(network(), COUNTS, class_weight=WEIGHTS).compile("sgd", model.loss)


@pytest.mark.parametrize("told", [{"class_weight": WEIGHTS}, {"sampled_counts": [30, 20, 10]}])
@pytest.mark.parametrize("make", [lade_tf.adapt, lade_tf.AdaptedModel])
def test_a_loaded_model_knows_of_its_weights(make, told, tmp_path):
    model = make(network(), COUNTS, **told)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_config()["weights_told"] == model.get_config()["weights_told"]
    own = losses.BalancedSoftmax(COUNTS)
    for one in (model, again):
        if make is lade_tf.AdaptedModel:
            one.compile("sgd", own)
        else:
            with pytest.raises(ValueError, match="and with class_weight or sampled_counts there"):
                one.compile("sgd", own)


def test_a_model_saved_before_weights_were_kept_is_loaded():
    model = lade_tf.AdaptedModel(network(), COUNTS, class_weight=WEIGHTS)
    config = model.get_config()
    del config["weights_told"]
    assert taken_of(lade_tf.AdaptedModel.from_config(config)) == taken_of(model)
    assert "weights_told" not in lade_tf.adapt(network(), COUNTS).get_config()


def test_a_network_trained_with_class_weights_is_right_under_a_uniform_target():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1, 2], [450, 45, 5]))
    images = rng.normal(2 * labels[:, None], 1.0, (500, 2)).astype(np.float32)
    model = network(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer = keras.optimizers.Adam(0.3)
    counts = np.bincount(labels)
    weights = dict(enumerate(500 / (3 * counts)))
    model.fit(images, labels, batch_size=500, epochs=30, class_weight=weights, verbose=0)
    tests = np.repeat([0, 1, 2], 400)
    inputs = rng.normal(2 * tests[:, None], 1.0, (1200, 2)).astype(np.float32)

    def accuracy(adapted):
        return (adapted(inputs).numpy().argmax(axis=1) == tests).mean()

    unaware, told = (
        accuracy(lade_tf.adapt(model, counts, class_weight=w)) for w in (None, weights)
    )
    assert told > unaware + 0.03
