# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Acoustic features and linear prediction; `codec.features` documents what they mean."""

from libc.stdint cimport int16_t

import numpy as np


cdef extern from "features_tables.h" nogil:
    enum:
        HOP
        ORDER
        FEATURES


cdef extern from "features_extractor.h" nogil:
    ctypedef struct Extractor:
        pass
    void extractor_init_tables()
    void extractor_reset(Extractor *extractor)
    void extractor_process(Extractor *extractor, const int16_t *pcm, float *features)


cdef extern from "features_cepstrum.h" nogil:
    void c_cepstrum_to_lpc "cepstrum_to_lpc"(const float *features, float *lpc)


extractor_init_tables()


cdef class FeatureExtractor:
    """Streaming, causal extraction of 20 features per hop of 160 samples (10 ms at 16 kHz).

    One instance serves one stream; calls must not overlap.
    """

    cdef Extractor state

    def __cinit__(self):
        extractor_reset(&self.state)

    def reset(self):
        """Forget the stream: the next hop is taken to follow silence."""
        extractor_reset(&self.state)

    def copy(self):
        """An independent extractor that continues from the same point of the stream."""
        cdef FeatureExtractor other = FeatureExtractor()
        other.state = self.state
        return other

    def process(self, const int16_t[::1] pcm not None):
        """Features float32 [n, 20] of the next n hops, int16 [160 * n].

        The result does not depend on how a stream is cut into calls. Raises ValueError if the
        number of samples is no multiple of 160, or if they are not contiguous int16.
        """
        cdef Py_ssize_t hops = pcm.shape[0] // HOP, i
        if hops * HOP != pcm.shape[0]:
            raise ValueError(f"{pcm.shape[0]} samples are not a whole number of {HOP}-sample hops")
        features = np.empty((hops, FEATURES), dtype=np.float32)
        cdef float[:, ::1] out = features
        if hops:
            with nogil:
                for i in range(hops):
                    extractor_process(&self.state, &pcm[i * HOP], &out[i, 0])
        return features


def cepstrum_to_lpc(const float[:, ::1] features not None):
    """Predictors float32 [n, 16] of the cepstra in features float32 [n, >= 18].

    The prediction of sample n of the pre-emphasised signal s is sum(a[i] * s[n - 1 - i]). Always
    finite, whatever the features. Raises ValueError if there are fewer than 18 columns, or if the
    array is not contiguous float32.
    """
    cdef Py_ssize_t frames = features.shape[0], i
    if features.shape[1] < 18:
        raise ValueError(f"{features.shape[1]} features per frame, at least 18 expected")
    lpc = np.empty((frames, ORDER), dtype=np.float32)
    cdef float[:, ::1] out = lpc
    if frames:
        with nogil:
            for i in range(frames):
                c_cepstrum_to_lpc(&features[i, 0], &out[i, 0])
    return lpc
