"""The reader of pickles of arrays against Python's own; what it refuses is in tests/fuzz/test_bombs.py."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backbones.data.pickles import read_named_values

numbers = st.sampled_from(["u1", "<i8", ">i4", "f4", ">f8", "?"])
contents = st.one_of(
    numbers.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes())),
    numbers.flatmap(lambda kind: arrays.arrays(kind, ())).map(lambda array: array[()]),
    st.lists(st.integers(-(10**20), 10**20) | st.binary(min_size=1) | st.text() | st.booleans() | st.none()),
    st.binary(min_size=1),
    st.text(),
)


@settings(deadline=None, max_examples=60)
@given(
    values=st.dictionaries(st.text() | st.binary(min_size=1), contents, max_size=4),
    protocol=st.integers(0, 4),
    by_columns=st.booleans(),
)
def test_it_reads_what_python_reads(values: dict[Any, Any], protocol: int, by_columns: bool) -> None:
    if by_columns:
        values = {k: np.asfortranarray(v) if isinstance(v, np.ndarray) and v.ndim else v for k, v in values.items()}
    content = pickle.dumps(values, protocol=protocol)
    expected = pickle.loads(content, encoding="bytes")
    found = read_named_values(content)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert type(found[name]) is type(value)
        if isinstance(value, np.ndarray):
            assert (found[name].shape, found[name].dtype.str[1:]) == (
                value.shape,
                value.dtype.str[1:],
            )  # in any order of bytes
            np.testing.assert_array_equal(found[name], value)
        else:
            assert found[name] == value or value != value


@pytest.mark.parametrize(
    "value", [[1], np.zeros(2), {1.5: 2}, {"a": {1, 2}}, {"a": np.array([None])}, {"a": 1j}, {"a": range(2)}]
)
def test_it_refuses_what_cifar_does_not_hold(value: Any) -> None:
    with pytest.raises((pickle.UnpicklingError, KeyError)):
        read_named_values(pickle.dumps(value, protocol=2))
