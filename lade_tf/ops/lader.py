"""LADER, the regulariser of LADE: equations 11 to 16 with their closed-form gradient."""

import numpy as np
import tensorflow as tf

from lade_tf import priors
from lade_tf.checks import check_choice, check_number
from lade_tf.ops.labels import check_labels, check_sample_weight

ESTIMATORS = ("paper", "reference")
EPSILON = 1e-9  # what the released code adds to priors inside logs
# The share of a column's sum that may be lost to underflow.
LARGEST_LOSS = 1e-5


def lader(
    logits,
    labels,
    class_counts,
    remine_lambda,
    estimator="paper",
    sample_weight=None,
    zero_count="error",
):
    """Returns the batch's LADER, the regularised Donsker-Varadhan bound of the LADE paper.

    With π the training prior, N the batch size, N_c its samples of class c and S the classes
    present, "paper" is (equations 11 to 16)

        T_c = log (1/N) Σ_i w_i exp f[i, c],    w_i = p_u(y_i) / p_s(y_i) = 1 / (C π[y_i])
        LADER = Σ_{c in S} π_c (−(1/N_c) Σ_{i: y_i = c} f[i, c] + T_c + λ T_c²)

    and its minimiser is f[x, c] = log p_u(x|c) / p_u(x). "reference" is what the authors' released
    code computes, and what the published numbers came from: the weight is that of the column,
    T_c = LSE_i f[i, c] − log N − log(C π_c), and the sum runs over all classes.

    Statistics are float32 for every input but float64. A sample weight w means that the example
    occurs w times.

    In a replica of a tf.distribute strategy it is the LADER of the global batch: the replicas
    gather three numbers a class. Its gradient is N/N_r times the replica's own part, N_r its
    samples: the replicas' values, weighted with their shares N_r/N of the batch, add up to the loss
    of one device, and so do their gradients. `lader_and_share` gives that share too.

    Args:
        logits: [batch, classes], already disentangled from the training prior.
        labels: [batch] integers in 0..C−1.
        class_counts: [classes] training samples per class.
        remine_lambda: λ ≥ 0, the weight of T².
        estimator: "paper" or "reference".
        sample_weight: [batch] numbers ≥ 0, or None.
        zero_count: "error" refuses a class without samples, "smooth" adds 1 to every count.

    Returns:
        Scalar, in nats; 0 for an empty batch.

    Raises:
        ValueError: for bad counts, λ or estimator, shapes that don't match and, in eager mode,
            labels out of range and weights that are negative or not finite (in graph mode
            InvalidArgumentError; under XLA the value is NaN).
    """
    return lader_and_share(
        logits, labels, class_counts, remine_lambda, estimator, sample_weight, zero_count
    )[0]


def lader_and_share(
    logits,
    labels,
    class_counts,
    remine_lambda,
    estimator="paper",
    sample_weight=None,
    zero_count="error",
):
    """Returns `lader` and the replica's share N_r/N of the global batch, 1 without replicas.

    Arguments and errors are those of `lader`.

    Returns:
        (value, share), scalars; the share has no gradient.
    """
    prior = priors.class_prior(class_counts, zero_count)
    statistics = lader_statistics(logits, labels, prior, estimator, sample_weight)
    return lader_of_statistics(statistics, prior, remine_lambda, estimator)


def lader_statistics(logits, labels, prior, estimator="paper", sample_weight=None):
    """Returns what LADER needs to know of a batch, or of a replica's part of it.

    Arguments and errors are those of `lade_terms`.

    Returns:
        [3, classes]: how many examples each class has, the sum of their own logits, and log of the
        sum over all examples of weight · exp(logit), −inf for none.
    """
    return lade_terms(logits, labels, prior, estimator, sample_weight)[1]


