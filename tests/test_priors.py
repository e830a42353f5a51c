import decimal
import fractions
import json

import numpy as np
import pytest
import tensorflow as tf

from lade_tf import priors


def test_class_prior_is_the_share_of_each_class():
    np.testing.assert_allclose(priors.class_prior([6, 3, 1]), [0.6, 0.3, 0.1])


def test_smooth_adds_one_to_every_count():
    np.testing.assert_allclose(priors.class_prior([7, 0, 1], "smooth"), [8 / 11, 1 / 11, 2 / 11])


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([5, -1], r"numbers >= 0; got -1 at class 1"),
        ([5, np.nan], r"finite numbers; got nan at class 1"),
        ([5, 0, 0], r'numbers > 0 \(zero_count="smooth".*got 0 at class 1 \(2 such entries\)'),
        ([[5, 1]], r"shape \[classes\]; got shape \[1, 2\]"),
        ([5], "at least 2 classes; got 1"),
        (["a", "b"], "list of numbers"),
    ],
)
def test_bad_counts_are_refused(counts, message):
    with pytest.raises(ValueError, match=f"counts must.*{message}"):
        priors.class_prior(counts)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (["900", "90", "10"], "got text"),
        ([900, "90", 10], "got text"),
        ([b"900", b"90"], "got text"),
        (np.array(["900", 90], object), "got text"),
        ([True, False], "got booleans"),
        ([900, True], "got booleans"),
        (np.array([True, True]), "got booleans"),
        (np.array([900, np.True_], object), "got booleans"),
        (np.array([2j, 1]), "got complex numbers"),
        (np.array([3, 4], "m8[D]"), "got dates"),
        (np.ma.masked_array([30, 3000, 300], [0, 0, 1]), "some are masked"),
        ([10**400, 1], "too large"),
        ({900, 90}, "list of numbers"),
        ({0: 900}.values(), "list of numbers"),
    ],
)
def test_what_only_looks_like_numbers_is_refused(counts, message):
    with pytest.raises(ValueError, match=f"class_counts must.*{message}"):
        priors.class_prior(counts)
    with pytest.raises(ValueError, match=f"prior must.*{message}"):
        priors.check_prior(counts)


@pytest.mark.parametrize(
    "counts",
    [
        (6, 3, 1),
        np.array([6, 3, 1], np.uint8),
        [np.float32(6), fractions.Fraction(3), decimal.Decimal(1)],
        tf.constant([6, 3, 1], tf.bfloat16),
        tf.constant([6, 3, 1], tf.bfloat16).numpy(),
        np.ma.masked_array([6, 3, 1], [0, 0, 0]),
    ],
)
def test_every_kind_of_number_is_taken(counts):
    np.testing.assert_allclose(priors.class_prior(counts), [0.6, 0.3, 0.1])


@pytest.mark.parametrize("shares", [[0.9, 0.1, 0], [90, 9.5, 0.5], [0.5, 0.5, 1e-9]])
def test_shares_are_no_counts_where_their_size_matters(shares):
    for wrong in ({"zero_count": "smooth"}, {"whole": True, "allow_zero": True}):
        with pytest.raises(ValueError, match="whole numbers .counts, not shares.; got"):
            priors.check_counts(shares, **wrong)
    priors.check_counts(shares, allow_zero=True)
    np.testing.assert_array_equal(priors.check_counts([9.0, 0, 1], "smooth"), [10, 1, 2])


def test_unknown_zero_count_is_refused():
    with pytest.raises(ValueError, match="zero_count must be one of 'error', 'smooth'; got 'drop'"):
        priors.class_prior([1, 2], zero_count="drop")


@pytest.mark.parametrize(("ratio", "size"), [(100, 10_847), (50, 12_608), (10, 19_573)])
def test_exponential_counts_are_cifar_100_lt(ratio, size):
    counts = priors.exponential_counts(500, 100, ratio)
    assert counts[0] == 500 and counts[-1] == 500 // ratio and counts.sum() == size


