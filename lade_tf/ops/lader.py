"""LADER, the regulariser of LADE: equations 11 to 16 with their closed-form gradient."""

import numpy as np
import tensorflow as tf

from lade_tf import priors
from lade_tf.checks import check_choice, check_number
from lade_tf.ops.assertions import asserted
from lade_tf.ops.labels import check_labels

ESTIMATORS = ("paper", "reference")


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

    In a replica of a tf.distribute strategy it is the LADER of the global batch: the replicas gather
    three numbers a class. Its gradient is N/N_r times the replica's own part, N_r its samples, so
    that the replicas' values, weighted with their shares N_r/N of the batch, add up to the loss of
    one device, and so do their gradients. `lader_and_share` gives that share too.

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
            labels out of range or negative weights (in graph mode InvalidArgumentError; under XLA
            the value is NaN).
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
    check_choice(estimator, ESTIMATORS, "estimator")
    remine_lambda = check_number(remine_lambda, "remine_lambda", minimum=0)
    prior = priors.class_prior(class_counts, zero_count)
    logits = tf.convert_to_tensor(logits)
    logits = tf.cast(logits, tf.float64 if logits.dtype == tf.float64 else tf.float32)
    labels, validity = check_labels(labels, logits, prior.size)
    if sample_weight is not None:
        sample_weight = tf.reshape(tf.cast(sample_weight, logits.dtype), tf.shape(labels))
        is_weight = tf.reduce_all(sample_weight >= 0)
        message = ["sample_weight must hold numbers >= 0; got", tf.reduce_min(sample_weight)]
        sample_weight = asserted(sample_weight, is_weight, message)
        validity = tf.where(is_weight, validity, float("nan"))
    value, share = _lader(logits, labels, sample_weight, prior, remine_lambda, estimator)
    return value * tf.cast(validity, value.dtype), share


def _lader(logits, labels, sample_weight, prior, remine_lambda, estimator):
    """LADER on checked arguments, with the gradient of method.md instead of autodiff's."""
    num_classes, dtype = prior.size, logits.dtype
    pi = tf.constant(prior, dtype)
    occurrences = tf.ones_like(labels, dtype) if sample_weight is None else sample_weight
    # The released code adds 1e-8 to N_c, and 1e-9 inside the logs of π and 1/C.
    if estimator == "paper":
        importance = tf.gather(1 / (num_classes * pi), labels) * occurrences
        log_column_weight = tf.zeros_like(pi)
    else:
        importance = occurrences
        log_column_weight = tf.constant(
            np.log(1 / num_classes + 1e-9) - np.log(prior + 1e-9), dtype
        )

    @tf.custom_gradient
    def regulariser(logits):
        # Weights multiply the shifted exponentials: added to the logits as logs they would round
        # away the last digits of large logits.
        counted = logits
        if sample_weight is not None:
            counted = tf.where(occurrences[:, None] > 0, logits, -float("inf"))
        highest = tf.reduce_max(counted, axis=0)
        highest = tf.where(tf.math.is_inf(highest), tf.zeros_like(highest), highest)
        terms = importance[:, None] * tf.exp(counted - highest)
        term_sum = tf.reduce_sum(terms, axis=0)
        log_sum = highest + tf.math.log(term_sum)
        own_logit = tf.gather(logits, labels, batch_dims=1)
        positive = tf.math.unsorted_segment_sum(occurrences * own_logit, labels, num_classes)
        class_own = tf.math.unsorted_segment_sum(occurrences, labels, num_classes)

        class_total, positive, global_log_sum = _over_replicas(class_own, positive, log_sum)
        own, total = tf.reduce_sum(class_own), tf.reduce_sum(class_total)
        share = tf.math.divide_no_nan(own, total)
        if estimator == "paper":
            active = class_total > 0
            per_sample = tf.math.divide_no_nan(tf.ones_like(pi), class_total)
        else:
            active = tf.fill([num_classes], total > 0)
            per_sample = 1 / (class_total + 1e-8)
        t = global_log_sum - tf.math.log(total) + log_column_weight
        class_loss = -per_sample * positive + t + remine_lambda * t**2
        value = tf.reduce_sum(tf.where(active, pi * class_loss, tf.zeros_like(pi)))

        def gradient(upstream, _):
            upstream = tf.math.divide_no_nan(upstream, share)
            # How much of the global sum is this replica's: 1 without replicas.
            own_part = tf.exp(log_sum - global_log_sum)
            pull = tf.math.divide_no_nan(pi * (1 + 2 * remine_lambda * t) * own_part, term_sum)
            pull = tf.where(active, upstream * pull, tf.zeros_like(pi))
            push = upstream * tf.gather(pi * per_sample, labels) * occurrences
            return pull * terms - push[:, None] * tf.one_hot(labels, num_classes, dtype=dtype)

        return (value, share), gradient

    return regulariser(logits)


def _over_replicas(class_total, positive, log_sum):
    """Returns the global batch's sums of the first two and log-sum-exp of the third, each [C]."""
    if tf.distribute.in_cross_replica_context():
        return class_total, positive, log_sum
    replica = tf.distribute.get_replica_context()
    if replica.num_replicas_in_sync == 1:
        return class_total, positive, log_sum
    statistics = tf.stack([class_total, positive, log_sum])[None]
    gathered = replica.all_gather(statistics, axis=0)
    sums = tf.reduce_sum(gathered[:, :2], axis=0)
    return sums[0], sums[1], tf.reduce_logsumexp(gathered[:, 2], axis=0)