def lade_terms(logits, labels, prior, estimator="paper", sample_weight=None):
    """Returns the cross-entropy of softmax(f + log π), and LADER's statistics.

    For "reference" the cross-entropy is that of softmax(f + log(π + 1e-9)), as released.

    Everything that depends on the batch size happens here and in its gradient, with no exchange
    between replicas: it can be compiled together with the network. Both terms need exp of all
    logits, which is what they cost: it is taken once for both.

    Args:
        logits: [batch, classes].
        labels: [batch] integers in 0..C−1.
        prior: [classes] float64, the training prior π.
        estimator: "paper" or "reference".
        sample_weight: [batch] numbers ≥ 0, or None; the cross-entropy isn't multiplied by them.

    Returns:
        (cross-entropy [batch] in nats, statistics [3, classes] as `lader_statistics`).

    Raises:
        ValueError: as `lader`.
    """
    check_choice(estimator, ESTIMATORS, "estimator")
    logits = tf.convert_to_tensor(logits)
    logits = tf.cast(logits, tf.float64 if logits.dtype == tf.float64 else tf.float32)
    labels, validity = check_labels(labels, logits, prior.size)
    logits = tf.ensure_shape(logits, [None, prior.size])
    occurrences, are_weights = check_sample_weight(sample_weight, labels, logits.dtype)
    validity = tf.where(are_weights, validity, float("nan"))
    importance = occurrences
    if estimator == "paper":
        importance *= tf.gather(tf.constant(1 / (prior.size * prior), logits.dtype), labels)
    pi = tf.constant(prior + EPSILON if estimator == "reference" else prior, logits.dtype)
    cross_entropy, statistics = _terms(logits, labels, pi, occurrences, importance)
    validity = tf.cast(validity, logits.dtype)
    return cross_entropy * validity, statistics * validity


@tf.custom_gradient
def _terms(logits, labels, pi, occurrences, importance):
    num_classes = logits.shape[1]
    row_max = tf.reduce_max(logits, axis=1)
    # The exponentials of both terms. Priors and weights multiply them: added to the logits as logs
    # they would round away the last digits of large logits.
    exponentials = tf.exp(logits - row_max[:, None]) * pi
    row_sum = tf.reduce_sum(exponentials, axis=1)
    own = tf.gather(logits, labels, batch_dims=1)
    cross_entropy = tf.math.log(row_sum / tf.gather(pi, labels)) + (row_max - own)

    # An example that doesn't occur mustn't even be the highest.
    highest = _finite(tf.reduce_max(tf.where(importance > 0, row_max, -float("inf"))))
    row_weight = tf.math.multiply_no_nan(tf.exp(row_max - highest), importance)
    # A product with a vector, which GPUs, unlike those of matrices, don't round to TF32.
    weighted_sum = tf.linalg.matvec(exponentials, row_weight, transpose_a=True)
    column_sum = weighted_sum / pi
    # A column far below its rows' highest logits vanishes: it needs a maximum of its own.
    vanished = tf.reduce_any(weighted_sum < _smallest_sum(importance))
    log_sum = tf.cond(
        vanished,
        lambda: _log_of_sums(*_column_sums(logits, importance)[1:]),
        lambda: highest + tf.math.log(column_sum),
    )
    rows = (
        tf.math.unsorted_segment_sum(occurrences, labels, num_classes),
        tf.math.unsorted_segment_sum(
            tf.math.multiply_no_nan(own, occurrences), labels, num_classes
        ),
        log_sum,
    )

    def gradient(of_cross_entropy, of_statistics):
        row_factor = (of_cross_entropy / row_sum)[:, None]

        def of_columns():
            # Written so that one array besides the exponentials is enough.
            column_factor = of_statistics[2] / (column_sum * pi)
            return (row_weight[:, None] * column_factor + row_factor) * exponentials

        def of_vanished_columns():
            own_exponentials, sums, _ = _column_sums(logits, importance)
            column_factor = tf.math.divide_no_nan(of_statistics[2], sums)
            share = importance[:, None] * column_factor * own_exponentials
            return exponentials * row_factor + share

        def with_own(gradient):
            return tf.tensor_scatter_nd_add(gradient(), places, of_own)

        of_own = tf.gather(of_statistics[1], labels) * occurrences - of_cross_entropy
        places = tf.stack([tf.range(tf.size(labels)), labels], axis=1)
        of_logits = tf.cond(
            vanished, lambda: with_own(of_vanished_columns), lambda: with_own(of_columns)
        )
        return of_logits, None, None, None, None

    return (cross_entropy, tf.stack(rows)), gradient


