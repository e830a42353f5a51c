import keras
import numpy as np
import pytest
import tensorflow as tf

from lade_tf import PriorAdaptLayer

SOURCE = np.array([0.7, 0.2, 0.1])
TARGET = np.array([0.1, 0.3, 0.6])


def make_logits(size=5):
    return np.random.default_rng(0).normal(0, 3, (size, 3)).astype(np.float32)


def posterior(logits, weight):
    """p(y|x) ∝ exp(f)·weight, in float64."""
    unnormalised = np.exp(logits.astype(np.float64)) * weight
    return unnormalised / unnormalised.sum(axis=1, keepdims=True)


def test_entangled_logits_follow_equation_4():
    logits = make_logits()
    adapted = PriorAdaptLayer(SOURCE, TARGET)(logits)
    np.testing.assert_allclose(
        tf.nn.softmax(adapted), posterior(logits, TARGET / SOURCE), rtol=1e-5
    )


def test_disentangled_logits_follow_equation_17():
    logits = make_logits()
    adapted = PriorAdaptLayer(target_prior=TARGET)(logits)
    np.testing.assert_allclose(tf.nn.softmax(adapted), posterior(logits, TARGET), rtol=1e-5)


def test_the_default_is_the_uniform_target_which_changes_no_decision():
    logits = make_logits()
    probabilities = tf.nn.softmax(PriorAdaptLayer()(logits))
    np.testing.assert_allclose(probabilities, tf.nn.softmax(logits), rtol=1e-5)


def test_setting_the_prior_acts_without_retracing():
    layer, logits = PriorAdaptLayer(SOURCE), make_logits()
    layer(logits)
    function = tf.function(layer)
    function(logits)
    for prior in (TARGET, [1.0, 0.0, 0.0], None):
        layer.set_target_prior(prior)
        weight = (np.full(3, 1 / 3) if prior is None else np.asarray(prior)) / SOURCE
        np.testing.assert_allclose(
            tf.nn.softmax(function(logits)), posterior(logits, weight), rtol=1e-5
        )
    assert function.experimental_get_tracing_count() == 1


def test_a_prior_passed_for_one_call_wins_over_the_stored_one():
    layer, logits = PriorAdaptLayer(SOURCE), make_logits()
    expected = PriorAdaptLayer(SOURCE, TARGET)(logits)
    np.testing.assert_allclose(layer(logits, target_prior=TARGET), expected, rtol=1e-6)
    np.testing.assert_allclose(layer(logits), PriorAdaptLayer(SOURCE)(logits))


def test_one_prior_for_each_example():
    logits = make_logits(2)
    rows = np.stack([TARGET, SOURCE])
    adapted = PriorAdaptLayer()(logits, target_prior=tf.constant(rows, tf.float32))
    for index, row in enumerate(rows):
        expected = PriorAdaptLayer()(logits[index : index + 1], target_prior=row)
        np.testing.assert_allclose(adapted[index : index + 1], expected, rtol=1e-6)


def test_a_class_of_target_probability_zero_gets_probability_zero():
    probabilities = tf.nn.softmax(PriorAdaptLayer(target_prior=[0.5, 0.0, 0.5])(make_logits()))
    assert np.all(probabilities.numpy()[:, 1] == 0) and np.isfinite(probabilities).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_arithmetic_is_float32_under_any_policy(policy):
    keras.config.set_dtype_policy(policy)
    halves = tf.cast(make_logits(), policy.removeprefix("mixed_"))
    adapted = PriorAdaptLayer(SOURCE, TARGET)(halves)
    assert adapted.dtype == tf.float32
    expected = tf.cast(halves, tf.float32) + np.log(TARGET / SOURCE)
    np.testing.assert_allclose(adapted, expected, rtol=1e-6, atol=1e-6)


