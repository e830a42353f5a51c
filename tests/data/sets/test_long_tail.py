import numpy as np
import pytest

from lade_tf.data.sets.long_tail import long_tailed_counts, long_tailed_subset

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 50))
COUNTS = [50, 20, 7, 0]


def test_counts_and_order():
    subset = long_tailed_subset(LABELS, COUNTS, data_seed=0)
    np.testing.assert_array_equal(np.bincount(LABELS[subset], minlength=4), COUNTS)
    assert (np.diff(subset) > 0).all()


def test_the_data_seed_alone_decides():
    subset = long_tailed_subset(LABELS, COUNTS, data_seed=1)
    np.testing.assert_array_equal(long_tailed_subset(LABELS, COUNTS, data_seed=1), subset)
    assert set(long_tailed_subset(LABELS, COUNTS, data_seed=2)) != set(subset)


def test_a_smaller_subset_lies_in_a_larger_one():
    large = long_tailed_subset(LABELS, [50, 40, 30, 20], data_seed=3)
    small = long_tailed_subset(LABELS, [50, 20, 10, 5], data_seed=3)
    assert set(small) < set(large)


def test_the_choice_is_random_within_a_class():
    subset = long_tailed_subset(LABELS, [25] * 4, data_seed=0)
    for class_index in range(4):
        members = np.flatnonzero(class_index == LABELS)
        assert set(subset) & set(members) != set(members[:25])


@pytest.mark.parametrize("count", [51, -1])
def test_too_few_images_name_the_class(count):
    with pytest.raises(ValueError, match=f"0 to 50 images of class 2, .*got {count}"):
        long_tailed_subset(LABELS, [1, 1, count, 1], data_seed=0)


@pytest.mark.parametrize("data_seed", [None, -1, 0.5])
def test_a_data_seed_that_is_none(data_seed):
    with pytest.raises(ValueError, match="data_seed must be a non-negative integer"):
        long_tailed_subset(LABELS, COUNTS, data_seed)


def test_a_ratio_that_leaves_a_class_without_images_is_refused():
    assert long_tailed_counts(120, 10, 120).min() == 1
    with pytest.raises(ValueError, match="imbalance_ratio must be at most 120, .* got 121"):
        long_tailed_counts(120, 10, 121)
