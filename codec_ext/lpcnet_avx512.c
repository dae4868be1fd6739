/* AVX-512 with VNNI: 16 rows x 4 columns of int8 in one instruction. */
#include "lpcnet_kernel.h"

#ifdef LPCNET_X86
#include "lpcnet_target.h"

#include <immintrin.h>

TARGET_BEGIN("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

#define PATH_NAME "avx512"
#define PATH_SYMBOL lpcnet_avx512
#define PATH_ORDER LPCNET_INT8_ROWS
#define LANES 16
/* The instruction takes unsigned states: they are stored plus 128. */
#define STATE_OFFSET 128

typedef float vf __attribute__((vector_size(64)));
typedef int vi __attribute__((vector_size(64)));
typedef unsigned char State8;
typedef signed char Weight8;

static inline __attribute__((always_inline)) vf vf_min(vf a, vf b) {
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}

static inline __attribute__((always_inline)) vf vf_max(vf a, vf b) {
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}

static inline __attribute__((always_inline)) vf vf_divide(vf a, vf b) {
    const vf guess = (vf)_mm512_rcp14_ps((__m512)b);
    return a * guess * (2.f - b * guess);
}

static inline __attribute__((always_inline)) int vf_any_at_least(vf a, float limit) {
    return _mm512_cmp_ps_mask((__m512)a, _mm512_set1_ps(limit), _CMP_GE_OQ) != 0;
}

static inline __attribute__((always_inline)) void interleave(float *out, vf even, vf odd) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    _mm512_storeu_ps(out, _mm512_permutex2var_ps((__m512)even, low, (__m512)odd));
    _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps((__m512)even, high, (__m512)odd));
}

static inline __attribute__((always_inline)) void store_state8(State8 *out, vf x) {
    const __m512i q = _mm512_cvtps_epi32((__m512)(127.f * x));
    _mm_storeu_si128((__m128i *)out,
                     _mm512_cvtepi32_epi8(_mm512_add_epi32(q, _mm512_set1_epi32(STATE_OFFSET))));
}

static inline __attribute__((always_inline)) void accumulate8(vi *even, vi *odd, const Weight8 *w,
                                                              const State8 *x, const State8 *y) {
    int four[2];
    __builtin_memcpy(four, x, 4);
    __builtin_memcpy(four + 1, y, 4);
    *even = (vi)_mm512_dpbusd_epi32((__m512i)*even, _mm512_set1_epi32(four[0]),
                                    _mm512_loadu_si512(w));
    *odd = (vi)_mm512_dpbusd_epi32((__m512i)*odd, _mm512_set1_epi32(four[1]),
                                   _mm512_loadu_si512(w + 64));
}

#include "lpcnet_template.h"

TARGET_END
#endif
