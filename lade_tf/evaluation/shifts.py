"""Label distributions to test under, and test sets that have them.

One test set stands for all others, whatever its own label distribution: a test prior weights its
classes, which gives the exact expectation over all test sets of that label distribution, or one
such set is drawn from it.
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
# What is measured without names: the test set as it is, then these.
STANDARD_PRIORS = ("test", *SHIFTS)
FEWEST_TESTED = 5  # images of a class; the accuracy on fewer says next to nothing
SHOWN = 20  # classes that a remark names
PRIOR_NAMES = (
    "uniform, train, test, forward:RATIO, backward:RATIO, dirichlet:CONCENTRATION:SEED or the path "
    'of a .json file that holds {"prior": [a share for each class]} or {class name: share}'
)


def check_prior_name(name):
    """Raises a ValueError unless `name` is one that `named_prior` understands."""
    kind, *values = name.split(":")
    if kind in priors.DIRECTIONS and len(values) == 1 and values[0]:
        check_number(_number(values[0]), f"the ratio in {name!r}", minimum=1)
    elif kind == "dirichlet" and len(values) == 2:
        check_number(_number(values[0]), f"the concentration in {name!r}", above=0)
        seed = int(values[1]) if values[1].isdecimal() else values[1]
        check_integer(seed, f"the seed in {name!r}", minimum=0)
    elif name not in ("uniform", "train", "test") and not name.endswith(".json"):
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
        name: "uniform"; "train", that of the training set; "test", that of the test set as it is;
            "forward:R" or "backward:R" (section 4.3 of the LADE paper, R the imbalance ratio);
            "dirichlet:A:SEED" (one draw, all concentrations A); or the path of a prior file
            (`lade_tf.priors.load_prior`), whose "rest" is spread as in training.
        class_counts: [classes] training images of every class.
        per_class: test images, [classes] or one number for all. Where it is the same for all and R
            divides it, a shift is that of the published sets, which are made of whole images
            (`lade_tf.priors.shifted_counts`); else it is the same formula in real numbers
            (`lade_tf.priors.shifted_prior`), and R may be any.
        reading: of section 4.3's formula, "notebook" or "paper" (`lade_tf.priors.shifted_counts`).
        class_names: [classes], for a file that names its classes, or None.

    Returns:
        [classes] float64, sums to 1.

    Raises:
        ValueError: if `name` stands for nothing, or `per_class` isn't counts of these classes.
    """
    check_prior_name(name)
    num_classes = len(class_counts)
    per_class = _check_per_class(per_class, num_classes)
    if name == "test":
        return per_class / per_class.sum()
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
    size, ratio = int(per_class[0]), float(value)
    if np.any(per_class != size) or size % ratio:
        return priors.shifted_prior(class_counts, ratio, kind, reading)
    counts = priors.shifted_counts(size, class_counts, ratio, kind, reading)
    return counts / counts.sum()


def _check_per_class(per_class, num_classes):
    """Returns test images, [classes] or one number for all, as [classes]; not all are 0."""
    if np.ndim(per_class) == 0:
        return np.full(num_classes, check_integer(per_class, "per_class", minimum=1))
    counts = priors.check_counts(
        per_class, name="per_class", allow_zero=True, whole=True, num_classes=num_classes
    )
    if not counts.any():
        raise ValueError("per_class must hold a test image; all are 0")
    return counts


def remarks(per_class, class_names=None):
    """Returns what is to be said of a test set beside any number that is measured on it.

    Args:
        per_class: [classes] test images of every class.
        class_names: [classes] strings, or None for the classes' numbers.

    Returns:
        A list of sentences: which classes have no test image and are left out, and which have so
        few that their accuracy says little. Each names at most 20 classes.
    """
    per_class = np.asarray(per_class)
    names = [str(c) for c in (range(len(per_class)) if class_names is None else class_names)]
    untested = [names[c] for c in np.flatnonzero(per_class == 0)]
    scarce = np.flatnonzero((per_class > 0) & (per_class < FEWEST_TESTED))
    scarce = [f"{names[c]} ({per_class[c]})" for c in scarce]
    left_out = "without a test image, left out of every label distribution"
    little = f"with fewer than {FEWEST_TESTED} test images, whose accuracies say little"
    kinds = ((untested, left_out), (scarce, little))
    return [_listed(found, what) for found, what in kinds if found]


def _listed(names, what):
    number = f"{len(names):,} class" + ("es" if len(names) > 1 else "")
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{number} {what}: {', '.join(names[:SHOWN])}{more}"


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
        per_class: images there are to draw from, [classes] or one number for all.

    Returns:
        [classes] int64: floor(min_c(n_c / p_c) · p), the smallest where p_c > 0.
    """
    per_class = np.broadcast_to(per_class, np.shape(test_prior))
    wanted = test_prior > 0
    size = np.min(per_class[wanted] / test_prior[wanted])
    # What is a whole number but for rounding is that number.
    return np.floor(size * test_prior + 1e-6).astype(np.int64)


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
    sizes = drawn_counts(test_prior, np.bincount(labels, minlength=len(test_prior)))
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:count] for c, count in enumerate(sizes)]
    return np.sort(np.concatenate(chosen))
