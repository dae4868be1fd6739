# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The LPCNet vocoder's networks; `codec.lpcnet` is the interface to use."""

from libc.stdint cimport int16_t, int32_t, uint8_t, uint16_t, uint64_t

import numpy as np


cdef extern from "lpcnet_kernel.h" nogil:
    const float LPCNET_EMPHASIS
    enum:
        LPCNET_BLOCK
        LPCNET_GROUP
        LPCNET_MAX_UNITS
        LPCNET_FEATURES
        LPCNET_CONTEXT
        LPCNET_ORDER
        LPCNET_LEVELS
        LPCNET_SPAN
        LPCNET_INT8_PAIRS

    ctypedef struct LpcnetMatrix:
        int32_t rows, columns
        const int32_t *start
        const uint16_t *column
        const void *weights
        const float *scale
        const int32_t *offset

    ctypedef struct LpcnetModel:
        int32_t units_a, units_b, quantised, period_width
        LpcnetMatrix recurrent_a, input_b, recurrent_b, nodes
        const int16_t *embedding
        const float *embedding_scale
        const float *mu_law
        const float *bias_a
        const float *bias_b
        const float *node_bias
        const float *node_scale
        const float *feature_mean
        const float *feature_gain
        const float *period_embedding
        LpcnetMatrix conv1, conv2, dense1, dense2, condition_a, condition_b
        const float *conv1_bias
        const float *conv2_bias
        const float *dense1_bias
        const float *dense2_bias
        const float *condition_a_bias
        const float *condition_b_bias

    ctypedef struct LpcnetCondition:
        float a[1536]
        float b[1536]
        float lpc[16]
        float correlation

    ctypedef struct LpcnetState:
        float a[512]
        float b[512]
        float signal[16]
        float output
        int32_t excitation
        uint64_t random

    ctypedef struct LpcnetSampling:
        int32_t walk
        float floor, cut, voicing

    ctypedef struct LpcnetPath:
        const char *name
        int order
        int32_t lanes, state_offset
        void (*condition)(const LpcnetModel *, const float *, LpcnetCondition *) nogil
        void (*run)(const LpcnetModel *, const LpcnetCondition *, const LpcnetSampling *,
                    LpcnetState *, int, int16_t *) nogil
        void (*force)(const LpcnetModel *, const LpcnetCondition *, LpcnetState *, int,
                      const int16_t *, float *, uint8_t *) nogil

    const LpcnetPath *lpcnet_path(int index)
    void lpcnet_reset(LpcnetState *state, uint64_t seed)
    uint64_t lpcnet_denormals_off()
    void lpcnet_denormals_restore(uint64_t saved)


SPAN = LPCNET_SPAN
CONTEXT = LPCNET_CONTEXT


def paths():
    """Names of the instruction sets this machine can run the kernel with, best first."""
    names = []
    cdef const LpcnetPath *path
    while True:
        path = lpcnet_path(<int>len(names))
        if path == NULL:
            return tuple(names)
        names.append(path.name.decode())


