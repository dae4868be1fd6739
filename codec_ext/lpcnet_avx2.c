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

static inline __attribute__((always_inline)) vf vf_min(vf a, vf b) {
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}

static inline __attribute__((always_inline)) vf vf_max(vf a, vf b) {
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}

static inline __attribute__((always_inline)) vf vf_divide(vf a, vf b) { return a / b; }

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

/* 16 bits hold a row's sum of four products, because packing chose which blocks go together. */
static inline __attribute__((always_inline)) void accumulate8(vi *even, vi *odd, const Weight8 *w,
                                                              const State8 *x, const State8 *y) {
    (void)odd;
    int four[2];
    __builtin_memcpy(four, x, 4);
    __builtin_memcpy(four + 1, y, 4);
    const __m256i q = _mm256_set1_epi32(four[0]), r = _mm256_set1_epi32(four[1]);
    const __m256i *block = (const __m256i *)w;
    const __m256i ones = _mm256_set1_epi16(1);
    for (int p = 0; p < 2; p++) {
        const __m256i both =
            _mm256_add_epi16(_mm256_maddubs_epi16(q, _mm256_loadu_si256(block + p)),
                             _mm256_maddubs_epi16(r, _mm256_loadu_si256(block + 2 + p)));
        even[p] = (vi)_mm256_add_epi32((__m256i)even[p], _mm256_madd_epi16(both, ones));
    }
}

#include "lpcnet_template.h"

TARGET_END
#endif
