"""What `calibrate` and `adapt_to` make of arrays, data sets, loaders and generators."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import lade_tf
from lade_tf.models import adaptation
from lade_tf.models.batches import unlabelled


@pytest.fixture(scope="module")
def model():
    """A model whose logits are those of two Gaussians at the uniform prior."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    network.layers[0].set_weights([np.array([[-1.0, 1.0]], np.float32), np.zeros(2)])
    return lade_tf.AdaptedModel(network, [9, 1])


def gaussians(share, seed, size=300):
    rng = np.random.default_rng(seed)
    labels = (rng.random(size) < share).astype(np.int64)
    return rng.normal(2 * labels[:, None] - 1, 1).astype(np.float32), labels


SOURCE, LABELS = gaussians(0.3, 0)
TARGET, _ = gaussians(0.7, 1)


@pytest.fixture(scope="module")
def of_arrays(model):
    """The prior and the temperature that arrays give."""
    estimate, temperature = model.adapt_to(TARGET, SOURCE, LABELS), model.calibrate(SOURCE, LABELS)
    model.prior_adapt.set_temperature(1)
    return estimate.prior, temperature


class Loader:
    """As a PyTorch DataLoader: batches are lists, shuffled differently in every pass."""

    def __init__(self, *arrays, shuffled=True):
        self.arrays, self.shuffled, self.rng = arrays, shuffled, np.random.default_rng(0)

    def __iter__(self):
        order = np.arange(len(self.arrays[0]))
        if self.shuffled:
            self.rng.shuffle(order[100:])  # a part of it is where it was
        for part in np.array_split(order, 4):
            yield [array[part] for array in self.arrays]


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays, num_batches=3):
        super().__init__()
        self.arrays, self.total = arrays, num_batches

    @property
    def num_batches(self):
        return self.total

    def __getitem__(self, index):
        return tuple(array[index::3] for array in self.arrays)


def torch_loader(*arrays):
    torch = pytest.importorskip("torch")
    tensors = map(torch.from_numpy, arrays)
    data = torch.utils.data.TensorDataset(*tensors)
    return torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)


def data_set(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(64)


LOOSE = {
    "loader": Loader,
    "loader in order": lambda *arrays: Loader(*arrays, shuffled=False),
    "generator": lambda *arrays: (tuple(batch) for batch in Loader(*arrays)),
    "iterator of tf.data": lambda *arrays: iter(data_set(*arrays)),
    "torch": torch_loader,
}
KINDS = {**LOOSE, "tf.data": data_set, "PyDataset": Batches}


@pytest.mark.parametrize("kind", LOOSE)
def test_a_loader_brings_its_own_labels(model, of_arrays, kind):
    labels = LABELS[:, None] if kind == "generator" else LABELS
    assert model.calibrate(LOOSE[kind](SOURCE, labels)) == pytest.approx(of_arrays[1], rel=1e-5)
    model.prior_adapt.set_temperature(1)


def test_an_estimate_goes_by_the_labels_that_a_loader_brings(model, of_arrays):
    found = model.adapt_to(TARGET, Loader(SOURCE, LABELS)).prior
    np.testing.assert_allclose(found, of_arrays[0], atol=1e-5)


@pytest.mark.parametrize("kind", LOOSE)
def test_labels_beside_a_loader_are_refused(model, kind):
    before = model.target_prior
    left_out = "labels must be left out where .*inputs is a"
    yields_none = "inputs must yield its labels too"
    for yielded, message in ((SOURCE, LABELS), left_out), ((SOURCE,), yields_none):
        with pytest.raises(ValueError, match=f"source_{message}"):
            model.adapt_to(TARGET, LOOSE[kind](*yielded), LABELS)
        with pytest.raises(ValueError, match=f"^{message}"):
            model.calibrate(LOOSE[kind](*yielded), LABELS)
    np.testing.assert_array_equal(model.target_prior, before)
    assert model.temperature == 1


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_nothing_yields_must_be_given(model, kind):
    with pytest.raises(ValueError, match="source_labels must be given, except"):
        model.adapt_to(TARGET, KINDS[kind](SOURCE))


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_a_data_set_without_labels_has_an_order_that_they_can_be_given_in(model, of_arrays, kind):
    labels = np.concatenate([LABELS[i::3] for i in range(3)]) if kind == "PyDataset" else LABELS
    assert model.calibrate(KINDS[kind](SOURCE), labels) == pytest.approx(of_arrays[1], rel=1e-5)
    model.prior_adapt.set_temperature(1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_may_come_in_any_form(model, kind):
    yielded = (TARGET, LABELS) if kind in ("generator", "torch") else (TARGET,)
    inputs = unlabelled("target_inputs", KINDS[kind](*yielded))
    found = np.sort(adaptation.predicted_logits(model, inputs, 256), axis=0)
    expected = np.sort(model.network.predict(TARGET, verbose=0), axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["generator", "torch", "tf.data", "PyDataset"])
@pytest.mark.parametrize("yielded", [(TARGET,), (TARGET, LABELS), (TARGET, LABELS, LABELS * 0.5)])
def test_probabilities_are_given_for_what_predict_takes(model, kind, yielded):
    found = model.predict_proba(KINDS[kind](*yielded))
    expected = tf.nn.softmax(model.predict(TARGET, verbose=0))
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), rtol=1e-5)


