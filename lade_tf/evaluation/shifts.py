"""Label distributions to test under, and test sets that have them.

A balanced test set stands for all others: a test prior weights its classes, which gives the exact
expectation over all test sets of that label distribution, or one such set is drawn from it.
"""

import numpy as np

from lade_tf import priors
from lade_tf.array_checks import check_class_indices
from lade_tf.checks import check_integer, check_number

# Section 4.3 of the LADE paper, in the order of its tables 6 and 9.
SHIFTS = (
    *(f"forward:{ratio}" for ratio in (50, 25, 10, 5, 2)),
    "uniform",
    *(f"backward:{ratio}" for ratio in (2, 5, 10, 25, 50)),
)
PRIOR_NAMES = (
    "uniform, train, forward:RATIO, backward:RATIO, dirichlet:CONCENTRATION:SEED or the path of "
    'a .json file that holds {"prior": [a share for each class]} or {class name: share}'
)


def feasible(names, per_class):
    """Returns the names of shifts under which every class keeps a test image.

    Args:
        names: of `SHIFTS`, or others of the same form.
        per_class: images of every class in the balanced test set.

    Returns:
        A list, those of `names`.
    """
    return [n for n in names if n == "uniform" or int(n.split(":")[1]) <= per_class]


def check_prior_name(name):
    """Raises a ValueError unless `name` is one that `named_prior` understands."""
    kind, *values = name.split(":")
    if kind in priors.DIRECTIONS and len(values) == 1 and values[0]:
        check_number(_number(values[0]), f"the ratio in {name!r}", minimum=1)
    elif kind == "dirichlet" and len(values) == 2:
        check_number(_number(values[0]), f"the concentration in {name!r}", above=0)
        seed = int(values[1]) if values[1].isdecimal() else values[1]
        check_integer(seed, f"the seed in {name!r}", minimum=0)
    elif name not in ("uniform", "train") and not name.endswith(".json"):
        raise ValueError(f"a prior must be {PRIOR_NAMES}; got {name!r}")


def _number(text):
    """Returns the number that a text is; another text as it is, for the checks to refuse."""
    try:
        return float(text)
    except ValueError:
        return text


def named_prior(name, class_counts, per_class, reading="notebook", class_names=None):
    """Returns the label distribution that a name stands for.

    Args:
        name: "uniform"; "train", that of the training set; "forward:R" or "backward:R" (section
            4.3 of the LADE paper, R the imbalance ratio); "dirichlet:A:SEED" (one draw, all
            concentrations A); or the path of a prior file (`lade_tf.priors.load_prior`), whose
            "rest" is spread as in training.
        class_counts: [classes] training images of every class.
        per_class: test images of every class: the shifted sets are made of whole images.
        reading: of section 4.3's formula, "notebook" or "paper" (`lade_tf.priors.shifted_counts`).
        class_names: [classes], for a file that names its classes, or None.

    Returns:
        [classes] float64, sums to 1.

    Raises:
        ValueError: if `name` stands for nothing, or for a ratio that leaves a class without image.
    """
    check_prior_name(name)
    num_classes = len(class_counts)
    if name == "uniform":
        return priors.uniform_prior(num_classes)
    # Only a model that was built with zero_count="smooth" has a count of 0.
    training_prior = priors.class_prior(class_counts, "error" if np.all(class_counts) else "smooth")
    if name == "train":
        return training_prior
    if name.endswith(".json"):
        return priors.load_prior(name, num_classes, class_names, training_prior=training_prior)
    kind, value, *seed = name.split(":")
    if kind == "dirichlet":
        return np.random.default_rng(int(seed[0])).dirichlet(np.full(num_classes, float(value)))
    counts = priors.shifted_counts(per_class, class_counts, float(value), kind, reading)
    if counts.min() == 0:
        raise ValueError(
            f"{name} leaves a class without an image: the test set has {per_class} a class, so the "
            f"ratio can be {per_class} at most"
        )
    return counts / counts.sum()


def class_weights(labels, test_prior):
    """Returns weights under which a test set has another label distribution.

    Args:
        labels: [samples] integers in 0..C−1.
        test_prior: [classes], sums to 1.

    Returns:
        [samples] float64; they sum to the number of samples.

    Raises:
        ValueError: for labels out of range, a prior that isn't one, or a class of positive prior
            without a sample.
    """
    test_prior = priors.check_prior(test_prior, name="test_prior")
    labels = check_class_indices("labels", labels, num_classes=len(test_prior))
    per_class = np.bincount(labels, minlength=len(test_prior))
    if np.any((per_class == 0) & (test_prior > 0)):
        missing = int(np.flatnonzero((per_class == 0) & (test_prior > 0))[0])
        raise ValueError(
            f"labels must hold every class of the test prior; there is none of {missing}"
        )
    return (test_prior / np.maximum(per_class, 1))[labels] * len(labels)


def drawn_counts(test_prior, per_class):
    """Returns the class sizes of the largest test set of a label distribution.

    Args:
        test_prior: [classes], sums to 1.
        per_class: how many images of every class there are to draw from.

    Returns:
        [classes] int64.
    """
    # What is a whole number but for rounding is that number.
    return np.floor(per_class * test_prior / test_prior.max() + 1e-6).astype(np.int64)


def draw(labels, test_prior, seed):
    """Draws a test set of a label distribution, as large as it can be, without replacement.

    Args:
        labels: [samples] integers in 0..C−1, of the set to draw from.
        test_prior: [classes], sums to 1.
        seed: non-negative integer; the draw depends on nothing else.

    Returns:
        Positions in `labels`, ascending; none where a class of positive prior has no sample.

    Raises:
        ValueError: for labels out of range, a prior that isn't one, or another seed.
    """
    test_prior = priors.check_prior(test_prior, name="test_prior")
    labels = check_class_indices("labels", labels, num_classes=len(test_prior))
    check_integer(seed, "seed", minimum=0)
    rng = np.random.default_rng(seed)
    sizes = np.bincount(labels, minlength=len(test_prior))[test_prior > 0]
    chosen = [
        rng.permutation(np.flatnonzero(labels == c))[:count]
        for c, count in enumerate(drawn_counts(test_prior, int(sizes.min())))
    ]
    return np.sort(np.concatenate(chosen))