BAD_PRIORS = [
    ([0.5, 0.5], "3 entries, one a class; got 2"),
    ([0.5, 0.6, 0.2], "sum to 1 .within 0.001.; its sum is 1.3"),
    ([1.2, -0.1, -0.1], "probabilities >= 0; got -0.1 at class 1"),
    ([np.nan, 0.5, 0.5], "finite numbers; got nan at class 0"),
]


@pytest.mark.parametrize(("prior", "message"), BAD_PRIORS)
def test_what_is_no_prior_is_refused_and_the_stored_one_stays(prior, message):
    layer = PriorAdaptLayer(SOURCE, TARGET)
    layer(make_logits())
    with pytest.raises(ValueError, match=f"target_prior must .*{message}"):
        layer.set_target_prior(prior)
    with pytest.raises(ValueError, match="target_prior must "):
        layer(make_logits(), target_prior=prior)
    with pytest.raises(ValueError, match=f"target_prior must .*{message}"):
        PriorAdaptLayer(SOURCE, prior)
    np.testing.assert_allclose(layer.target_prior, TARGET, rtol=1e-6)


@pytest.mark.parametrize(("prior", "message"), BAD_PRIORS[1:3])
def test_a_tensor_that_is_no_prior_fails_in_the_graph_and_is_nan_under_xla(prior, message):
    layer = PriorAdaptLayer(SOURCE)
    layer(make_logits())
    signature = [tf.TensorSpec([None, 3]), tf.TensorSpec([3])]
    arguments = make_logits(), tf.constant(prior, tf.float32)

    def call(logits, prior):
        return layer(logits, target_prior=prior)

    with pytest.raises(tf.errors.InvalidArgumentError, match="probabilities >= 0 that sum to 1"):
        tf.function(call, input_signature=signature)(*arguments)
    compiled = tf.function(call, input_signature=signature, jit_compile=True)
    assert np.isnan(compiled(*arguments)).all()


def test_a_source_prior_with_a_zero_is_refused():
    with pytest.raises(ValueError, match="source_prior must hold probabilities > 0"):
        PriorAdaptLayer(source_prior=[1.0, 0.0])


def test_logits_of_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match="source_prior must have 4 entries"):
        PriorAdaptLayer(SOURCE)(np.zeros((2, 4), np.float32))
    built = PriorAdaptLayer(SOURCE)
    built(make_logits())
    for width in (1, 4):
        with pytest.raises(ValueError, match="expected axis -1 .* to have value 3"):
            built(np.zeros((2, width), np.float32))


def test_the_target_prior_can_be_an_input_of_a_functional_model():
    logits, prior = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([logits, prior], PriorAdaptLayer(SOURCE)(logits, target_prior=prior))
    rows = np.stack([TARGET, SOURCE]).astype(np.float32)
    expected = PriorAdaptLayer(SOURCE)(make_logits(2), target_prior=tf.constant(rows))
    np.testing.assert_allclose(model([make_logits(2), rows]), expected, rtol=1e-6)


def test_setting_a_prior_needs_a_built_layer():
    with pytest.raises(ValueError, match="needs a built layer"):
        PriorAdaptLayer().set_target_prior(TARGET)


def test_the_temperature_divides_the_logits_before_the_priors():
    layer, logits = PriorAdaptLayer(SOURCE, TARGET, temperature=2), make_logits()
    expected = posterior(logits / 2, TARGET / SOURCE)
    np.testing.assert_allclose(tf.nn.softmax(layer(logits)), expected, rtol=1e-5)
    function = tf.function(layer)
    for temperature in (0.5, 1):
        layer.set_temperature(temperature)
        expected = posterior(logits / temperature, TARGET / SOURCE)
        np.testing.assert_allclose(tf.nn.softmax(function(logits)), expected, rtol=1e-5)
    assert function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("temperature", [0, -1, np.nan, "2", None])