def test_an_estimate_for_a_loader_is_that_for_its_arrays(model, of_arrays):
    found = model.adapt_to(Loader(TARGET), SOURCE, LABELS).prior
    np.testing.assert_allclose(found, of_arrays[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_sample_weights_are_refused_before_anything_is_computed(model, kind, monkeypatch):
    monkeypatch.setattr(type(model), "raw_logits", None)
    monkeypatch.setattr(model.network, "predict", None)
    weighted = SOURCE, LABELS, np.ones(len(LABELS), np.float32)
    for name, fit in {
        "inputs": lambda: model.calibrate(KINDS[kind](*weighted)),
        "source_inputs": lambda: model.adapt_to(TARGET, KINDS[kind](*weighted)),
        "target_inputs": lambda: model.adapt_to(KINDS[kind](*weighted), SOURCE, LABELS),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} must yield .* sample weights"):
            fit()


@pytest.mark.parametrize(
    "endless",
    [
        lambda: data_set(SOURCE, LABELS).repeat(),
        lambda: data_set(SOURCE, LABELS).repeat().shuffle(9).prefetch(1),
        lambda: Batches(SOURCE, LABELS, num_batches=None),
    ],
)
def test_a_data_set_without_end_is_refused(model, endless):
    for name, fit in {
        "inputs": lambda: model.calibrate(endless()),
        "source_inputs": lambda: model.adapt_to(TARGET, endless()),
        "target_inputs": lambda: model.adapt_to(endless(), SOURCE, LABELS),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} must have an end"):
            fit()
    with pytest.raises(ValueError, match="^inputs must have an end"):
        model.predict_proba(endless())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (lambda: iter(()), "inputs must yield at least one batch"),
        (lambda: Batches(SOURCE, LABELS, num_batches=0), "inputs must yield at least one batch"),
        (lambda: zip(SOURCE, LABELS, strict=True), "must yield batches"),
        (lambda: data_set(SOURCE, LABELS).unbatch(), "must yield batches"),
        (lambda: iter([(SOURCE, (LABELS, LABELS))]), "must yield batches, each with one array"),
        (lambda: data_set(SOURCE, keras.ops.one_hot(LABELS, 2)), "labels must have shape"),
        (lambda: Loader(SOURCE, LABELS + 1), r"labels must be in 0\.\.1; got values from 1 to 2"),
        (lambda: Loader(SOURCE, LABELS * 0.5), "labels must be integers"),
        (lambda: 7, "inputs must be arrays or yield batches; got int"),
    ],
)
def test_what_is_no_labelled_sample_is_refused(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        model.calibrate(inputs())


@pytest.mark.parametrize("shape", [(8, 8, 1), (2,)])
def test_a_sample_is_no_batch(shape, monkeypatch):
    network = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2, name="scores")]
    )
    model = lade_tf.AdaptedModel(network, [9, 1])
    images, labels = np.random.default_rng(0).random((12, *shape), np.float32), np.arange(12) % 2
    samples = tf.data.Dataset.from_tensor_slices(images)
    labelled = tf.data.Dataset.from_tensor_slices((images, labels))
    if shape[-1] == 1:  # to Keras that's a batch of grey images
        grey = samples.map(lambda image: image[..., 0])
        model.adapt_to(images[..., 0], grey.batch(5), labels)
    else:
        model.adapt_to(samples.batch(5), labelled.batch(5))
    monkeypatch.setattr(network, "call", None)  # refused before anything is computed
    for target in (samples, labelled, iter(images), images[0], samples.batch(5).unbatch()):
        with pytest.raises(ValueError, match="target_inputs must hold or yield batches of samples"):
            model.adapt_to(target, images, labels)
    with pytest.raises(ValueError, match="^inputs must hold or yield batches of samples of shape"):
        model.calibrate(samples, labels)


def test_a_series_of_labels_belongs_to_the_images_by_position(model, of_arrays):
    pd = pytest.importorskip("pandas")
    order = np.random.default_rng(0).permutation(len(LABELS))
    labels = pd.Series(LABELS[order], index=order)  # as a split leaves it
    for column in (labels, labels.astype("category"), labels.astype("Int64")):
        assert model.calibrate(SOURCE[order], column) == pytest.approx(of_arrays[1], rel=1e-5)
        model.prior_adapt.set_temperature(1)
    for strange in (labels.astype(str), labels / 2):
        with pytest.raises(ValueError, match="labels must be integers"):
            model.calibrate(SOURCE[order], strange)
