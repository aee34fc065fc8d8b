"""Pickles of arrays, numbers and texts by name, as CIFAR-10's files are, and as anyone may have written them.

Python's own reader, even where it is kept from calling anything, can be made to take all memory or for ever by some
hundred bytes: by numbering a place in its memory, by tuples of tuples that have to be hashed, by texts that are encoded
again and again. So only the operations are known here that such files need, and an array is made of bytes that are
there.
"""

import io
import pickle
import re
from typing import Any

import numpy as np

_NUMBERS = re.compile(r"[<>|=]?(b1|[iuf][1248])")
# Of Python's operations those that put no code, sets, objects or memory beyond the file's on the stack.
_OPERATIONS = (
    pickle.PROTO + pickle.FRAME + pickle.STOP + pickle.MARK + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE
    + pickle.INT + pickle.LONG + pickle.LONG1 + pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.FLOAT
    + pickle.BINFLOAT + pickle.STRING + pickle.BINSTRING + pickle.SHORT_BINSTRING + pickle.UNICODE + pickle.BINUNICODE
    + pickle.SHORT_BINUNICODE + pickle.BINBYTES + pickle.SHORT_BINBYTES + pickle.BINBYTES8 + pickle.BINUNICODE8
    + pickle.EMPTY_LIST + pickle.LIST + pickle.APPEND + pickle.APPENDS + pickle.EMPTY_TUPLE + pickle.TUPLE
    + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3 + pickle.EMPTY_DICT + pickle.DICT + pickle.SETITEM
    + pickle.SETITEMS + pickle.PUT + pickle.BINPUT + pickle.LONG_BINPUT + pickle.MEMOIZE + pickle.GET + pickle.BINGET
    + pickle.LONG_BINGET + pickle.GLOBAL + pickle.STACK_GLOBAL + pickle.REDUCE + pickle.BUILD
)  # fmt: skip


def read_named_values(content: bytes) -> dict[Any, Any]:
    """The dictionary that a pickle holds: texts or bytes -> arrays of numbers, numbers, texts, lists of those.

    Strings of Python 2 become bytes.

    Raises:
        Exception: of any kind: it is damaged, or holds something else.
    """
    values = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(values, dict):
        raise pickle.UnpicklingError("holds no values by name")
    return {name: value.values if isinstance(value, _Array) else value for name, value in values.items()}


class _Type:
    """Stands for a `numpy.dtype`."""

    def __init__(self, name: Any, *_: Any):
        name = name.decode() if isinstance(name, bytes) else name
        if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
            raise pickle.UnpicklingError("an array of something else than numbers")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        order: Any = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for a `numpy.ndarray`."""

    def __init__(self, *_: Any):
        self.values = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        *_, shape, kind, by_columns, content = state
        self.values = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if by_columns else "C")


def _number(kind: _Type, content: bytes) -> Any:
    """`numpy._core.multiarray.scalar`."""
    (value,) = np.frombuffer(content, kind.dtype)
    return value


def _encode(text: str, encoding: Any) -> bytes:
    """`_codecs.encode`, as bytes are written for Python 2."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("bytes that are encoded")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
}
for _package in ("numpy.core", "numpy._core"):
    _KNOWN |= {(f"{_package}.multiarray", "_reconstruct"): _Array, (f"{_package}.multiarray", "scalar"): _number}


_PythonsReader: Any = pickle._Unpickler


class _Unpickler(_PythonsReader):
    """Python's reader in Python: that in C has a table for what it numbers, as long as the largest number."""

    dispatch = {key: read for key, read in _PythonsReader.dispatch.items() if key in _OPERATIONS}  # noqa: RUF012

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"names {module}.{name}, which CIFAR-10 does not hold")
        return _KNOWN[module, name]

    def _load_items(self) -> None:
        self._put(self.pop_mark())

    def _load_item(self) -> None:
        value, name = self.stack.pop(), self.stack.pop()
        self._put([name, value])

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._put(items)

    def _put(self, items: list[Any]) -> None:
        if not all(isinstance(name, str | bytes | int) for name in items[::2]):
            raise pickle.UnpicklingError("a name that is no text")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    dispatch[pickle.SETITEMS[0]] = _load_items
    dispatch[pickle.SETITEM[0]] = _load_item
    dispatch[pickle.DICT[0]] = _load_dict