def test_what_is_no_temperature_is_refused_and_the_stored_one_stays(temperature):
    layer = PriorAdaptLayer(SOURCE, temperature=3)
    with pytest.raises(ValueError, match="set_temperature needs a built layer"):
        layer.set_temperature(2)
    layer(make_logits())
    with pytest.raises(ValueError, match="temperature must be a finite number > 0; got"):
        layer.set_temperature(temperature)
    with pytest.raises(ValueError, match="temperature must be a finite number > 0; got"):
        PriorAdaptLayer(temperature=temperature)
    assert layer.temperature.numpy() == 3


@pytest.mark.parametrize("temperature", [1e308, 1e39, 1e-320, 1e-40])
def test_a_temperature_that_float32_cannot_hold_is_refused(temperature):
    """It would be stored as inf or 0, or be 0 where a processor flushes what is so small."""
    layer = PriorAdaptLayer(SOURCE, temperature=3)
    layer(make_logits())
    for refuses in (layer.set_temperature, lambda t: PriorAdaptLayer(temperature=t)):
        with pytest.raises(ValueError, match=r"temperature must be .*e-38, .*e\+38\]; got"):
            refuses(temperature)
    assert layer.temperature.numpy() == 3
    for extreme in (1e-37, 1e38):
        layer.set_temperature(extreme)
        assert layer.temperature.numpy() == pytest.approx(extreme)


def in_graph(prior, num_examples=1):
    """Returns the probabilities at a prior of unknown shape that is given with the call."""
    layer = PriorAdaptLayer(SOURCE)
    layer.build((None, 3))
    signature = [tf.TensorSpec([None, 3]), tf.TensorSpec(None)]
    function = tf.function(layer.call, input_signature=signature)
    return tf.nn.softmax(function(make_logits(num_examples), tf.constant(prior, tf.float32)))


def test_a_class_may_have_probability_zero_in_a_prior_given_with_the_call():
    for prior in ([0.4, 0.6, 0.0], [[0.0, 1.0, 0.0]]):
        expected = posterior(make_logits(1), np.ravel(prior) / SOURCE)
        np.testing.assert_allclose(in_graph(prior), expected, rtol=1e-5)
    assert (in_graph([0.4, 0.6, 0.0])[0, 2] == 0).numpy()


def test_a_prior_given_with_the_call_is_divided_by_its_sum():
    layer = PriorAdaptLayer(SOURCE)
    prior = np.array([0.4004, 0.3, 0.3], np.float32)
    expected = layer(make_logits(), target_prior=tf.constant(prior / prior.sum()))
    np.testing.assert_allclose(layer(make_logits(), target_prior=prior), expected, atol=1e-5)
    checked = layer.check_in_graph(prior, 1)
    np.testing.assert_allclose(checked, [prior / prior.sum()], rtol=1e-6)


@pytest.mark.parametrize("total", [0.95, 0.998, 1.002, 1.05])
def test_the_tolerance_of_a_sum_is_that_of_every_other_prior(total):
    with pytest.raises(tf.errors.InvalidArgumentError, match="sum to 1 .within 0.001"):
        in_graph([total - 0.5, 0.3, 0.2])


@pytest.mark.parametrize("prior", [[TARGET] * 2, [TARGET] * 4, [[TARGET] * 3], 1.0])
def test_a_prior_of_other_rows_or_rank_than_the_batch_fails_in_the_graph(prior):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[3\] or \[batch, 3\]; got"):
        in_graph(prior, num_examples=3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[3\] or \[batch, 3\]; got"):
        in_graph([[TARGET]], num_examples=1)  # of rank 3, though as many numbers as one prior


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool])
def test_logits_that_are_no_floats_become_such(dtype):
    logits = np.array([[0, 3, 1], [2, 0, 0]]).astype(dtype)
    layer = PriorAdaptLayer(SOURCE, TARGET)
    layer.build((None, 3))
    expected = posterior(logits.astype(float), TARGET / SOURCE)
    for adapted in (layer(logits), layer.call(tf.constant(logits))):
        np.testing.assert_allclose(tf.nn.softmax(adapted), expected, rtol=1e-5)


