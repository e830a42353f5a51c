"""Values that carry labels of their own, wherever the library takes one number a class."""

import collections
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf
from lade_tf import losses, metrics, priors
from lade_tf.class_order import labels_of

COUNTS = [30, 3000, 300]
BY_SIZE = [1, 2, 0]  # as value_counts orders them: a permutation that isn't its own inverse


class Series:
    """As much of a pandas Series as tells the class of each value."""

    def __init__(self, values, index):
        self.values, self.index = np.asarray(values), index

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)


class DataArray(Series):
    """As much of an xarray DataArray."""

    def __init__(self, values, labels=None):
        super().__init__(values, None)
        self.dims = ("label",)
        self.coords = {} if labels is None else {"label": Series(labels, None)}


def labelled(kind, values, labels=BY_SIZE):
    """Returns values [C] of classes 0 to C−1 in the order of `labels`, and labelled by them."""
    ordered = [values[c] for c in labels]
    pairs = zip(labels, ordered, strict=True)
    if kind.startswith("pandas"):
        pd = pytest.importorskip("pandas")
        index = pd.CategoricalIndex(labels) if kind == "pandas categories" else labels
        return pd.Series(ordered, index=index)
    return {
        "dict": lambda: dict(pairs),
        "NumPy keys": lambda: {np.int32(c): value for c, value in pairs},
        "Counter": lambda: collections.Counter(dict(pairs)),
        "mapping": lambda: types.MappingProxyType(dict(pairs)),
        "Series": lambda: Series(ordered, labels),
        "Index of NumPy": lambda: Series(ordered, np.array(labels)),
        "xarray": lambda: DataArray(ordered, labels),
    }[kind]()


SIMPLE = ("dict", "Counter", "Series", "xarray", "pandas")
KINDS = (*SIMPLE, "NumPy keys", "mapping", "Index of NumPy", "pandas categories")


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_read_never_positions(kind):
    np.testing.assert_array_equal(priors.check_counts(labelled(kind, COUNTS)), COUNTS)
    shares = [0.2, 0.3, 0.5]
    np.testing.assert_array_equal(priors.check_prior(labelled(kind, shares), 3), shares)
    assert priors.plain_counts(labelled(kind, COUNTS)) == COUNTS


def test_value_counts_of_labels():
    pd = pytest.importorskip("pandas")
    labels = pd.Series(np.repeat([0, 1, 2], COUNTS))
    for column in (labels, labels.astype("category"), labels.astype("Int64")):
        np.testing.assert_array_equal(priors.check_counts(column.value_counts()), COUNTS)
    shares = labels.value_counts(normalize=True)
    np.testing.assert_allclose(priors.check_prior(shares), np.array(COUNTS) / 3330)
    names = labels.map({0: "ant", 1: "bee", 2: "cicada"}).value_counts(normalize=True)
    prior = priors.as_prior(names, class_names=["ant", "bee", "cicada"])
    np.testing.assert_allclose(prior, np.array(COUNTS) / 3330)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 3], "0 to 2; 3 is no class"),
        ([1, -1, 0], "0 to 2; -1 is no class"),
        (["1", "2", "0"], "'1' is no class; the classes' names aren't known here"),
        (["b", "c", "a"], "'b' is no class; the classes' names aren't known here"),
        ([1.0, 2.0, 0.0], "1.0 is no class"),
        ([1, 2, False], "False is no class"),
        ([1, 2, None], "None is no class"),
        ([(1,), (2,), (0,)], r"\(1,\) is no class"),
    ],
)
@pytest.mark.parametrize("kind", ["dict", "Series", "xarray"])
def test_other_labels_are_refused(kind, labels, message):
    coordinates = np.empty(3, object)
    coordinates[:] = labels
    counts = {
        "dict": dict(zip(labels, COUNTS, strict=True)),
        "Series": Series(COUNTS, labels),
        "xarray": DataArray(COUNTS, coordinates),
    }[kind]
    with pytest.raises(ValueError, match=f"class_counts must .*{message}"):
        priors.check_counts(counts)


def test_a_class_without_an_entry_is_named():
    with pytest.raises(ValueError, match="source_prior must label.*0 to 3; 1 has no entry$"):
        priors.check_prior({0: 0.5, 3: 0.2, 2: 0.3}, 4, name="source_prior")
    with pytest.raises(ValueError, match=r"0 to 9; 3 has no entry \(7 such classes\)"):
        priors.check_counts(labelled("dict", COUNTS), num_classes=10)


def test_a_label_that_is_there_twice_is_refused():
    for values in (Series(COUNTS, [1, 2, 1]), DataArray(COUNTS, [1, 2, 1])):
        with pytest.raises(ValueError, match="class_counts must label a class once; got 1 twice"):
            priors.check_counts(values)


@pytest.mark.parametrize("table", ["DataFrame", "Series of pairs", "columns"])
def test_a_table_is_refused(table):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"label": [0, 1, 1], "side": [1, 1, 0]})
    value = {
        "DataFrame": frame.value_counts("label").to_frame(),
        "Series of pairs": frame.value_counts(),
        "columns": {"label": frame["label"], "side": frame["side"]},
    }[table]
    with pytest.raises(ValueError, match="class_counts must"):
        priors.check_counts(value)


@pytest.mark.parametrize(
    "values",
    [(3, 2, 1), np.array([3, 2, 1]), tf.constant([3, 2, 1]), DataArray([3, 2, 1]), range(3, 0, -1)],
)
def test_what_carries_no_labels_is_taken_as_it_is(values):
    assert labels_of(values) is None
    np.testing.assert_array_equal(priors.check_counts(values), [3, 2, 1])


@pytest.mark.parametrize(
    "takes_counts",
    [
        losses.LADE,
        losses.BalancedSoftmax,
        losses.LDAM,
        losses.LogitAdjustment,
        lambda counts: losses.ClassBalancedFocal(counts, beta=0.9),
        metrics.ShotAccuracy,
    ],
)
@pytest.mark.parametrize("kind", ["dict", "Series"])
def test_counts_are_kept_in_class_order(takes_counts, kind):
    assert takes_counts(labelled(kind, COUNTS)).get_config()["class_counts"] == COUNTS


@pytest.mark.parametrize("kind", SIMPLE)
def test_a_model_takes_counts_and_priors_by_their_labels(kind):
    def network():
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])

    shares = [0.5, 0.125, 0.375]
    model = lade_tf.AdaptedModel(
        network(),
        labelled(kind, COUNTS),
        source_prior=labelled(kind, shares),
        target_prior=labelled(kind, shares[::-1]),
    )
    np.testing.assert_allclose(model.training_prior, np.array(COUNTS) / 3330)
    assert model.class_counts == COUNTS and model.prior_adapt.source_prior == shares
    np.testing.assert_array_equal(model.target_prior, shares[::-1])
    model.set_target_prior(labelled(kind, shares))
    np.testing.assert_array_equal(model.target_prior, shares)
    images = np.ones((1, 2), np.float32)
    expected = model(images, target_prior=np.array(shares[::-1], np.float32))
    given = model(images, target_prior=labelled(kind, shares[::-1]))
    np.testing.assert_array_equal(given, expected)
    logits = model.network(images)
    given = model.prior_adapt(logits, target_prior=labelled(kind, shares[::-1]))
    np.testing.assert_array_equal(given, expected)
    copy = lade_tf.AdaptedModel.from_config(model.get_config())
    np.testing.assert_array_equal(copy.training_prior, model.training_prior)
