import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from lade_tf.optimizers import SGD, CosineByEpoch, WarmupStepDecay

STEPS = 30
DROP = 15  # the first step with the small learning rate
RATES = [0.1] * DROP + [0.001] * (STEPS - DROP)
MOMENTUM = 0.9
L2 = 0.05


def regression_batches():
    rng = np.random.default_rng(0)
    return rng.normal(size=(STEPS, 8, 3)), rng.normal(size=(STEPS, 8, 2))


def reference_run(l2_kernel, l2_bias):
    """The parameters after each step, in float64, of linear least squares."""
    weights = [np.linspace(-1, 1, 6).reshape(3, 2), np.array([0.5, -0.5])]
    velocities = [np.zeros((3, 2)), np.zeros(2)]
    history = []
    for inputs, targets, rate in zip(*regression_batches(), RATES, strict=True):
        error = 2 * (inputs @ weights[0] + weights[1] - targets) / targets.size
        gradients = [inputs.T @ error, error.sum(axis=0)]
        for k, l2 in enumerate((l2_kernel, l2_bias)):
            velocities[k] = MOMENTUM * velocities[k] + gradients[k] + l2 * weights[k]
            weights[k] = weights[k] - rate * velocities[k]
        history.append(np.concatenate([weights[0].ravel(), weights[1]]))
    return np.array(history)


def keras_run(optimizer, compile_step=lambda step: step, l2_in_loss=0.0):
    """The same run with a Keras layer; returns the parameters after each step."""
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    layer.set_weights([np.linspace(-1, 1, 6).reshape(3, 2), np.array([0.5, -0.5])])
    optimizer.build(layer.trainable_variables)

    def step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((layer(inputs) - targets) ** 2)
            loss += sum(l2_in_loss / 2 * tf.reduce_sum(w**2) for w in layer.trainable_variables)
            loss = optimizer.scale_loss(loss)
        gradients = tape.gradient(loss, layer.trainable_variables)
        optimizer.apply(gradients, layer.trainable_variables)

    step = compile_step(step)
    history = []
    for inputs, targets, rate in zip(*regression_batches(), RATES, strict=True):
        optimizer.learning_rate = rate
        step(tf.constant(inputs, tf.float32), tf.constant(targets, tf.float32))
        history.append(np.concatenate([w.numpy().ravel() for w in layer.trainable_variables]))
    return np.array(history)


COMPILERS = {
    "eager": lambda step: step,
    "graph": tf.function,
    "xla": lambda step: tf.function(step, jit_compile=True),
}


@pytest.mark.parametrize("mode", COMPILERS)
@pytest.mark.parametrize("exclude, l2_bias", [((), L2), ((r"/bias$",), 0.0)])
def test_sgd_follows_the_float64_reference_across_a_drop(mode, exclude, l2_bias):
    optimizer = SGD(0.1, momentum=MOMENTUM, l2=L2, l2_exclude=exclude)
    history = keras_run(optimizer, COMPILERS[mode])
    np.testing.assert_allclose(history, reference_run(L2, l2_bias), rtol=0, atol=2e-6)


def test_l2_acts_on_the_bias_unless_it_is_excluded():
    assert np.abs(reference_run(L2, L2) - reference_run(L2, 0.0))[-1].max() > 1e-3


def test_keras_sgd_agrees_before_the_drop_and_not_after_it():
    optimizer = keras.optimizers.SGD(0.1, momentum=MOMENTUM)
    difference = np.abs(keras_run(optimizer, l2_in_loss=L2) - reference_run(L2, L2)).max(axis=1)
    assert difference[:DROP].max() < 2e-6
    assert difference[DROP:].min() > 1e-2


def test_momentum_zero_is_plain_gradient_descent():
    optimizer = SGD(0.1, momentum=0)
    history = keras_run(optimizer)
    plain = keras_run(keras.optimizers.SGD(0.1, momentum=0.0))
    np.testing.assert_allclose(history, plain, rtol=0, atol=1e-6)


def test_loss_scaling_does_not_touch_the_l2_term():
    # Scales are powers of two, so that unscaling is exact.
    scaled = keras.optimizers.LossScaleOptimizer(SGD(0.1, momentum=MOMENTUM, l2=L2))
    plain = SGD(0.1, momentum=MOMENTUM, l2=L2)
    np.testing.assert_array_equal(keras_run(scaled, tf.function), keras_run(plain, tf.function))