@pytest.mark.parametrize("ratio", [49, 98, 103, 161])
def test_a_quotient_that_is_a_whole_number_stays_one(ratio):
    assert priors.exponential_counts(ratio, 10, ratio)[-1] == 1
    assert priors.exponential_counts(7 * ratio, 10, ratio)[-1] == 7


@pytest.mark.parametrize(("ratio", "groups"), [(100, (35, 35)), (50, (41, 41)), (10, (69, 31))])
def test_exponential_counts_give_the_published_groups(ratio, groups):
    counts = priors.exponential_counts(500, 100, ratio)
    many, few = (counts > 100).sum(), (counts < 20).sum()
    assert (many, 100 - many - few) == groups


SIZES = {
    ("notebook", 100): [2486, 2956, 3876, 4932, 7166],
    ("notebook", 50): [12058, 14437, 19059, 24365, 35574],
    ("paper", 100): [2506, 2980, 3903, 4959, 7189],
    ("paper", 50): [12072, 14452, 19066, 24380, 35581],
}


@pytest.mark.parametrize("direction", priors.DIRECTIONS)
@pytest.mark.parametrize(("reading", "per_class"), SIZES)
def test_shifted_counts_have_the_known_sizes(reading, per_class, direction):
    train = np.arange(2000, 1000, -1) if per_class == 50 else np.arange(200, 100, -1)
    sizes = [
        priors.shifted_counts(per_class, train, ratio, direction, reading).sum()
        for ratio in (50, 25, 10, 5, 2)
    ]
    assert sizes == SIZES[reading, per_class]


def test_shifted_counts_follow_the_ranks_of_the_training_counts():
    train = [5, 90, 5, 40]  # ranks 2, 0, 3, 1: ties keep class order
    assert priors.shifted_counts(100, train, 8, "forward").tolist() == [25, 100, 12, 50]
    assert priors.shifted_counts(100, train, 8, "backward").tolist() == [50, 12, 100, 25]


@pytest.mark.parametrize("direction", priors.DIRECTIONS)
def test_a_shifted_prior_is_the_profile_before_it_is_rounded(direction):
    train = np.random.default_rng(0).permutation(np.arange(1, 22))
    for ratio in (1, 2, 7.5, 1e6):
        prior = priors.shifted_prior(train, ratio, direction)
        assert prior.sum() == pytest.approx(1) and prior.max() / prior.min() == pytest.approx(ratio)
        head = prior if direction == "forward" else 1 / prior
        np.testing.assert_allclose(np.diff(np.log(head[np.argsort(-train)])), -np.log(ratio) / 20)
    for reading in priors.READINGS:  # 2**53 images of every class are next to real numbers
        counts = priors.shifted_counts(2**53, train, 7.5, direction, reading)
        expected = priors.shifted_prior(train, 7.5, direction, reading)
        np.testing.assert_allclose(counts / counts.sum(), expected, rtol=1e-14)


@pytest.mark.parametrize("ratio", [0.5, 0, -1, np.nan, np.inf, "x"])
def test_ratios_below_one_are_refused(ratio):
    with pytest.raises(ValueError, match="imbalance_ratio must be a finite number >= 1"):
        priors.exponential_counts(500, 100, ratio)
    with pytest.raises(ValueError, match="imbalance_ratio must be a finite number >= 1"):
        priors.shifted_counts(100, [3, 2], ratio, "forward")
    with pytest.raises(ValueError, match="imbalance_ratio must be a finite number >= 1"):
        priors.shifted_prior([3, 2], ratio, "forward")


@pytest.mark.parametrize("count", [2**53 + 1, 2**63, 10**30, 10**400])
def test_counts_that_a_float_cannot_hold_are_refused(count):
    with pytest.raises(ValueError, match="max_count must be at most"):
        priors.exponential_counts(count, 5, 10)
    with pytest.raises(ValueError, match="per_class must be at most"):
        priors.shifted_counts(count, [3, 2], 2, "forward")
    assert priors.exponential_counts(2**53, 3, 4).tolist() == [2**53, 2**52, 2**51]


