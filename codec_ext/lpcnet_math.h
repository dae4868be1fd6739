/* Vectors and functions of them; included by lpcnet_template.h. */

#define INLINE static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(64)))
#define PARTS (LPCNET_BLOCK / LANES) /* vectors in a block of 16 rows */

typedef float vf_loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int vi_loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* 16-bit levels, as a path loads them: LEVEL_PARTS vectors of floats come of one of these. If two,
 * LANES rows are in the lower halves of 32 bits, times 65536, and LANES in the upper. */
#define LEVEL_PARTS (PARTS == 1 ? 1 : 2)
typedef int16_t vh __attribute__((vector_size(2 * LEVEL_PARTS * LANES)));
typedef int16_t vh_loose
    __attribute__((vector_size(2 * LEVEL_PARTS * LANES), aligned(2), may_alias));

INLINE void widen(vh x, vi *out) {
#if LANES == 16
    *out = __builtin_convertvector(x, vi);
#else
    out[0] = (vi)x << 16;
    out[1] = (vi)x >> 16;
#endif
}

INLINE vf load(const float *p) { return *(const vf_loose *)p; }
INLINE void store(float *p, vf x) { *(vf_loose *)p = x; }
INLINE vf splat(float x) { return (vf){0} + x; }
INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }

INLINE float sum(vf x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

/* tanh is a chain of some 15 operations that wait for each other, 4 cycles each. A processor's
 * queue of waiting operations holds about five such chains, half of what would keep it busy; so
 * they are evaluated for n <= CHAINS vectors at once, operation by operation. */
enum { CHAINS = LANES == 4 ? 8 : 4 };
#define EACH for (int i = 0; i < n; i++)

/* gain x p(x x) / q(x x) of polynomials of this degree, at least 2. Their highest coefficients are
 * 1, which saves multiplications; the others follow. */
INLINE void rational(vf *x, const int n, const int degree, float limit, float gain, const float *p,
                     const float *q) {
    vf y[CHAINS], above[CHAINS], below[CHAINS];
    EACH x[i] = vf_max(vf_min(x[i], splat(limit)), splat(-limit));
    EACH y[i] = x[i] * x[i];
    EACH below[i] = y[i] + q[0];
    EACH above[i] = y[i] + p[0];
    EACH below[i] = below[i] * y[i] + q[1];
    EACH above[i] = above[i] * y[i] + p[1];
    EACH x[i] *= gain;
    for (int k = 2; k < degree; k++) {
        EACH below[i] = below[i] * y[i] + q[k];
        EACH above[i] = above[i] * y[i] + p[k];
    }
    EACH x[i] = vf_divide(x[i] * above[i], below[i]);
}

/* Rational minimax fits on [-7, 7] and, coarse, on [-5.5, 5.5]; absolute errors under 1.2e-6 and
 * 7.4e-5 everywhere. NaN gives 1: a squashed layer is finite whatever came in. */
INLINE void tanhs(vf *x, const int n, const int coarse) {
    if (coarse)
        rational(x, n, 2, 5.5f, 0.0500285772f, (const float[]){164.643076f, 1645.84055f},
                 (const float[]){35.6214461f, 82.3648857f});
    else
        rational(x, n, 3, 7.f, 0.0276079015f, (const float[]){579.38569f, 31303.2382f, 254451.64f},
                 (const float[]){148.030048f, 3205.74776f, 7024.90596f});
}

/* 1/2 + 1/2 tanh(x / 2), the halves being in the coefficients. */
INLINE void sigmoids(vf *x, const int n, const int coarse) {
    if (coarse)
        rational(x, n, 2, 11.f, 0.0125071443f, (const float[]){658.572304f, 26333.4488f},
                 (const float[]){142.485784f, 1317.83817f});
    else
        rational(x, n, 3, 14.f, 0.00690197537f,
                 (const float[]){2317.54276f, 500851.812f, 16284905.f},
                 (const float[]){592.120193f, 51291.9643f, 449593.982f});
    EACH x[i] += 0.5f;
}

INLINE vf tanh_(vf x) {
    tanhs(&x, 1, 0);
    return x;
}

INLINE vf sigmoid(vf x) {
    sigmoids(&x, 1, 0);
    return x;
}

/* log2(x) of positive normal numbers, error about 1e-5. */
INLINE vf log2_(vf x) {
    const vi bits = (vi)x;
    /* mantissa in [sqrt(1/2), sqrt(2)): the fit is centred on 1 */
    const vi exponent = (bits - 0x3f3504f3) >> 23;
    const vf m = (vf)(bits - (exponent << 23)) - 1.f;
    return m * (((((-0.20685812f * m + 0.31840712f) * m - 0.36641326f) * m + 0.47979388f) * m -
                 0.72120847f) * m + 1.44270180f) + to_float(exponent);
}

/* x ** power of probabilities 0 <= x <= 1, relative error about 1e-4 * power; below 1e-30: 0. */
INLINE vf power_(vf x, float power) {
    const vf t = vf_max(log2_(vf_max(x, splat(1e-30f))) * power, splat(-100.f));
    const vi whole = __builtin_convertvector(t - 0.5f, vi); /* truncation: t <= 0 */
    const vf f = t - to_float(whole);
    const vf e = (((9.6760371e-03f * f + 0.05592204f) * f + 0.24022107f) * f + 0.69312103f) * f + 1.f;
    return (vf)((vi)e + (whole << 23));
}

/* 128 + sign(x) 16 log2(1 + 255 |x| / 32768), rounded. */
INLINE int mu_law_level(float x) {
    const float u = 16.f * log2_(splat(1.f + (255.f / 32768.f) * fabsf(x)))[0];
    const int level = (int)(x < 0 ? 128.5f - u : 128.5f + u);
    return level < 0 ? 0 : level > 255 ? 255 : level;
}
