/* Plain C with the compiler's generic vectors: 128 bits, which every x86-64 and every 64-bit ARM
 * has. int8 weights are widened to int16 when packed, because that is what multiplies here. */
#include "lpcnet_kernel.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define PATH_NAME "portable"
#define PATH_SYMBOL lpcnet_portable
#define PATH_ORDER LPCNET_INT8_PAIRS
#define LANES 4
#define STATE_OFFSET 0

typedef float vf __attribute__((vector_size(16)));
typedef int vi __attribute__((vector_size(16)));
typedef short State8;
typedef short Weight8;

static inline __attribute__((always_inline)) vf choose(vi mask, vf a, vf b) {
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

static inline __attribute__((always_inline)) vf vf_min(vf a, vf b) { return choose(a < b, a, b); }

static inline __attribute__((always_inline)) vf vf_max(vf a, vf b) { return choose(a > b, a, b); }

static inline __attribute__((always_inline)) vf vf_divide(vf a, vf b) { return a / b; }

static inline __attribute__((always_inline)) int vf_any_at_least(vf a, float limit) {
    const vi over = a >= limit;
    return (over[0] | over[1] | over[2] | over[3]) != 0;
}

static inline __attribute__((always_inline)) void interleave(float *out, vf even, vf odd) {
    for (int i = 0; i < LANES; i++) {
        out[2 * i] = even[i];
        out[2 * i + 1] = odd[i];
    }
}

static inline __attribute__((always_inline)) void store_state8(State8 *out, vf x) {
    for (int i = 0; i < LANES; i++) {
        const float scaled = 127.f * x[i];
        out[i] = (short)(scaled < 0 ? scaled - 0.5f : scaled + 0.5f);
    }
}

static inline __attribute__((always_inline)) void accumulate_block(vi *sum, const Weight8 *w,
                                                                   const State8 *x) {
    for (int pair = 0; pair < 2; pair++, w += 32, x += 2) {
#if defined(__SSE2__)
        int two;
        __builtin_memcpy(&two, x, 4);
        const __m128i q = _mm_set1_epi32(two);
        for (int p = 0; p < 4; p++)
            sum[p] = (vi)_mm_add_epi32(
                (__m128i)sum[p], _mm_madd_epi16(_mm_loadu_si128((const __m128i *)(w + 8 * p)), q));
#else
        for (int p = 0; p < 4; p++)
            for (int i = 0; i < 4; i++)
                sum[p][i] += (int)w[8 * p + 2 * i] * x[0] + (int)w[8 * p + 2 * i + 1] * x[1];
#endif
    }
}

static inline __attribute__((always_inline)) void accumulate8(vi *even, vi *odd, const Weight8 *w,
                                                              const State8 *x, const State8 *y) {
    accumulate_block(even, w, x);
    accumulate_block(odd, w + 64, y);
}

#include "lpcnet_template.h"
