import numpy as np
import pytest
import scipy.optimize

from lade_tf.label_shift import project_to_simplex


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
        ([0.6, 0.6], [0.5, 0.5]),
        ([1.5, -0.5], [1.0, 0.0]),
        ([0.9, 0.4, -0.3], [0.75, 0.25, 0.0]),
        ([7.0], [1.0]),
    ],
)
def test_projection_by_hand(values, expected):
    np.testing.assert_allclose(project_to_simplex(values), expected, atol=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_projection_is_the_nearest_distribution(seed):
    values = np.random.default_rng(seed).normal(size=6)
    nearest = scipy.optimize.minimize(
        lambda q: ((q - values) ** 2).sum(),
        np.full(6, 1 / 6),
        bounds=[(0, 1)] * 6,
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
        options={"ftol": 1e-14},
    ).x
    np.testing.assert_allclose(project_to_simplex(values), nearest, atol=1e-6)


@pytest.mark.parametrize("values", [[[0.5, 0.5]], [], [np.nan, 1.0]])
def test_bad_values_are_refused(values):
    with pytest.raises(ValueError, match="values must be a vector of at least one finite number"):
        project_to_simplex(values)
