import pytest
from studies import standard_error


@pytest.mark.parametrize(("size", "highest"), [((10, 100), 0.985), ((50, 2), 0.985), ((200, 1), 1)])
def test_intervals_hold_the_truth_as_often_as_they_say(size, highest):
    share = standard_error.coverage(*size, (4, 3), draws=300, seed=0)
    assert 0.92 <= share <= highest  # 0.95 ± 0.0126 of 300 draws


def test_classes_that_are_all_right_or_all_wrong_are_covered():
    assert standard_error.coverage(50, 2, (0.5, 0.5), draws=200, seed=0) >= 0.93