def test_unknown_direction_and_reading_are_refused():
    with pytest.raises(ValueError, match="direction must be one of 'forward', 'backward'"):
        priors.shifted_counts(100, [3, 2], 2, "sideways")
    with pytest.raises(ValueError, match="reading must be one of 'notebook', 'paper'"):
        priors.shifted_counts(100, [3, 2], 2, "forward", reading="mine")


def test_a_prior_close_to_one_is_renormalised():
    checked = priors.check_prior([0.5, 0.4995])
    assert checked.sum() == pytest.approx(1, abs=1e-15)
    with pytest.raises(ValueError, match="must sum to 1 .*its sum is 0.998"):
        priors.check_prior([0.5, 0.498])


def test_zeros_are_for_target_priors_only():
    np.testing.assert_array_equal(priors.check_prior([1.0, 0.0]), [1, 0])
    with pytest.raises(ValueError, match="probabilities > 0; got 0 at class 1"):
        priors.check_prior([1.0, 0.0], allow_zero=False)


NAMES = ["ant", "bee", "cicada"]


@pytest.fixture
def prior_file(tmp_path):
    """Returns the path of a file that holds what it is called with, text or JSON."""

    def write(content):
        path = tmp_path / "prior.json"
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "isn't JSON"),
        (b'{"prior": [0.5, \xff]}', "isn't UTF-8"),
        ([0.5, 0.5], r"must hold \{\"prior\": \[C floats\]\}"),
        ({}, r"must hold \{\"prior\": \[C floats\]\}"),
        ({"prior": [0.5, 0.6]}, "must sum to 1"),
        ({"prior": [1.5, -0.5]}, "probabilities >= 0"),
        ({"prior": [0.2, 0.3, 0.5]}, "must have 2 entries, one a class; got 3"),
        ({"prior": "uniform"}, "list of numbers.*got text"),
        ({"prior": ["0.5", "0.5"]}, "list of numbers.*got text"),
        ({"prior": [True, False]}, "list of numbers.*got booleans"),
        ({"prior": [0.5, None]}, "list of numbers|finite numbers"),
        ({"prior": [30, 3000]}, r"sum is 3030: these look like counts.*\"counts\""),
        ({"prior": [0.5, 0.495]}, r"sum is 0.995: rounded shares need more digits.*\"counts\""),
        ({"prior": [0.5, 0.5], "classes": ["b", "a"]}, "no other keys.*'classes'"),
        ({"prior": [0.5, 0.5], "counts": [1, 1]}, "a prior or counts; it holds both"),
        ({"prior": {"a": 0.5, "b": 0.5}}, "'a' is no class; the classes' names aren't known"),
        ({"a": 0.5, "b": 0.5}, "must hold .* with known names"),
        ({"0": 0.9, "1": 0.1}, "must hold .* with known names"),
        ({"prior": [0.5, 0.5], "rest": "training"}, "must label its classes where rest is"),
        *(
            ({"prior": [0.5, 0.5], "rest": rest}, 'rest in .*json must be "training"; got')
            for rest in ("uniform", False, True, 0, "", [])
        ),
        ({"rest": "training"}, "must give at least one class a share beside rest"),
        ({"counts": [0, 0]}, "the counts in .* must not all be 0"),
        ({"counts": [1, -1]}, "the counts in .* must hold numbers >= 0"),
        ({"counts": [1, 1, 1]}, "the counts in .* must hold 2 classes; got 3"),
        ({"counts": [1, 1], "rest": "training"}, "the counts in .* must be of all classes"),
        (b'{"prior": [0.5, 0.5], "prior": [0.1, 0.9]}', "every key once; got 'prior' twice"),
        (b'{"prior": [1' + b"0" * 400 + b", 0.5]}", "finite numbers; got inf"),
        (b'{"prior": [1' + b"0" * 5000 + b", 0.5]}", "finite numbers; got inf"),
        (b'{"prior": [1e400, 0.5]}', "finite numbers; got inf"),
        (b'{"prior": [NaN, 0.5]}', "finite numbers; got nan"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"prior": ' + b"[" * 90 + b"1" + b"]" * 90 + b"}", "must"),
    ],
)
def test_a_file_that_is_no_prior_is_refused_in_one_line(prior_file, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        priors.load_prior(prior_file(content), 2)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_file_of_more_than_64_megabytes_is_refused(tmp_path):
    path = tmp_path / "prior.json"
    with open(path, "wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ValueError, match="must hold at most 64 MB"):
        priors.load_prior(path)


@pytest.mark.parametrize(
    "content",
    [
        {"class_names": ["bee", "cicada", "ant"], "prior": [0.3, 0.5, 0.2]},
        {"prior": {"bee": 0.3, "cicada": 0.5, "ant": 0.2}},
        {"bee": 0.3, "cicada": 0.5, "ant": 0.2},
        {"class_names": ["bee", "cicada", "ant"], "counts": [3, 5, 2]},
        {"counts": {"bee": 3, "cicada": 5, "ant": 2}},
        {"class_names": None, "prior": [0.2, 0.3, 0.5]},
        {"counts": [2, 3, 5], "class_counts": [9, 9, 9]},
        b'\xef\xbb\xbf{"prior": [0.2, 0.3, 0.5], "method": "em"}',
    ],
)
def test_a_file_is_read_by_the_names_that_it_has(prior_file, content):
    # An order of three that isn't its own inverse: bee, cicada, ant.
    loaded = priors.load_prior(prior_file(content), 3, class_names=NAMES)
    np.testing.assert_allclose(loaded, [0.2, 0.3, 0.5], rtol=1e-15)


def test_without_known_names_a_list_is_taken_as_it_is(prior_file):
    path = prior_file({"class_names": ["bee", "cicada", "ant"], "prior": [0.2, 0.3, 0.5]})
    np.testing.assert_array_equal(priors.load_prior(path, 3), [0.2, 0.3, 0.5])


def test_a_zero_count_in_a_file_is_a_zero_of_the_prior(prior_file):
    np.testing.assert_array_equal(
        priors.load_prior(prior_file({"counts": [1, 0, 3]})), [0.25, 0, 0.75]
    )


@pytest.mark.parametrize(
    "names",
    [["ant", "bee"], ["ant", "bee", "bee"], [1, 2, 3], "ant", {"ant": 0}, ["ant", "bee", None]],
)
def test_names_in_a_file_must_be_one_for_each_entry(prior_file, names):
    path = prior_file({"class_names": names, "prior": [0.2, 0.3, 0.5]})
    for known in (NAMES, None):
        with pytest.raises(ValueError, match="must be different strings, one for each entry"):
            priors.load_prior(path, 3, class_names=known)


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["ant", "bee", "zebra"], "'zebra' is no class"),
        (["ant", "bee"], "'cicada' has no entry"),
        (["ant"], r"'bee' has no entry \(2 such classes\)"),
        (["ant", "bee", "cicada", "dragonfly"], "'dragonfly' is no class"),
        (["ant", "bee", "2"], "'2' is no class"),
    ],
)
@pytest.mark.parametrize("form", ["names", "prior", "bare"])
def test_a_prior_of_other_classes_is_refused(prior_file, there, message, form):
    shares = [1 / len(there)] * len(there)
    by_name = dict(zip(there, shares, strict=True))
    content = {
        "names": {"class_names": there, "prior": shares},
        "prior": {"prior": by_name},
        "bare": by_name,
    }[form]
    with pytest.raises(ValueError, match=message):
        priors.load_prior(prior_file(content), 3, class_names=NAMES)