def test_loss_scaling_skips_a_step_with_an_infinite_gradient():
    optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.1, l2=L2))
    weight = keras.Variable([1.0, 2.0])
    optimizer.apply([tf.constant([np.inf, 0.0])], [weight])
    np.testing.assert_array_equal(weight.numpy(), [1.0, 2.0])


def test_sparse_gradient_equals_its_dense_form():
    slices = tf.IndexedSlices(
        tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([2, 2]), tf.constant([4, 2])
    )
    weights = [keras.Variable(np.ones((4, 2))) for _ in range(2)]
    for weight, gradient in zip(weights, (slices, tf.convert_to_tensor(slices)), strict=True):
        optimizer = SGD(0.1, l2=L2)
        for _ in range(3):
            optimizer.apply([gradient], [weight])
    np.testing.assert_array_equal(weights[0].numpy(), weights[1].numpy())
    assert weights[0].numpy()[0, 0] < 1  # L2 reaches the rows without a gradient


def test_variable_without_a_gradient_is_left_alone():
    with_gradient, without = keras.Variable([1.0]), keras.Variable([1.0])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        SGD(0.1, l2=L2).apply([tf.constant([1.0]), None], [with_gradient, without])
    np.testing.assert_allclose(with_gradient.numpy(), 1 - 0.1 * (1 + L2), rtol=1e-6)
    np.testing.assert_array_equal(without.numpy(), [1.0])


def warmup_reference(epoch):
    warmup = {1: 7 / 15, 2: 9 / 15, 3: 11 / 15, 4: 13 / 15}.get(epoch, 1.0)
    return 0.2 * warmup * (0.01 if epoch >= 120 else 1.0) * (0.01 if epoch >= 160 else 1.0)


def cosine_reference(epoch):
    return 0.1 * (1 + np.cos(np.pi * epoch / 180)) if epoch < 180 else 0.0


