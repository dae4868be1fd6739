# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Range coder of RFC 6716 and the Laplace code of DRED."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from cpython.bytes cimport PyBytes_FromStringAndSize

import numpy as np


cdef extern from "rangecoder_core.h" nogil:
    ctypedef struct range_encoder:
        uint8_t *bytes
        uint32_t size
        int failed
    ctypedef struct range_decoder:
        int failed
    void range_encoder_init(range_encoder *coder, uint8_t *bytes, uint32_t size)
    void range_encode(range_encoder *coder, uint32_t low, uint32_t high, uint32_t total)
    void range_encode_icdf(range_encoder *coder, uint32_t symbol, const uint16_t *icdf,
                           uint32_t bits)
    void range_encode_uint(range_encoder *coder, uint32_t value, uint32_t total)
    void range_encode_bits(range_encoder *coder, uint32_t value, uint32_t bits)
    uint32_t range_encoder_tell(const range_encoder *coder)
    int range_encoder_finish(range_encoder *coder, uint32_t size)
    void range_decoder_init(range_decoder *coder, const uint8_t *bytes, uint32_t size)
    uint32_t range_decode(range_decoder *coder, uint32_t total)
    void range_decoder_update(range_decoder *coder, uint32_t low, uint32_t high, uint32_t total)
    uint32_t range_decode_icdf(range_decoder *coder, const uint16_t *icdf, uint32_t bits)
    uint32_t range_decode_uint(range_decoder *coder, uint32_t total)
    uint32_t range_decode_bits(range_decoder *coder, uint32_t bits)
    uint32_t range_decoder_tell(const range_decoder *coder)


cdef extern from "rangecoder_laplace.h" nogil:
    enum:
        LAPLACE_LIMIT
    void laplace_encode(range_encoder *coder, int32_t value, uint8_t p0, uint8_t r)
    int32_t laplace_decode(range_decoder *coder, uint8_t p0, uint8_t r)


LIMIT = LAPLACE_LIMIT

cdef enum:
    CAPACITY = 8192
    TOTAL = 65536
    ICDF = 256


cdef int read_icdf(object icdf, uint16_t *table, uint32_t bits) except -1:
    """Copy and check an inverse cumulative table; returns its length."""
    cdef int n = len(icdf), i
    cdef long value, before = 1L << bits
    if not 0 < bits <= 15:
        raise ValueError(f"icdf precision {bits}, not 1 to 15 bits")
    if not 0 < n <= ICDF:
        raise ValueError(f"icdf with {n} entries, not 1 to {ICDF}")
    for i in range(n):
        value = icdf[i]
        if value < 0 or value > before:
            raise ValueError("icdf must fall from at most 2**bits to 0")
        table[i] = <uint16_t>value
        before = value
    if before != 0:
        raise ValueError("icdf must end with 0")
    return n


cdef int check_laplace(const uint8_t[::1] p0, const uint8_t[::1] r, Py_ssize_t n) except -1:
    cdef Py_ssize_t i
    if p0.shape[0] != n or r.shape[0] != n:
        raise ValueError(f"{n} values with {p0.shape[0]} p0 and {r.shape[0]} r")
    for i in range(n):
        if p0[i] == 0:
            raise ValueError("p0 of 0 leaves no room for the value 0")
    return 0


