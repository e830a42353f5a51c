import numpy as np
import pytest

from lade_tf.checks import check_number


@pytest.mark.parametrize(
    "value", ["1", b"1", True, np.True_, np.array(True), np.array("1"), 10**400, None, [1]]
)
def test_what_only_looks_like_a_number_is_refused(value):
    with pytest.raises(ValueError, match="alpha must be a finite number; got"):
        check_number(value, "alpha")


@pytest.mark.parametrize("value", [1, 1.0, np.float16(1), np.uint8(1), np.array(1.0)])
def test_every_kind_of_number_is_taken(value):
    number = check_number(value, "alpha", minimum=0)
    assert number == 1 and type(number) is float