@pytest.mark.parametrize("steps_per_epoch", [1, 42, 49_999])
@pytest.mark.parametrize(
    "schedule_class, arguments, reference",
    [(WarmupStepDecay, {}, warmup_reference), (CosineByEpoch, {"epochs": 180}, cosine_reference)],
)
def test_schedule_at_every_epoch_boundary(schedule_class, arguments, reference, steps_per_epoch):
    schedule = schedule_class(0.2, steps_per_epoch, **arguments)
    for epoch in range(1, 203):
        first = (epoch - 1) * steps_per_epoch
        steps = range(max(first - 1, 0), first + 2)
        expected = [reference(step // steps_per_epoch + 1) for step in steps]
        actual = [schedule(step).numpy() for step in steps]
        # An allowance in units of the rate itself: the small end of a cosine counts too.
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_published_warmup_factors():
    schedule = WarmupStepDecay(1.0, steps_per_epoch=10)
    rates = [float(schedule(10 * (epoch - 1))) for epoch in range(1, 7)]
    np.testing.assert_allclose(rates, [0.467, 0.6, 0.733, 0.867, 1, 1], atol=5e-4)


def test_milestones_compound_also_inside_the_warmup():
    schedule = WarmupStepDecay(1.0, 1, milestones=(2, 4), factor=0.1, warmup_epochs=3)
    rates = [float(schedule(step)) for step in range(6)]
    np.testing.assert_allclose(rates, [5 / 9, 0.7 / 9, 0.1, 0.01, 0.01, 0.01], rtol=1e-6)


def test_constant_schedule_without_warmup_and_milestones():
    schedule = WarmupStepDecay(0.3, 7, milestones=(), warmup_epochs=0)
    assert {float(schedule(step)) for step in (0, 6, 7, 10**7)} == {np.float32(0.3)}


@pytest.mark.parametrize(
    "dtype, boundary",
    [
        (np.float32, 10**7),
        (np.int32, 10**7),
        (np.int64, 2**24 + 1),  # float32 does not tell this step from the one before
    ],
)
def test_boundary_is_exact_after_many_steps(dtype, boundary):
    schedule = WarmupStepDecay(1.0, boundary, milestones=(2,), factor=0.5, warmup_epochs=0)
    steps = [tf.constant(step, dtype) for step in (boundary - 1, boundary, boundary + 1)]
    assert [float(schedule(step)) for step in steps] == [1.0, 0.5, 0.5]


def test_cosine_is_zero_from_its_last_epoch_on():
    schedule = CosineByEpoch(0.05, steps_per_epoch=10, epochs=3)
    assert float(schedule(19)) > 0
    assert [float(schedule(step)) for step in (20, 29, 30, 10**7)] == [0.0] * 4


@pytest.mark.parametrize(
    "schedule", [WarmupStepDecay(0.2, 3, warmup_epochs=2), CosineByEpoch(0.2, 3, epochs=9)]
)
def test_schedule_is_float32_and_the_same_under_xla(schedule):
    compiled = tf.function(lambda step: schedule(step), jit_compile=True)
    for step in range(30):
        rate = compiled(tf.constant(step, tf.int64))
        assert rate.dtype == tf.float32
        assert float(rate) == float(schedule(step))


SCHEDULES = [
    WarmupStepDecay(0.2, 42, milestones=[18, 24], factor=0.1, warmup_epochs=3),
    CosineByEpoch(0.05, 452, epochs=180),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedule_serialises(schedule):
    stored = json.loads(json.dumps(keras.optimizers.schedules.serialize(schedule)))
    copy = keras.optimizers.schedules.deserialize(stored)
    assert type(copy) is type(schedule)
    assert copy.get_config() == schedule.get_config()
    assert float(copy(5000)) == float(schedule(5000))


@pytest.mark.parametrize("learning_rate", [0.05, *SCHEDULES])
@pytest.mark.parametrize("wrap", [lambda sgd: sgd, keras.optimizers.LossScaleOptimizer])
def test_sgd_serialises(learning_rate, wrap):
    optimizer = wrap(SGD(learning_rate, 0.8, l2=5e-4, l2_exclude=["bias$", "gamma"], name="opt"))
    stored = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    # Keras has an SGD of its own: the registered name must win over it.
    copy = keras.optimizers.deserialize(stored)
    assert type(copy) is type(optimizer)
    assert copy.get_config() == optimizer.get_config()
    inner = getattr(copy, "inner_optimizer", copy)
    assert type(inner) is SGD
    assert (inner.momentum, inner.l2, inner.name) == (0.8, 5e-4, "opt")
    assert list(inner.l2_exclude) == ["bias$", "gamma"]


def compiled_network():
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )
    schedule = WarmupStepDecay(0.1, 4, milestones=(4,), factor=0.1, warmup_epochs=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(SGD(schedule, l2=1e-2, l2_exclude=(r"/(gamma|beta)$",)), loss)
    return network


def test_save_load_and_go_on_equals_an_uninterrupted_run(tmp_path):
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(32, 4)), rng.integers(0, 3, 32)

    def fit(network, epochs):
        network.fit(inputs, labels, batch_size=8, epochs=epochs, shuffle=False, verbose=0)

    whole, first_part = compiled_network(), compiled_network()
    fit(whole, 6)
    fit(first_part, 3)
    first_part.save(tmp_path / "network.keras")
    second_part = keras.models.load_model(tmp_path / "network.keras")
    assert type(second_part.optimizer) is SGD
    for saved, loaded in zip(
        first_part.optimizer.variables, second_part.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(saved, loaded)
    fit(second_part, 3)
    for expected, actual in zip(whole.get_weights(), second_part.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"momentum": 1.0}, r"momentum must be a number in \[0, 1\); got 1.0"),
        ({"momentum": -0.1}, "momentum must be"),
        ({"momentum": float("nan")}, "momentum must be"),
        ({"momentum": "0.9"}, "momentum must be"),
        ({"l2": -1e-4}, "l2 must be a finite number >= 0; got -0.0001"),
        ({"l2": float("inf")}, "l2 must be"),
        ({"l2": None}, "l2 must be"),
        ({"l2_exclude": "bias"}, "l2_exclude must be a list or tuple"),
        ({"l2_exclude": ["("]}, r"l2_exclude must hold valid regular expressions; got '\('"),
        ({"l2_exclude": [3]}, "l2_exclude must hold"),
        ({"weight_decay": 5e-4}, "weight_decay .* use l2; got weight_decay=0.0005"),
    ],
)
def test_sgd_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SGD(**arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"base_learning_rate": 0.0}, "base_learning_rate must be a finite number > 0; got 0.0"),
        ({"base_learning_rate": float("nan")}, "base_learning_rate must be"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be an integer >= 1; got 0"),
        ({"steps_per_epoch": 42.5}, "steps_per_epoch must be"),
    ],
)
@pytest.mark.parametrize(
    "schedule_class, rest", [(WarmupStepDecay, {}), (CosineByEpoch, {"epochs": 10})]
)
def test_schedules_refuse_bad_arguments(schedule_class, rest, arguments, message):
    with pytest.raises(ValueError, match=message):
        schedule_class(**{"base_learning_rate": 0.1, "steps_per_epoch": 42, **rest, **arguments})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"milestones": (0, 160)}, "milestones must be an integer >= 1; got 0"),
        ({"milestones": 120}, "milestones must be a list or tuple"),
        ({"factor": -0.1}, "factor must be"),
        ({"warmup_epochs": -1}, "warmup_epochs must be an integer >= 0; got -1"),
    ],
)
def test_warmup_step_decay_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        WarmupStepDecay(0.1, 42, **arguments)


