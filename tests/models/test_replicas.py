"""LADE on replicas is LADE of the global batch, whatever each replica's share."""

import itertools

import numpy as np
import pytest
import replicas
import tensorflow as tf

import lade_tf

SHARES = {
    "two": [6, 6],
    "uneven": [3, 9],
    "four": [4, 1, 4, 3],
    "one without any": [5, 0, 4, 3],
}


ESTIMATORS = lade_tf.ops.ESTIMATORS
CASES = [*itertools.product(SHARES, ESTIMATORS, (False, True))]


@pytest.fixture(scope="module")
def of_replicas():
    """What `replicas.lader` gives of each case: one process for each number of replicas."""
    found = {}
    for number in {len(sizes) for sizes in SHARES.values()}:
        cases = [case for case in CASES if len(SHARES[case[0]]) == number]
        # Sorted, a class is on few replicas.
        arguments = [(SHARES[name], kind, weighted, not weighted) for name, kind, weighted in cases]
        results = replicas.in_a_process(replicas.laders, number, arguments)
        found |= zip(cases, results, strict=True)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradient_are_those_of_the_global_batch(case, of_replicas):
    name, estimator, weighted = case
    value, gradient, sent = of_replicas[case]
    logits, labels, weights = map(tf.constant, replicas.make_batch(12, not weighted))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        arguments = (0.3, estimator, weights if weighted else None)
        expected = lade_tf.ops.lader(logits, labels, replicas.COUNTS, *arguments)
    assert value == pytest.approx(expected.numpy(), rel=1e-5)
    expected = tape.gradient(expected, logits).numpy()
    np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())
    # Three floats a class and replica, whatever the batch.
    assert sent == [(1, 3, 4)] * len(SHARES[name])


# Kind, estimator, epochs and whether to use XLA.
TRAININGS = [("model", "paper", 7, False), ("loss", "reference", 7, False)]
TRAININGS += [("model", "reference", 7, True)]


@pytest.fixture(scope="module")
def trained():
    """{number of replicas: {training: its weights and losses}}, a process for each number."""
    found = {}
    for number in (1, 2, 4):
        results = replicas.in_a_process(replicas.trainings, number, TRAININGS)
        found[number] = dict(zip(TRAININGS, results, strict=True))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("training", TRAININGS, ids=str)
def test_trained_weights_are_those_of_one_device(training, trained):
    kind = training[0]
    weights, history = trained[1][training]
    for number in (2, 4):
        actual, actual_history = trained[number][training]
        for one, other in zip(actual, weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
        if kind == "model":
            for name, values in history.items():
                # LADER is a small difference of numbers around 1.
                close = {"rtol": 1e-5, "atol": 1e-6}
                np.testing.assert_allclose(actual_history[name], values, **close, err_msg=name)


@pytest.mark.slow
def test_the_first_batch_may_be_one_that_replicas_cannot_divide_evenly():
    expected, actual = (
        replicas.in_a_process(replicas.train_on_unequal_first_batches, number) for number in (1, 2)
    )
    np.testing.assert_allclose(actual["LADEModel"], expected["LADEModel"], rtol=1e-4)
    # Keras weights replicas alike, whatever share of the batch they have.
    np.testing.assert_allclose(actual["AdaptedModel"], expected["AdaptedModel"], rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_weighted_losses_are_shown_as_on_one_device(number):
    """Also where a replica's examples have no weight, or it has none."""
    expected = replicas.show_weighted_losses(1)
    actual = replicas.in_a_process(replicas.show_weighted_losses, number)
    assert set(expected["LADEModel"]) > {"cross_entropy", "lader", "val_cross_entropy"}
    for kind, values in expected.items():
        assert actual[kind] == pytest.approx(values, rel=1e-5), kind


def test_only_collectives_and_the_optimizer_are_outside_the_compiled_parts():
    compiled, others = replicas.in_a_process(replicas.compiled_ops, 2)
    network = {"MatMul", "BiasAdd", "BiasAddGrad", "Relu", "ReluGrad"}
    local_loss = {"TensorScatterAdd", "UnsortedSegmentSum"}
    assert network | local_loss <= compiled and not (network | local_loss) & others
    collectives = {op for op in compiled | others if op.startswith("Collective")}
    assert collectives == {"CollectiveGatherV2", "CollectiveReduceV2"} and collectives <= others
    assert "AssignSubVariableOp" in others - compiled


@pytest.mark.slow
def test_the_compiled_step_of_one_device_holds_the_whole_loss():
    model, batch = replicas.small_lade_model(tf.distribute.get_strategy())
    step = tf.function(model.train_step, jit_compile=True)
    hlo = step.experimental_get_compiler_ir(batch)(stage="hlo")
    # The logits' gradients, the segment sums, the exponentials of LADER and of the softmax.
    for instruction in ("dot", "scatter", "exponential", "log"):
        assert f" {instruction}(" in hlo, instruction
