"""Exact nearest neighbours among 128-byte descriptors (SIFT), for arrays of numpy: the only kernel that structure from motion needs.

Apart from ``kernels.step`` because that imports torch, which a process with pycolmap in it had better not.
"""

import ctypes
import weakref
from ctypes import POINTER, c_int32, c_int64, c_uint32, c_void_p

import numpy as np
import numpy.typing as npt

from kernels import _lib

DIM = 128

Bytes = npt.NDArray[np.uint8]
Nearest = npt.NDArray[np.int32]


class MatchArgs(_lib.Struct):
    """SplatMatchArgs."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_int32),
        ("n_a", c_int64),
        ("n_b", c_int64),
        ("a", c_void_p),
        ("b", c_void_p),
        ("nearest_a", c_void_p),
        ("nearest_b", c_void_p),
    )


class Matcher:
    """A context of the CPU library; one call at a time. Raises ``LibraryMissingError`` where the library is missing or too old."""

    def __init__(self, n_threads: int = 0, isa: str = "auto") -> None:
        self._library = _lib.load("cpu")
        try:
            self._call = self._library.splat_match
        except AttributeError as error:
            raise _lib.LibraryMissingError("the kernel library is older than this code: it cannot match. Run: make setup") from error
        self._call.argtypes = (c_void_p, POINTER(MatchArgs))
        self._context = _lib.create_context(self._library, _lib.ContextOptions(n_threads=n_threads, isa=_lib.ISAS[isa]))
        weakref.finalize(self, self._library.splat_context_destroy, self._context)

    def nearest(
        self,
        a: Bytes,  # [A, 128] uint8
        b: Bytes,  # [B, 128] uint8
    ) -> tuple[Nearest, Nearest]:
        """Return [A, 3] and [B, 3] int32: row of the other set with the largest dot product, that product, the second largest; -1 for none.

        Exact, and the same on every instruction set and number of threads; of equals the earlier row. Raises ``ValueError``.
        """
        a, b = (np.ascontiguousarray(each) for each in (a, b))
        for name, each in (("a", a), ("b", b)):
            if each.dtype != np.uint8 or each.ndim != 2 or each.shape[1] != DIM:
                raise ValueError(f"{name} is {each.dtype} {list(each.shape)}; it must be uint8 [n, {DIM}]")
        of_a, of_b = np.empty((len(a), 3), np.int32), np.empty((len(b), 3), np.int32)
        arguments = MatchArgs(
            n_a=len(a), n_b=len(b), a=a.ctypes.data, b=b.ctypes.data, nearest_a=of_a.ctypes.data, nearest_b=of_b.ctypes.data
        )
        _lib.check(self._library, self._call(self._context, ctypes.byref(arguments)))
        return of_a, of_b