def test_the_fixed_keys_win_over_classes_of_that_name(prior_file):
    with pytest.raises(ValueError, match="no other keys.*'bee'"):
        priors.load_prior(prior_file({"prior": 0.5, "bee": 0.5}), 2, class_names=["prior", "bee"])


@pytest.mark.parametrize("how", ["argument", "key", "bare", "list"])
def test_the_rest_is_spread_as_in_training(prior_file, how):
    content = {
        "argument": {"prior": {"bee": 0.4}},
        "key": {"prior": {"bee": 0.4}, "rest": "training"},
        "bare": {"bee": 0.4, "rest": "training"},
        "list": {"class_names": ["bee"], "prior": [0.4], "rest": "training"},
    }[how]
    rest = "training" if how == "argument" else None
    path, training = prior_file(content), [0.6, 0.3, 0.1]
    loaded = priors.load_prior(path, 3, NAMES, rest, training)
    np.testing.assert_allclose(loaded, [0.6 * 6 / 7, 0.4, 0.6 / 7], rtol=1e-14)
    with pytest.raises(ValueError, match="training_prior must be given"):
        priors.load_prior(path, 3, NAMES, rest="training")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"cicada": 0.1, "ant": 0.2, "bee": 0.7}, [0.2, 0.7, 0.1]),
        ({2: 0.5}, [1 / 3, 1 / 6, 0.5]),
        ({"ant": 0.1, "bee": 0.2, "cicada": 0.7}, [0.1, 0.2, 0.7]),
        ({"ant": 0.1 + 0.2, "cicada": 0.7}, [0.3, 0, 0.7]),
        ({}, [0.6, 0.3, 0.1]),
    ],
)
def test_as_prior_spreads_no_more_than_what_is_left(values, expected):
    prior = priors.as_prior(values, 3, NAMES, "training", [0.6, 0.3, 0.1])
    np.testing.assert_allclose(prior, expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ant": 0.9, "bee": 0.2}, "prior must sum to 1 .*its sum is 1.1"),
        ({"ant": 1.5, "bee": -0.7}, "probabilities >= 0; got -0.7 at class 1"),
        ({"ant": 0.9, "bug": 0.05}, "'bug' is no class"),
        ({"ant": float("nan")}, "finite numbers"),
        ({"ant": "0.5"}, "got text"),
        ([0.2, 0.3, 0.5], "must label its classes"),
    ],
)
def test_a_rest_of_nonsense_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        priors.as_prior(values, 3, NAMES, "training", [0.6, 0.3, 0.1])