@pytest.mark.parametrize("store", [{"0": TARGET}, {"0": TARGET, "1": np.array(2.0)}])
def test_a_layer_saved_before_it_had_all_its_state_loads(store):
    layer = PriorAdaptLayer(SOURCE)
    layer(make_logits())
    layer.set_source_prior(TARGET)
    layer.load_own_variables(store)
    np.testing.assert_allclose(layer.target_prior, TARGET, rtol=1e-6)
    assert layer.temperature.numpy() == store.get("1", 1)
    assert layer.source_prior == SOURCE.tolist()


def test_a_layer_of_low_precision_is_loaded_as_it_was_saved(tmp_path):
    model = keras.Sequential([keras.Input((15,)), PriorAdaptLayer(dtype="bfloat16")])
    stored = np.asarray(model.layers[0].target_prior, np.float64)
    assert stored.sum() > 1.003  # of what is rounded
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(again.layers[0].target_prior, np.float64), stored)


def test_a_masked_prior_is_refused_wherever_it_is_given():
    layer, logits = PriorAdaptLayer(), make_logits()
    layer(logits)
    masked = np.ma.array(TARGET, mask=[False, False, True])
    for use in (
        lambda: layer.set_target_prior(masked),
        lambda: layer(logits, masked),
        lambda: layer(logits, target_prior=masked[None]),
    ):
        with pytest.raises(ValueError, match="target_prior must be .*; some are masked"):
            use()
    unmasked = np.ma.array(TARGET)
    np.testing.assert_array_equal(layer(logits, unmasked), layer(logits, TARGET))


def test_the_source_prior_is_set_without_retracing():
    layer, logits = PriorAdaptLayer(target_prior=TARGET), make_logits()
    with pytest.raises(ValueError, match="set_source_prior needs a built layer"):
        layer.set_source_prior(SOURCE)
    layer(logits)
    function = tf.function(layer)
    np.testing.assert_allclose(function(logits), logits + np.log(TARGET), rtol=1e-5, atol=1e-6)
    assert layer.source_prior is None
    for prior in (SOURCE, None, TARGET):
        layer.set_source_prior(prior)
        weight = TARGET / (1 if prior is None else prior)
        found = tf.nn.softmax(function(logits))
        np.testing.assert_allclose(found, posterior(logits, weight), rtol=1e-5)
        assert layer.get_config()["source_prior"] is None
    np.testing.assert_allclose(layer.source_prior, TARGET, rtol=1e-6)
    for prior, message in [
        *BAD_PRIORS[:2],
        *BAD_PRIORS[3:],
        ([0.5, 0.5, 0.0], "probabilities > 0"),
    ]:
        with pytest.raises(ValueError, match=f"source_prior must .*{message}"):
            layer.set_source_prior(prior)
    np.testing.assert_allclose(layer.source_prior, TARGET, rtol=1e-6)
    assert function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("kind", [["0.5", "0.3", "0.2"], [True, False, False]])
@pytest.mark.parametrize("given", ["list", "tensor"])
def test_text_and_booleans_are_no_prior(kind, given):
    layer = PriorAdaptLayer()
    logits = tf.zeros([2, 3])
    layer(logits)
    with pytest.raises(ValueError, match="target_prior must be .*numbers"):
        layer.set_target_prior(kind if given == "list" else tf.constant(kind))
    np.testing.assert_allclose(layer.target_prior, 1 / 3)
    with pytest.raises(ValueError, match="target_prior must be .*numbers"):
        layer(logits, target_prior=np.array(kind) if given == "list" else tf.constant(kind))
    for name in ("source_prior", "target_prior"):
        with pytest.raises(ValueError, match=f"{name} must be .*numbers"):
            PriorAdaptLayer(**{name: kind})