def _aligned(array):
    """A copy that starts on a cache line, so that no vector load straddles two."""
    room = np.empty(array.nbytes + 64, dtype=np.uint8)
    skip = -room.ctypes.data % 64
    copy = room[skip : skip + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _blocks(matrix):
    """A view [rows / 16, columns / 4, 16, 4] of a matrix."""
    rows, columns = matrix.shape
    return matrix.reshape(
        rows // LPCNET_BLOCK, LPCNET_BLOCK, columns // LPCNET_GROUP, LPCNET_GROUP
    ).transpose(0, 2, 1, 3)


def _gate_order(rows):
    """Rows [z, r, n][units] -> [units / 16][z, r, n][16], the kernel's order."""
    return np.ascontiguousarray(
        rows.reshape(3, -1, LPCNET_BLOCK, *rows.shape[1:]).swapaxes(0, 1)
    ).reshape(rows.shape)


def _loads(blocks):
    """Sums over pairs of columns of the positive weights of blocks [n, rows, 4], and of the
    negative ones: [n, rows, 2 signs * 2 pairs].
    """
    halves = blocks.reshape(*blocks.shape[:2], 2, 2)
    return np.concatenate(
        [np.maximum(halves, 0).sum(axis=3), np.maximum(-halves, 0).sum(axis=3)], axis=2
    )


def _partners(blocks):
    """An order of blocks [n, rows, 4], n even, in which twos have small loads together.

    AVX2 adds a row's products with a pair of columns in each of two blocks in 16 bits, states being
    unsigned: neither sign's weights may come to more than 128 steps. The smaller they are together,
    the finer a row's step can be.
    """
    loads = _loads(blocks)
    loads = loads / np.maximum(loads.max(axis=(0, 2)), 1e-9)[:, None]
    coarser = (loads[:, None] + loads).max(axis=3).clip(min=1).sum(axis=2)
    free = np.ones(len(blocks), dtype=bool)
    order = []
    for i in np.argsort(-loads.max(axis=2).sum(axis=1), kind="stable"):
        if free[i]:
            free[i] = False
            j = np.argmin(np.where(free, coarser[i], np.inf))
            free[j] = False
            order += [i, j]
    return np.array(order, dtype=np.intp)


cdef class Model:
    """Weights laid out for one instruction set; read-only once built, so voices may share it."""

    cdef LpcnetModel model
    cdef const LpcnetPath *kernel
    cdef list kept
    cdef readonly double density

    def __init__(self, weights, path=None, bint quantised=True):
        cdef int index = 0
        known = paths()
        if path is not None:
            if path not in known:
                raise ValueError(f"no path {path!r} on this machine: {', '.join(known)}")
            index = known.index(path)
        self.kernel = lpcnet_path(index)
        self.kept = []
        cdef LpcnetModel *m = &self.model
        m.quantised = quantised

        def take(name, *shape):
            try:
                array = np.asarray(weights[name], dtype=np.float32)
            except KeyError:
                raise ValueError(f"the weights lack {name!r}") from None
            if array.ndim != len(shape) or any(
                want is not None and want != got
                for want, got in zip(shape, array.shape, strict=True)
            ):
                raise ValueError(f"weights {name!r}: shape {array.shape} where {shape} is expected")
            if not np.isfinite(array).all():
                raise ValueError(f"weights {name!r} are not finite")
            return array

        recurrent_a = take("gru_a_recurrent_weight", None, None)
        units_a = recurrent_a.shape[1]
        recurrent_b = take("gru_b_recurrent_weight", None, None)
        units_b = recurrent_b.shape[1]
        for name, units, rows in (("a", units_a, len(recurrent_a)), ("b", units_b, len(recurrent_b))):
            if units % LPCNET_BLOCK or not 0 < units <= LPCNET_MAX_UNITS or rows != 3 * units:
                raise ValueError(
                    f"weights 'gru_{name}_recurrent_weight': {rows} rows of {units} units; the"
                    f" kernel takes multiples of {LPCNET_BLOCK} up to {LPCNET_MAX_UNITS}"
                )
        m.units_a = units_a
        m.units_b = units_b
        self._matrix(&m.recurrent_a, _gate_order(recurrent_a), quantised, False)
        self._matrix(&m.recurrent_b, _gate_order(recurrent_b), quantised, True, 3)
        self._matrix(
            &m.input_b,
            _gate_order(take("gru_b_input_weight", 3 * units_b, units_a)),
            quantised,
            True,
            3,
        )
        self.density = float(np.count_nonzero(recurrent_a)) / recurrent_a.size
        m.bias_a = self._floats(take("gru_a_recurrent_bias", units_a))
        m.bias_b = self._floats(take("gru_b_recurrent_bias", units_b))

        levels = LPCNET_LEVELS
        # the two halves of a node side by side, 16 rows each
        weight, bias, scale = (
            np.stack([take(f"tree_{name}{j}", levels, *shape) for j in (1, 2)])
            .reshape(2, levels // LPCNET_BLOCK, LPCNET_BLOCK, *shape)
            .swapaxes(0, 1)
            .reshape(2 * levels, *shape)
            for name, shape in (("weight", (units_b,)), ("bias", ()), ("scale", ()))
        )
        self._matrix(&m.nodes, weight, quantised, True, 2)
        m.node_bias = self._floats(bias)
        m.node_scale = self._floats(scale)
        steps = np.arange(levels) - levels // 2
        m.mu_law = self._floats(
            np.sign(steps) * 32768 / 255 * np.expm1(np.abs(steps) / 128 * np.log(256))
        )

        # An embedding multiplied by GRU A's input weights once is a table of what it adds to the
        # gates. Three entries are added as int16, so their sum has to fit. In double precision, as
        # BLAS sums in another order with another number of threads: entries would be rounded
        # differently now and then, and the same seed would say something else.
        samples = take("sample_embedding", 3, levels, None).astype(np.float64)
        table = np.matmul(samples, take("embedding_weight", 3, samples.shape[2], 3 * units_a))
        scale = np.maximum(np.abs(table).max(axis=1).sum(axis=0), 1e-6) / 32766
        table = _gate_order(np.rint(table / scale).astype(np.int16).transpose(2, 0, 1))
        scale = _gate_order(scale)
        lanes = self.kernel.lanes
        if lanes < LPCNET_BLOCK:
            # the levels of two vectors share one: lower and upper halves of 32 bits
            halves = table.reshape(-1, 2, lanes, *table.shape[1:])
            table = halves.swapaxes(1, 2).reshape(table.shape)
            scale = (scale.reshape(-1, 2, lanes) / [[65536], [1]]).reshape(-1)
        m.embedding = <const int16_t *><size_t>self._keep(
            np.ascontiguousarray(table.transpose(1, 2, 0))
        )
        m.embedding_scale = self._floats(scale)

        features = LPCNET_FEATURES
        m.feature_mean = self._floats(take("feature_mean", features))
        m.feature_gain = self._floats(1 / np.maximum(take("feature_std", features), 1e-6))
        period = take("period_embedding", 256, None)
        m.period_width = period.shape[1]
        m.period_embedding = self._floats(period)
        conv1 = take("conv1_weight", None, features + period.shape[1], 3)
        conv2 = take("conv2_weight", None, len(conv1), 3)
        dense1 = take("dense1_weight", None, len(conv2))
        dense2 = take("dense2_weight", None, len(dense1))
        self._matrix(&m.conv1, conv1.transpose(0, 2, 1).reshape(len(conv1), -1), False)
        self._matrix(&m.conv2, conv2.transpose(0, 2, 1).reshape(len(conv2), -1), False)
        self._matrix(&m.dense1, dense1, False)
        self._matrix(&m.dense2, dense2, False)
        self._matrix(
            &m.condition_a,
            _gate_order(take("gru_a_condition_weight", 3 * units_a, len(dense2))),
            False,
        )
        self._matrix(
            &m.condition_b,
            _gate_order(take("gru_b_condition_weight", 3 * units_b, len(dense2))),
            False,
        )
        m.conv1_bias = self._floats(take("conv1_bias", len(conv1)))
        m.conv2_bias = self._floats(take("conv2_bias", len(conv2)))
        m.dense1_bias = self._floats(take("dense1_bias", len(dense1)))
        m.dense2_bias = self._floats(take("dense2_bias", len(dense2)))
        m.condition_a_bias = self._floats(
            _gate_order(take("gru_a_condition_bias", 3 * units_a))
        )
        m.condition_b_bias = self._floats(
            _gate_order(take("gru_b_condition_bias", 3 * units_b))
        )

    @property
    def path(self):
        """Name of the instruction set in use."""
        return self.kernel.name.decode()

    @property
    def quantised(self):
        """Whether the sample network runs on int8 weights and states."""
        return bool(self.model.quantised)

    cdef size_t _keep(self, array) except 0:
        array = _aligned(array)
        self.kept.append(array)
        return array.ctypes.data

    cdef const float *_floats(self, array) except NULL:
        return <const float *>self._keep(np.asarray(array, dtype=np.float32))

    cdef int _matrix(
        self, LpcnetMatrix *out, weight, bint quantised, bint dense=True, int height=1
    ) except -1:
        """Pack a matrix. `height` row blocks, of a dense one, share the order of their blocks."""
        rows, columns = weight.shape
        if rows % LPCNET_BLOCK or columns % LPCNET_GROUP or rows > 3 * LPCNET_MAX_UNITS:
            raise ValueError(
                f"a matrix of {rows} x {columns} does not divide into blocks of"
                f" {LPCNET_BLOCK} x {LPCNET_GROUP}"
            )
        blocks = _blocks(weight)
        kept = [np.flatnonzero(row) for row in blocks.any(axis=(2, 3)) | dense]
        step = np.maximum(np.abs(weight).max(axis=1) / 127, 1e-9)
        if quantised:
            for b in range(0, len(kept), height):
                if len(kept[b]) % 2:
                    # the kernel takes blocks two at a time: zeros fill up
                    kept[b] = np.append(kept[b], np.setdiff1d(np.arange(columns // 4), kept[b])[0])
                if not len(kept[b]):
                    continue
                stripe = blocks[b : b + height, kept[b]].swapaxes(0, 1)
                stripe = stripe.reshape(len(kept[b]), height * LPCNET_BLOCK, LPCNET_GROUP)
                order = _partners(stripe)
                kept[b : b + height] = [kept[b][order]] * height
                loads = _loads(stripe)
                together = loads[order[0::2]] + loads[order[1::2]]
                within = step[b * LPCNET_BLOCK :][: height * LPCNET_BLOCK]
                # four weights may each be rounded up by a half
                within[:] = np.maximum(within, together.max(axis=(0, 2)) / 126)
        start = np.concatenate([[0], np.cumsum([len(row) for row in kept])]).astype(np.int32)
        at = (np.repeat(np.arange(len(kept)), np.diff(start)), np.concatenate(kept))
        out.rows = rows
        out.columns = columns
        out.start = <const int32_t *><size_t>self._keep(start)
        out.column = <const uint16_t *><size_t>self._keep((LPCNET_GROUP * at[1]).astype(np.uint16))
        if not quantised:
            out.weights = self._floats(blocks[at].transpose(0, 2, 1))
            return 0
        levels = np.rint(weight / step[:, None]).astype(np.int8)
        blocks = _blocks(levels)[at]
        if self.kernel.order == LPCNET_INT8_PAIRS:
            blocks = blocks.reshape(-1, LPCNET_BLOCK, 2, 2).transpose(0, 2, 1, 3).astype(np.int16)
        out.weights = <const void *><size_t>self._keep(blocks)
        out.scale = self._floats(step / 127)
        out.offset = <const int32_t *><size_t>self._keep(
            (-self.kernel.state_offset * levels.sum(axis=1, dtype=np.int32)).astype(np.int32)
        )
        return 0


cdef class Condition:
    """What the sample network is told about one 10 ms frame; reusable."""

    cdef LpcnetCondition condition

    def compute(self, Model model not None, const float[:, ::1] features not None,
                const float[::1] lpc not None):
        """Run the frame network on feature rows k-3..k+1 [5, 20]; `lpc` [16] is row k's.

        Raises ValueError on other shapes.
        """
        if features.shape[0] != LPCNET_CONTEXT or features.shape[1] != LPCNET_FEATURES:
            raise ValueError(
                f"features [{features.shape[0]}, {features.shape[1]}] where"
                f" [{LPCNET_CONTEXT}, {LPCNET_FEATURES}] is expected"
            )
        if lpc.shape[0] != LPCNET_ORDER:
            raise ValueError(f"{lpc.shape[0]} predictor coefficients, not {LPCNET_ORDER}")
        cdef int i
        cdef uint64_t saved
        with nogil:
            saved = lpcnet_denormals_off()
            model.kernel.condition(&model.model, &features[0, 0], &self.condition)
            for i in range(LPCNET_ORDER):
                self.condition.lpc[i] = lpc[i]
            lpcnet_denormals_restore(saved)


cdef class State:
    """One voice between two samples. Calls on one State must not overlap."""

    cdef LpcnetState state

    def __init__(self, uint64_t seed=0):
        lpcnet_reset(&self.state, seed)

    def reset(self, uint64_t seed=0):
        """Back to silence, with the random generator at `seed`."""
        lpcnet_reset(&self.state, seed)

    def reseed(self, uint64_t seed):
        """Keep the voice, but draw its next samples from another random sequence."""
        cdef LpcnetState fresh
        lpcnet_reset(&fresh, seed)
        self.state.random = fresh.random

    def prime(self, const int16_t[::1] pcm not None):
        """Reset the networks and take `pcm`, up to now, for the signal's past.

        Linear prediction reaches back over the last 17 samples; fewer follow silence.
        """
        cdef LpcnetState fresh
        cdef Py_ssize_t n = pcm.shape[0], i
        lpcnet_reset(&fresh, 0)
        fresh.random = self.state.random
        for i in range(max(0, n - LPCNET_ORDER), n):
            fresh.signal[i - n + LPCNET_ORDER] = (
                pcm[i] - LPCNET_EMPHASIS * (pcm[i - 1] if i else 0)
            )
        if n:
            fresh.output = pcm[n - 1]
        self.state = fresh

    def copy(self):
        """An independent voice that continues from the same sample."""
        cdef State other = State.__new__(State)
        other.state = self.state
        return other

    def run(self, Model model not None, Condition condition not None, int16_t[::1] out not None,
            *, bint walk=False, float floor=0.002, float cut=0.02, float voicing=1.5):
        """Speak: fill `out`, at most 160 samples under one condition.

        Raises ValueError if `out` is longer, or a sampling parameter is outside its range.
        """
        cdef int n = <int>out.shape[0]
        cdef LpcnetSampling how
        cdef uint64_t saved
        if n > LPCNET_SPAN:
            raise ValueError(f"{n} samples, at most {LPCNET_SPAN} share a condition")
        # all 256 levels equally likely must not vanish under the floor
        if not (0 <= floor < 1.0 / LPCNET_LEVELS and 0 <= cut < 0.5 and 0 <= voicing <= 4):
            raise ValueError(f"sampling out of range: {floor=}, {cut=}, {voicing=}")
        how.walk = walk
        how.floor = floor
        how.cut = cut
        how.voicing = voicing
        if n:
            with nogil:
                saved = lpcnet_denormals_off()
                model.kernel.run(&model.model, &condition.condition, &how, &self.state, n, &out[0])
                lpcnet_denormals_restore(saved)

    def force(self, Model model not None, Condition condition not None,
              const int16_t[::1] pcm not None):
        """Follow the true signal `pcm`, at most 160 samples under one condition.

        Raises ValueError if `pcm` is longer.
        """
        cdef int n = <int>pcm.shape[0]
        cdef uint64_t saved
        if n > LPCNET_SPAN:
            raise ValueError(f"{n} samples, at most {LPCNET_SPAN} share a condition")
        if n:
            with nogil:
                saved = lpcnet_denormals_off()
                model.kernel.force(
                    &model.model, &condition.condition, &self.state, n, &pcm[0], NULL, NULL
                )
                lpcnet_denormals_restore(saved)

    def force_observed(self, Model model not None, Condition condition not None,
                       const int16_t[::1] pcm not None):
        """As `force`; returns (node logits float32 [n, 256], true excitation uint8 [n])."""
        cdef int n = <int>pcm.shape[0]
        cdef uint64_t saved
        if not 0 < n <= LPCNET_SPAN:
            raise ValueError(f"{n} samples, 1 to {LPCNET_SPAN} share a condition")
        logits = np.empty((n, LPCNET_LEVELS), dtype=np.float32)
        excitation = np.empty(n, dtype=np.uint8)
        cdef float[:, ::1] logits_view = logits
        cdef uint8_t[::1] excitation_view = excitation
        with nogil:
            saved = lpcnet_denormals_off()
            model.kernel.force(&model.model, &condition.condition, &self.state, n, &pcm[0],
                             &logits_view[0, 0], &excitation_view[0])
            lpcnet_denormals_restore(saved)
        return logits, excitation