def test_cosine_refuses_no_epochs():
    with pytest.raises(ValueError, match="epochs must be an integer >= 1; got 0"):
        CosineByEpoch(0.1, 42, epochs=0)


@pytest.mark.parametrize("clip", [{}, {"global_clipnorm": 0.5}])
def test_stateless_apply_takes_the_same_steps(clip):
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    extra = keras.Variable([1.0, 2.0], name="extra")
    variables = [*layer.trainable_variables, extra]
    schedule = WarmupStepDecay(0.1, steps_per_epoch=2, milestones=(2,), warmup_epochs=0)
    optimizer = SGD(
        schedule,
        l2=L2,
        l2_exclude=[r"/bias$"],
        learning_rate_factors=[(r"/kernel$", 0.5)],
        use_ema=True,
        ema_momentum=0.9,
        **clip,
    )
    optimizer.build(variables)
    weights = [tf.identity(v.value) for v in variables]
    own = [tf.identity(v.value) for v in optimizer.variables]
    rng = np.random.default_rng(0)
    for _ in range(5):
        gradients = [tf.constant(rng.normal(size=v.shape), tf.float32) for v in variables[:2]]
        before = [v.numpy() for v in variables]
        weights, own = optimizer.stateless_apply(own, [*gradients, None], weights)
        for variable, value in zip(variables, before, strict=True):
            np.testing.assert_array_equal(variable, value)  # variables are left alone
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            optimizer.apply([*gradients, None], variables)
        for variable, value in zip(
            [*variables, *optimizer.variables], [*weights, *own], strict=True
        ):
            np.testing.assert_allclose(value, variable, rtol=1e-6, atol=1e-7, err_msg=variable.path)


def test_stateless_apply_refuses_gradient_accumulation():
    optimizer = SGD(gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="gradient_accumulation_steps must not be set"):
        optimizer.stateless_apply([], [], [])


@pytest.mark.parametrize("l2", [0.0, L2])
def test_learning_rate_factors_scale_the_steps_of_the_variables_they_find(l2):
    factors = [("kernel", 0.25), ("kernel|bias", 3.0)]
    optimizers = (SGD(0.1, 0.0, l2), SGD(0.1, 0.0, l2, learning_rate_factors=factors))
    plain, scaled = (keras_run(optimizer)[0] for optimizer in optimizers)
    start = np.concatenate([np.linspace(-1, 1, 6), [0.5, -0.5]])
    expected = start + (plain - start) * np.repeat([0.25, 3.0], [6, 2])
    np.testing.assert_allclose(scaled, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "factors", ["kernel", [("kernel",)], [("(", 1.0)], [("kernel", -1.0)], [("kernel", "a")]]
)
def test_bad_learning_rate_factors_are_refused(factors):
    with pytest.raises(ValueError, match="learning_rate_factors"):
        SGD(learning_rate_factors=factors)


def test_a_constraint_of_a_variable_holds_after_every_step():
    variable = keras.Variable([1.0, -1.0], name="w")
    variable.constraint = keras.constraints.NonNeg()
    stepped = keras.Variable([1.0, -1.0], name="w")
    stepped.constraint = keras.constraints.NonNeg()
    gradient = tf.constant([20.0, -1.0])
    optimizer = SGD(0.1, momentum=0.0)
    optimizer.apply([gradient], [variable])
    np.testing.assert_allclose(variable.numpy(), [0.0, 0.0])
    optimizer = SGD(0.1, momentum=0.0)
    optimizer.build([stepped])
    own = [own.value for own in optimizer.variables]
    weights, _ = optimizer.stateless_apply(own, [gradient], [stepped.value])
    np.testing.assert_allclose(weights[0].numpy(), [0.0, 0.0])