cdef class RangeEncoder:
    cdef range_encoder coder
    cdef uint8_t buffer[CAPACITY]
    cdef bint finished

    def __cinit__(self, capacity=1275):
        if not 1 <= capacity <= CAPACITY:
            raise ValueError(f"capacity of {capacity} bytes, not 1 to {CAPACITY}")
        range_encoder_init(&self.coder, self.buffer, capacity)

    cdef int writable(self) except -1:
        if self.finished:
            raise ValueError("this code is finished")
        return 0

    def encode(self, low, high, total):
        if not 0 <= low < high <= total <= TOTAL:
            raise ValueError(f"no symbol has the range {low} to {high} of {total}")
        self.writable()
        range_encode(&self.coder, low, high, total)

    def icdf(self, symbol, table, bits):
        cdef uint16_t icdf[ICDF]
        cdef int n = read_icdf(table, icdf, bits)
        if not 0 <= symbol < n:
            raise ValueError(f"symbol {symbol}, not 0 to {n - 1}")
        if (icdf[symbol - 1] if symbol else 1 << bits) == icdf[symbol]:
            raise ValueError(f"symbol {symbol} has no probability")
        self.writable()
        range_encode_icdf(&self.coder, symbol, icdf, bits)

    def uint(self, value, total):
        if not 2 <= total <= 0xFFFFFFFF or not 0 <= value < total:
            raise ValueError(f"{value} is not below {total}")
        self.writable()
        range_encode_uint(&self.coder, value, total)

    def bits(self, value, count):
        if not 0 <= count <= 25 or not 0 <= value < 1 << count:
            raise ValueError(f"{value} in {count} bits")
        self.writable()
        range_encode_bits(&self.coder, value, count)

    def laplace(self, const int32_t[::1] values, const uint8_t[::1] p0, const uint8_t[::1] r):
        cdef Py_ssize_t i, n = values.shape[0]
        check_laplace(p0, r, n)
        self.writable()
        for i in range(n):
            if values[i] > LAPLACE_LIMIT or values[i] < -LAPLACE_LIMIT:
                raise ValueError(f"value {values[i]} beyond {LAPLACE_LIMIT}")
            if values[i] != 0 and (r[i] == 0 or p0[i] == 255):
                raise ValueError(f"value {values[i]} where only 0 can be coded")
        for i in range(n):
            laplace_encode(&self.coder, values[i], p0[i], r[i])

    def tell(self):
        return range_encoder_tell(&self.coder)

    def copy(self):
        cdef RangeEncoder other = RangeEncoder.__new__(RangeEncoder, self.coder.size)
        memcpy(other.buffer, self.buffer, self.coder.size)
        other.coder = self.coder
        other.coder.bytes = other.buffer
        other.finished = self.finished
        return other

    def finish(self, size=None):
        self.writable()
        if size is None:
            size = (range_encoder_tell(&self.coder) + 7) // 8
        if size < 0 or size > self.coder.size or not range_encoder_finish(&self.coder, size):
            raise OverflowError(f"the code does not fit into {size} bytes")
        self.finished = True
        return PyBytes_FromStringAndSize(<char *>self.buffer, size)


cdef class RangeDecoder:
    cdef range_decoder coder
    cdef bytes data
    cdef uint32_t total

    def __cinit__(self, data):
        self.data = bytes(data)
        if len(self.data) > 0x7FFFFFFF:
            raise ValueError("more than 2**31 - 1 bytes")
        range_decoder_init(&self.coder, self.data, <uint32_t>len(self.data))

    @property
    def failed(self):
        return self.coder.failed != 0

    def decode(self, total):
        if not 1 <= total <= TOTAL:
            raise ValueError(f"total of {total}, not 1 to {TOTAL}")
        self.total = total
        return range_decode(&self.coder, total)

    def update(self, low, high):
        if not 0 <= low < high <= self.total:
            raise ValueError(f"no symbol has the range {low} to {high} of {self.total}")
        range_decoder_update(&self.coder, low, high, self.total)
        self.total = 0

    def icdf(self, table, bits):
        cdef uint16_t icdf[ICDF]
        read_icdf(table, icdf, bits)
        return range_decode_icdf(&self.coder, icdf, bits)

    def uint(self, total):
        if not 2 <= total <= 0xFFFFFFFF:
            raise ValueError(f"total of {total}, not 2 to 2**32 - 1")
        return range_decode_uint(&self.coder, total)

    def bits(self, count):
        if not 0 <= count <= 25:
            raise ValueError(f"{count} bits, not 0 to 25")
        return range_decode_bits(&self.coder, count)

    def laplace(self, const uint8_t[::1] p0, const uint8_t[::1] r):
        cdef Py_ssize_t i, n = p0.shape[0]
        check_laplace(p0, r, n)
        out = np.empty(n, np.int32)
        cdef int32_t[::1] values = out
        for i in range(n):
            values[i] = laplace_decode(&self.coder, p0[i], r[i])
        return out

    def tell(self):
        return range_decoder_tell(&self.coder)