def test_as_prior_takes_lists_and_numbers_of_classes():
    np.testing.assert_array_equal(priors.as_prior([0.2, 0.8]), [0.2, 0.8])
    np.testing.assert_array_equal(priors.as_prior([0.2, 0.8], class_names=["a", "b"]), [0.2, 0.8])
    by_number = {1: 0.7, 2: 0.1, 0: 0.2}
    for known in (None, NAMES):
        np.testing.assert_array_equal(priors.as_prior(by_number, None, known), [0.2, 0.7, 0.1])
    for wrong in (
        {"num_classes": 2},
        {"num_classes": 2, "class_names": NAMES},
        {"class_names": "abc"},
    ):
        with pytest.raises(ValueError, match="must"):
            priors.as_prior([0.2, 0.3, 0.5], **wrong)


def test_load_prior_reads_a_prior_and_names_a_missing_file(tmp_path):
    path = tmp_path / "prior.json"
    path.write_text(json.dumps({"prior": [0.25, 0.75]}))
    np.testing.assert_array_equal(priors.load_prior(path, 2), [0.25, 0.75])
    with pytest.raises(ValueError, match="missing.json can't be read: No such file"):
        priors.load_prior(tmp_path / "missing.json")


def test_counts_whose_sum_is_no_number_are_refused():
    with pytest.raises(ValueError, match="class_counts must have a finite sum"):
        priors.class_prior([1e308] * 3)


@pytest.mark.parametrize("shares", [[0.33, 0.33, 0.33], [0.34, 0.34, 0.33]])
def test_rounded_shares_are_told_how_to_be_written(shares):
    with pytest.raises(ValueError, match="rounded shares need more digits"):
        priors.check_prior(shares)
