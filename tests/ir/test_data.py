"""Contents of constants: packing below a byte, digests, elision."""

from __future__ import annotations

import hashlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdqc.ir.data import Data, pack, packed_size, unpack
from qdqc.ir.types import Elem

SMALL = [Elem.I4, Elem.U4, Elem.I2, Elem.U2, Elem.F4E2M1]


def test_int4_packs_low_nibble_first_as_onnx_does():
    packed = pack(np.array([1, -2, 7], ml_dtypes.int4), Elem.I4)
    assert packed.tolist() == [0xE1, 0x07]
    assert unpack(packed, Elem.I4, (3,)).tolist() == [1, -2, 7]


@given(st.sampled_from(SMALL), st.integers(0, 40), st.integers(0, 99))
def test_packing_below_a_byte_is_undone(elem: Elem, count: int, seed: int):
    codes = np.random.default_rng(seed).integers(0, 1 << elem.bits, count)
    low = elem.limits[0] if elem.is_integer else -4
    array = (codes + low).astype(np.float32).astype(elem.dtype)
    packed = pack(array, elem)
    assert packed.nbytes == packed_size(elem, count) == -(-count * elem.bits // 8)
    back = unpack(packed, elem, (count,))
    assert back.dtype == elem.dtype
    assert np.array_equal(back.astype(np.float32), array.astype(np.float32))


@pytest.mark.parametrize("elem", [e for e in Elem if e.bits >= 8])
def test_whole_bytes_are_little_endian(elem: Elem):
    array = np.arange(1, 7).astype(elem.dtype).reshape(2, 3)
    packed = pack(array, elem)
    assert packed.tobytes() == array.astype(elem.dtype.newbyteorder("<")).tobytes()
    assert np.array_equal(unpack(packed, elem, (2, 3)), array)


def test_arrays_come_out_read_only_and_in_shape():
    data = Data.of(np.arange(6, dtype=np.int32).reshape(2, 3))
    assert data.array().shape == (2, 3)
    with pytest.raises(ValueError, match="read-only"):
        data.array()[0, 0] = 1


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1)])
def test_edges_of_shape(shape: tuple[int, ...]):
    for elem in (Elem.F32, Elem.I4, Elem.BOOL, Elem.STRING):
        data = Data.of(np.zeros(shape, elem.dtype), elem)
        assert data.array().shape == shape


def test_transposed_arrays_are_taken_in_their_own_order():
    array = np.arange(6, dtype=np.int16).reshape(2, 3).T
    assert np.array_equal(Data.of(array).array(), array)


def test_digest_is_sha256_of_the_bytes():
    array = np.arange(5, dtype=np.float32)
    assert Data.of(array).digest == hashlib.sha256(array.tobytes()).hexdigest()
    assert Data.of(array + 1).digest != Data.of(array).digest


def test_a_known_digest_is_not_worked_out():
    data = Data(Elem.F32, (1,), np.zeros(4, np.uint8), "ab" * 32)
    assert (data.digest, data.nbytes, data.size) == ("ab" * 32, 4, 1)
    assert data.array().tolist() == [0]


def test_equal_data_have_one_type_shape_and_digest():
    numbers = np.arange(4, dtype=np.int8)
    data = Data.of(numbers)
    assert data == Data.of(numbers.copy())
    assert hash(data) == hash(Data.of(numbers.copy()))
    assert data != Data.of(numbers + 1)
    assert data != Data.of(numbers.reshape(2, 2))
    assert data != Data.of(numbers.astype(np.uint8))
    assert data != Data.elided(Elem.I8, (4,), data.digest)
    assert Data.of(["a"]) == Data.of(["a"])
    assert Data.of(["a"]) != Data.of(["b"])


def test_elided_data_know_their_digest_alone():
    data = Data.elided(Elem.F32, (100,), "9f2c41d0")
    assert data.is_elided
    assert data.digest == "9f2c41d0"
    with pytest.raises(ValueError, match="elided"):
        data.array()


def test_strings():
    data = Data.of(np.array([["a", "é"], ["", "b"]]))
    assert data.elem is Elem.STRING
    assert data.array().tolist() == [["a", "é"], ["", "b"]]
    assert not data.is_elided
    with pytest.raises(ValueError, match="strings"):
        data.buffer()