def _smallest_sum(importance):
    """Returns the least weighted sum of exponentials of a column that has lost next to nothing.

    Each exponential and each product below the smallest normal number may have become 0: of a sum
    of N products no more than N of them is missing, times the largest importance where that is
    above 1. In a sum that is 1 / `LARGEST_LOSS` times as large that doesn't show, nor in one of its
    terms beside the largest.

    Args:
        importance: [batch]; not what is left of it in a row far below the highest, whose
            exponential may be what was lost.
    """
    lost = np.finfo(importance.dtype.as_numpy_dtype).tiny / LARGEST_LOSS
    largest = tf.reduce_max(tf.concat([tf.ones([1], importance.dtype), importance], axis=0))
    return lost * largest * tf.cast(tf.size(importance), importance.dtype)


def _column_sums(logits, importance):
    """Returns the sums of importance · exp(logits) of each column below its own highest logit.

    Args:
        logits: [batch, classes].
        importance: [batch], ≥ 0.

    Returns:
        (exponentials [batch, classes], their weighted sums [classes], the logits [classes] that
        they are relative to). An example without importance takes no part, however high it is.
    """
    occurring = tf.where(importance[:, None] > 0, logits, -float("inf"))
    highest = _finite(tf.reduce_max(occurring, axis=0))
    exponentials = tf.exp(occurring - highest)
    return exponentials, tf.linalg.matvec(exponentials, importance, transpose_a=True), highest


def _log_of_sums(sums, highest):
    """Returns log Σ_i importance_i exp(logits[i]), [classes], −inf where nothing is."""
    return highest + tf.math.log(sums)


def _finite(tensor):
    """Returns `tensor` with zeros in place of ±inf."""
    return tf.where(tf.math.is_inf(tensor), tf.zeros_like(tensor), tensor)


def lader_of_statistics(statistics, prior, remine_lambda, estimator="paper"):
    """Returns LADER of the global batch, and the replica's share of it.

    Args:
        statistics: [3, classes], `lader_statistics` of the replica's examples.
        prior: [classes] float64, the training prior π.
        remine_lambda: λ ≥ 0.
        estimator: "paper" or "reference".

    Returns:
        (value, share), scalars, as `lader_and_share`.
    """
    remine_lambda = check_number(remine_lambda, "remine_lambda", minimum=0)
    pi = tf.constant(prior, statistics.dtype)
    own_size = tf.reduce_sum(tf.stop_gradient(statistics[0]))
    class_total, positive, log_sum = tf.unstack(_over_replicas(statistics))
    total = tf.reduce_sum(class_total)
    # The released code adds 1e-8 to N_c, and `EPSILON` inside the logs of π and 1/C.
    if estimator == "paper":
        active = class_total > 0
        per_sample = tf.math.divide_no_nan(tf.ones_like(pi), class_total)
        t = log_sum - tf.math.log(total)
    else:
        active = tf.fill(tf.shape(pi), total > 0)
        per_sample = 1 / (class_total + 1e-8)
        column = np.log(1 / prior.size + EPSILON) - np.log(prior + EPSILON)
        t = log_sum - tf.math.log(total) + tf.constant(column, pi.dtype)
    t = tf.where(active, t, tf.zeros_like(t))  # not −inf, whose gradient would be NaN
    class_loss = -per_sample * positive + t + remine_lambda * t**2
    value = tf.reduce_sum(tf.where(active, pi * class_loss, tf.zeros_like(pi)))
    value = tf.where(tf.math.is_nan(total), total, value)  # of bad labels no class is active
    return value, tf.math.divide_no_nan(own_size, total)


@tf.custom_gradient
def _over_replicas(statistics):
    """Returns the [3, C] statistics of the global batch; each replica gathers 3C floats."""
    if tf.distribute.in_cross_replica_context():
        return statistics, lambda upstream: upstream
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return statistics, lambda upstream: upstream
    gathered = replica.all_gather(statistics[None], axis=0)
    sums = tf.reduce_sum(gathered[:, :2], axis=0)
    log_sum = tf.reduce_logsumexp(gathered[:, 2], axis=0)
    own_size, total = tf.reduce_sum(statistics[0]), tf.reduce_sum(sums[0])

    def gradient(upstream):
        # How much of the global sum of exponentials is this replica's.
        own_part = tf.exp(statistics[2] - log_sum)
        part = tf.stack([tf.zeros_like(own_part), upstream[1], upstream[2] * own_part])
        return tf.math.divide_no_nan(part * total, own_size)

    whole = tf.concat([sums, log_sum[None]], axis=0)
    return tf.ensure_shape(whole, statistics.shape), gradient
