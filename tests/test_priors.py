import json

import numpy as np
import pytest

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


@pytest.mark.parametrize("ratio", [0.5, 0, -1, np.nan, np.inf, "x"])
def test_ratios_below_one_are_refused(ratio):
    with pytest.raises(ValueError, match="imbalance_ratio must be a finite number >= 1"):
        priors.exponential_counts(500, 100, ratio)
    with pytest.raises(ValueError, match="imbalance_ratio must be a finite number >= 1"):
        priors.shifted_counts(100, [3, 2], ratio, "forward")


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "isn't JSON"),
        ("[0.5, 0.5]", r"must hold \{\"prior\": \[C floats\]\}"),
        ('{"prior": [0.5, 0.6]}', "must sum to 1"),
        ('{"prior": [1.5, -0.5]}', "probabilities >= 0"),
        ('{"prior": [0.2, 0.3, 0.5]}', "must have 2 entries, one a class; got 3"),
        ('{"prior": "uniform"}', "list of numbers"),
    ],
)
def test_a_file_that_is_no_prior_is_refused(tmp_path, content, message):
    path = tmp_path / "prior.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        priors.load_prior(path, 2)


def test_a_file_that_names_its_classes_is_taken_by_name(tmp_path):
    path = tmp_path / "prior.json"
    path.write_text('{"class_names": ["bee", "ant", "cicada"], "prior": [0.2, 0.3, 0.5]}')
    loaded = priors.load_prior(path, 3, class_names=["ant", "bee", "cicada"])
    np.testing.assert_array_equal(loaded, [0.3, 0.2, 0.5])
    np.testing.assert_array_equal(priors.load_prior(path, 3), [0.2, 0.3, 0.5])
    path.write_text('{"prior": [0.2, 0.3, 0.5]}')
    loaded = priors.load_prior(path, 3, class_names=["ant", "bee", "cicada"])
    np.testing.assert_array_equal(loaded, [0.2, 0.3, 0.5])


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["ant", "bee"], "must be 3 different strings, one for each entry"),
        (["ant", "bee", "bee"], "must be 3 different strings"),
        ([1, 2, 3], "must be 3 different strings"),
        ("ant", "must be 3 different strings"),
        (["ant", "bee", "zebra"], "'cicada' is a class of the model alone"),
        (["ant", "beetle", "cicada"], "'bee' is a class of the model alone"),
        (["aardvark", "bee", "cicada"], "'aardvark' is a class of that file alone"),
    ],
)
def test_a_prior_of_other_classes_is_refused(tmp_path, there, message):
    path = tmp_path / "prior.json"
    path.write_text(json.dumps({"class_names": there, "prior": [0.2, 0.3, 0.5]}))
    with pytest.raises(ValueError, match=message):
        priors.load_prior(path, 3, class_names=["ant", "bee", "cicada"])


def test_load_prior_reads_a_prior_and_names_a_missing_file(tmp_path):
    path = tmp_path / "prior.json"
    path.write_text(json.dumps({"prior": [0.25, 0.75]}))
    np.testing.assert_array_equal(priors.load_prior(path, 2), [0.25, 0.75])
    with pytest.raises(ValueError, match="missing.json can't be read: No such file"):
        priors.load_prior(tmp_path / "missing.json")
