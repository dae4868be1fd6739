/* AVX2 and FMA. */
#include "lpcnet_kernel.h"

#ifdef LPCNET_X86
#include "lpcnet_target.h"

#include <immintrin.h>

TARGET_BEGIN("avx2,fma")

#define PATH_NAME "avx2"
#define PATH_SYMBOL lpcnet_avx2
#define PATH_ORDER LPCNET_INT8_ROWS
#define LANES 8
/* maddubs takes unsigned states: they are stored plus 128. */
#define STATE_OFFSET 128

typedef float vf __attribute__((vector_size(32)));
typedef int vi __attribute__((vector_size(32)));
typedef unsigned char State8;
typedef signed char Weight8;

typedef short vh __attribute__((vector_size(16)));

static inline __attribute__((always_inline)) vi widen(vh x) {
    return (vi)_mm256_cvtepi16_epi32((__m128i)x);
}

static inline __attribute__((always_inline)) vf vf_min(vf a, vf b) {
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}

static inline __attribute__((always_inline)) vf vf_max(vf a, vf b) {
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}

static inline __attribute__((always_inline)) vf vf_reciprocal(vf a) {
    const vf guess = (vf)_mm256_rcp_ps((__m256)a);
    return guess * (2.f - a * guess);
}

static inline __attribute__((always_inline)) int vf_any_at_least(vf a, float limit) {
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, _mm256_set1_ps(limit), _CMP_GE_OQ)) != 0;
}

static inline __attribute__((always_inline)) void interleave(float *out, vf even, vf odd) {
    const __m256 low = _mm256_unpacklo_ps((__m256)even, (__m256)odd);
    const __m256 high = _mm256_unpackhi_ps((__m256)even, (__m256)odd);
    _mm256_storeu_ps(out, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(out + 8, _mm256_permute2f128_ps(low, high, 0x31));
}

static inline __attribute__((always_inline)) void store_state8(State8 *out, vf x) {
    const __m256i q = _mm256_add_epi32(_mm256_cvtps_epi32((__m256)(127.f * x)),
                                       _mm256_set1_epi32(STATE_OFFSET));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64((__m128i *)out, _mm_packus_epi16(words, words));
}

/* maddubs saturates its sums of two products at 32767. They stay below, because packing keeps
 * neighbouring weights to |w0| + |w1| <= 128, and 255 * 128 fits. */
static inline __attribute__((always_inline)) void accumulate8(vi *sum, const Weight8 *w,
                                                              const State8 *x) {
    int four;
    __builtin_memcpy(&four, x, 4);
    const __m256i q = _mm256_set1_epi32(four), ones = _mm256_set1_epi16(1);
    for (int p = 0; p < 2; p++) {
        const __m256i pairs =
            _mm256_maddubs_epi16(q, _mm256_loadu_si256((const __m256i *)(w + 32 * p)));
        sum[p] = (vi)_mm256_add_epi32((__m256i)sum[p], _mm256_madd_epi16(pairs, ones));
    }
}

#include "lpcnet_template.h"

TARGET_END
#endif
