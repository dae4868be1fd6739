/* The kernel, once for every instruction set.
 *
 * A path includes this after defining
 *   PATH_NAME, PATH_SYMBOL, PATH_ORDER
 *   LANES                        floats in a vector; vf and vi are vectors of floats and int32
 *   State8                       what a quantised state value is stored as
 *   vh, widen                    as many int16, and those as int32
 *   vf_min, vf_max, vf_reciprocal, vf_any_at_least, interleave
 *   store_state8(State8 *, vf)   round(127 x) of LANES values
 *   accumulate8(vi *, block, x)  one int8 block of 16 rows times the 4 values at x, exactly
 *   STATE_OFFSET                 what store_state8 adds to a value
 */
#include "lpcnet_kernel.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(64)))
#define PARTS (LPCNET_BLOCK / LANES) /* vectors in a block of 16 rows */

typedef float vf_loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int vi_loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int16_t vh_loose __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

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

/* x p(x x) / q(x x) of polynomials with the coefficients from the highest power down. */
INLINE void rational(vf *x, const int n, float limit, const float *p, const float *q) {
    vf y[CHAINS], above[CHAINS], below[CHAINS];
    EACH x[i] = vf_max(vf_min(x[i], splat(limit)), splat(-limit));
    EACH y[i] = x[i] * x[i];
    EACH below[i] = q[0] * y[i] + q[1];
    EACH above[i] = p[0] * y[i] + p[1];
    EACH below[i] = below[i] * y[i] + q[2];
    EACH above[i] = above[i] * y[i] + p[2];
    EACH below[i] = below[i] * y[i] + 1.f;
    EACH above[i] = above[i] * y[i] + p[3];
    EACH x[i] = x[i] * above[i];
    EACH below[i] = vf_reciprocal(below[i]);
    EACH x[i] = x[i] * below[i];
}

/* Rational minimax fit on [-7, 7]; absolute error under 1.2e-6 everywhere. NaN gives 1: a squashed
 * layer is finite whatever came in. */
INLINE void tanhs(vf *x, const int n) {
    rational(x, n, 7.f, (const float[]){3.930003e-06f, 2.2769875e-03f, 0.12302182f, 0.99999571f},
             (const float[]){1.4235066e-04f, 2.1072175e-02f, 0.45634031f});
}

/* 1/2 + 1/2 tanh(x / 2), the halves being in the coefficients. */
INLINE void sigmoids(vf *x, const int n) {
    rational(x, n, 14.f,
             (const float[]){1.53515742e-08f, 3.55779297e-05f, 7.68886375e-03f, 0.2499989275f},
             (const float[]){2.22422906e-06f, 1.31701094e-03f, 0.1140850775f});
    EACH x[i] += 0.5f;
}

INLINE vf tanh_(vf x) {
    tanhs(&x, 1);
    return x;
}

INLINE vf sigmoid(vf x) {
    sigmoids(&x, 1);
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

/* Row block b of a float matrix times x, added to out[PARTS]. */
INLINE void rows_float(const LpcnetMatrix *m, int b, const float *x, vf *out) {
    vf even[PARTS], odd[PARTS]; /* two chains hide the latency of the multiply-add */
    for (int p = 0; p < PARTS; p++) even[p] = odd[p] = splat(0);
    const float *w = (const float *)m->weights + 64 * (ptrdiff_t)m->start[b];
    const uint16_t *column = m->column + m->start[b], *end = m->column + m->start[b + 1];
    for (; column < end; column++, w += 64) {
        const float *v = x + *column;
        for (int p = 0; p < PARTS; p++) {
            even[p] += v[0] * load(w + p * LANES);
            odd[p] += v[1] * load(w + 16 + p * LANES);
            even[p] += v[2] * load(w + 32 + p * LANES);
            odd[p] += v[3] * load(w + 48 + p * LANES);
        }
    }
    for (int p = 0; p < PARTS; p++) out[p] += even[p] + odd[p];
}

INLINE vi rows_offset(const LpcnetMatrix *m, int b, int p) {
    return *(const vi_loose *)(m->offset + 16 * b + p * LANES);
}

INLINE vf rows_scaled(const LpcnetMatrix *m, int b, int p, vi sum) {
    return to_float(sum) * load(m->scale + 16 * b + p * LANES);
}

/* Row block b of an int8 matrix times a quantised state, added to out[PARTS]. Blocks come in twos
 * (packing fills up with zeros), for two chains that hide the latency of the dot product. Their
 * columns are read together: loads are what the processor has least of here. */
INLINE void rows_int8(const LpcnetMatrix *m, int b, const State8 *x, vf *out) {
    vi even[PARTS], odd[PARTS];
    for (int p = 0; p < PARTS; p++) {
        even[p] = rows_offset(m, b, p);
        odd[p] = (vi){0};
    }
    const Weight8 *w = (const Weight8 *)m->weights + 64 * (ptrdiff_t)m->start[b];
    const uint16_t *column = m->column + m->start[b], *end = m->column + m->start[b + 1];
    for (; column < end; column += 2, w += 128) {
        uint32_t both; /* little-endian, as all machines this is for */
        memcpy(&both, column, sizeof both);
        accumulate8(even, w, x + (both & 0xffff));
        accumulate8(odd, w + 64, x + (both >> 16));
    }
    for (int p = 0; p < PARTS; p++) out[p] += rows_scaled(m, b, p, even[p] + odd[p]);
}

INLINE void rows(const LpcnetMatrix *m, int b, const float *x, const State8 *x8, vf *out,
                 const int quantised) {
    if (quantised)
        rows_int8(m, b, x8, out);
    else
        rows_float(m, b, x, out);
}

/* Row blocks b .. b + height - 1, at most 3, of a dense matrix with a multiple of 8 columns times a
 * vector, added to out[height * PARTS]: together, they share the broadcasts of the vector. */
INLINE void stripe(const LpcnetMatrix *m, int b, const int height, const float *x,
                   const State8 *x8, vf *out, const int quantised) {
    if (!quantised) {
        for (int r = 0; r < height; r++) rows_float(m, b + r, x, out + r * PARTS);
        return;
    }
    vi even[3 * PARTS], odd[3 * PARTS];
    for (int k = 0; k < height * PARTS; k++) {
        even[k] = rows_offset(m, b, k);
        odd[k] = (vi){0};
    }
    const ptrdiff_t apart = 16 * (ptrdiff_t)m->columns;
    const Weight8 *w = (const Weight8 *)m->weights + apart * b;
    for (int i = 0; i < m->columns; i += 8, w += 128)
        for (int r = 0; r < height; r++) {
            accumulate8(even + r * PARTS, w + r * apart, x8 + i);
            accumulate8(odd + r * PARTS, w + r * apart + 64, x8 + i + 4);
        }
    for (int k = 0; k < height * PARTS; k++) out[k] += rows_scaled(m, b, k, even[k] + odd[k]);
}

/* ---- the frame network ---- */

static void layer(const LpcnetMatrix *m, const float *bias, const float *x, int squash, float *y) {
    for (int b = 0; b < m->rows / 16; b++) {
        vf out[PARTS];
        for (int p = 0; p < PARTS; p++) out[p] = load(bias + 16 * b + p * LANES);
        rows_float(m, b, x, out);
        for (int p = 0; p < PARTS; p++)
            store(y + 16 * b + p * LANES, squash ? tanh_(out[p]) : out[p]);
    }
}

static void condition(const LpcnetModel *m, const float *features, LpcnetCondition *out) {
    enum { ROWS = LPCNET_CONTEXT, TAPS = 3 };
    float input[ROWS * LPCNET_MAX_UNITS] ALIGNED, hidden[TAPS * LPCNET_MAX_UNITS] ALIGNED;
    float x[LPCNET_MAX_UNITS] ALIGNED, y[LPCNET_MAX_UNITS] ALIGNED;
    const int width = LPCNET_FEATURES + m->period_width;
    for (int r = 0; r < ROWS; r++) {
        const float *f = features + r * LPCNET_FEATURES;
        float *row = input + r * width;
        for (int i = 0; i < LPCNET_FEATURES; i++)
            row[i] = (f[i] - m->feature_mean[i]) * m->feature_gain[i];
        /* feature 18 is log2(256 / period) - 1.5 */
        const float period = rintf(256.f * exp2f(-1.5f - f[18]));
        const int index = period >= 255.f ? 255 : period > 0.f ? (int)period : 0;
        memcpy(row + LPCNET_FEATURES, m->period_embedding + (ptrdiff_t)index * m->period_width,
               sizeof(float) * m->period_width);
    }
    for (int t = 0; t < TAPS; t++)
        layer(&m->conv1, m->conv1_bias, input + t * width, 1, hidden + t * m->conv1.rows);
    layer(&m->conv2, m->conv2_bias, hidden, 1, x);
    layer(&m->dense1, m->dense1_bias, x, 1, y);
    layer(&m->dense2, m->dense2_bias, y, 1, x);
    layer(&m->condition_a, m->condition_a_bias, x, 0, out->a);
    layer(&m->condition_b, m->condition_b_bias, x, 0, out->b);

    /* feature 19 is ln(1 + exp(5 c)) / ln(1 + exp(5)) - 0.5 of the correlation c */
    const float squashed = expf((features[3 * LPCNET_FEATURES + 19] + 0.5f) * 5.0067153f) - 1.f;
    out->correlation = squashed > 1e-3f ? fminf(logf(squashed) / 5.f, 1.f) : -1.f;
}

/* ---- the sample network ---- */

/* A state as the dot products want it, beside the floats. */
typedef struct {
    State8 a[LPCNET_MAX_UNITS] ALIGNED;
    State8 b[LPCNET_MAX_UNITS] ALIGNED;
    float zr[2 * LPCNET_MAX_UNITS] ALIGNED;    /* GRU A's gates z and r: [units / 16][2][16] */
    float input[LPCNET_MAX_UNITS] ALIGNED;     /* to its n gate */
    float recurrent[LPCNET_MAX_UNITS] ALIGNED; /* what r multiplies */
} Scratch;

static void scratch_init(Scratch *s, const LpcnetModel *m, const LpcnetState *state) {
    memset(s, 0, sizeof *s); /* chains reach beyond the last unit */
    for (int i = 0; i < m->units_a; i += LANES) store_state8(s->a + i, load(state->a + i));
    for (int i = 0; i < m->units_b; i += LANES) store_state8(s->b + i, load(state->b + i));
}

/* The next state of a GRU from what t holds of its gates:
 * h' = z h + (1 - z) n with n = tanh(input + r * recurrent). */
INLINE void advance(Scratch *t, int units, float *state, State8 *state8, const int quantised) {
    vf x[CHAINS];
    for (int i = 0; i < 2 * units; i += CHAINS * LANES) {
        for (int k = 0; k < CHAINS; k++) x[k] = load(t->zr + i + k * LANES);
        sigmoids(x, CHAINS);
        for (int k = 0; k < CHAINS; k++) store(t->zr + i + k * LANES, x[k]);
    }
    for (int i = 0; i < units; i += CHAINS * LANES) {
        for (int k = 0; k < CHAINS; k++) {
            const int at = i + k * LANES, r = 2 * (at & ~15) + 16 + (at & 15);
            x[k] = load(t->input + at) + load(t->zr + r) * load(t->recurrent + at);
        }
        tanhs(x, CHAINS);
        for (int k = 0; k < CHAINS; k++) {
            const int at = i + k * LANES, z = 2 * (at & ~15) + (at & 15);
            const vf h = x[k] + load(t->zr + z) * (load(state + at) - x[k]);
            store(state + at, h);
            if (quantised) store_state8(state8 + at, h);
        }
    }
}

INLINE void step(const LpcnetModel *m, const LpcnetCondition *c, LpcnetState *s, Scratch *t,
                 int signal, int prediction, int excitation, const int quantised) {
    const ptrdiff_t width = 3 * (ptrdiff_t)m->units_a;
    const int16_t *e0 = m->embedding + signal * width;
    const int16_t *e1 = m->embedding + (LPCNET_LEVELS + prediction) * width;
    const int16_t *e2 = m->embedding + (2 * LPCNET_LEVELS + excitation) * width;

    for (int u = 0; u < m->units_a / 16; u++)
        for (int gate = 0; gate < 3; gate++) {
            vf input[PARTS], product[PARTS];
            for (int k = 0; k < PARTS; k++) {
                const ptrdiff_t i = 48 * u + 16 * gate + k * LANES;
                const vh levels = *(const vh_loose *)(e0 + i) + *(const vh_loose *)(e1 + i) +
                                        *(const vh_loose *)(e2 + i);
                input[k] = load(c->a + i) + to_float(widen(levels)) *
                                                load(m->embedding_scale + i);
                product[k] = gate < 2 ? splat(0) : load(m->bias_a + 16 * u + k * LANES);
            }
            rows(&m->recurrent_a, 3 * u + gate, s->a, t->a, product, quantised);
            for (int k = 0; k < PARTS; k++)
                if (gate < 2) {
                    store(t->zr + 32 * u + 16 * gate + k * LANES, input[k] + product[k]);
                } else {
                    store(t->input + 16 * u + k * LANES, input[k]);
                    store(t->recurrent + 16 * u + k * LANES, product[k]);
                }
        }
    advance(t, m->units_a, s->a, t->a, quantised);

    for (int u = 0; u < m->units_b / 16; u++) {
        vf input[3 * PARTS], product[3 * PARTS];
        for (int k = 0; k < 3 * PARTS; k++) {
            input[k] = load(c->b + 48 * u + k * LANES);
            product[k] = splat(0);
        }
        for (int p = 0; p < PARTS; p++)
            product[2 * PARTS + p] = load(m->bias_b + 16 * u + p * LANES);
        stripe(&m->recurrent_b, 3 * u, 3, s->b, t->b, product, quantised);
        stripe(&m->input_b, 3 * u, 3, s->a, t->a, input, quantised);
        for (int k = 0; k < 2 * PARTS; k++)
            store(t->zr + 32 * u + k * LANES, input[k] + product[k]);
        for (int k = 0; k < PARTS; k++) {
            store(t->input + 16 * u + k * LANES, input[2 * PARTS + k]);
            store(t->recurrent + 16 * u + k * LANES, product[2 * PARTS + k]);
        }
    }
    advance(t, m->units_b, s->b, t->b, quantised);
}

/* Logits of the tree's nodes from 16 b on, n blocks of them: 1, 2 or 4. Node m has children 2 m
 * (bit 0) and 2 m + 1 (bit 1). */
INLINE void node_logits(const LpcnetModel *m, int b, const int n, const LpcnetState *s,
                        const Scratch *t, vf *out, const int quantised) {
    vf v[4 * 2 * PARTS];
    for (int k = 0; k < n * 2 * PARTS; k++) v[k] = load(m->node_bias + 32 * b + k * LANES);
    EACH stripe(&m->nodes, 2 * (b + i), 2, s->b, t->b, v + i * 2 * PARTS, quantised);
    const int chains = 2 * n * PARTS < CHAINS ? 2 * n * PARTS : CHAINS;
    for (int k = 0; k < n * 2 * PARTS; k += chains) tanhs(v + k, chains);
    EACH for (int p = 0; p < PARTS; p++) {
        const float *scale = m->node_scale + 32 * (b + i) + p * LANES;
        const vf *first = v + i * 2 * PARTS + p;
        out[i * PARTS + p] = load(scale) * *first + load(scale + 16) * first[PARTS];
    }
}

/* Probabilities of bit 1 at those nodes. */
INLINE void node_bits(const LpcnetModel *m, int b, const int n, const LpcnetState *s,
                      const Scratch *t, float *out, const int quantised) {
    vf v[4 * PARTS];
    node_logits(m, b, n, s, t, v, quantised);
    const int chains = n * PARTS < CHAINS ? n * PARTS : CHAINS;
    for (int k = 0; k < n * PARTS; k += chains) sigmoids(v + k, chains);
    for (int k = 0; k < n * PARTS; k++) store(out + k * LANES, v[k]);
}

/* Uniform in [0, 1): xorshift64*. */
INLINE float uniform(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (float)((*state * 0x2545f4914f6cdd1du) >> 40) * 0x1p-24f;
}

INLINE int draw_by_walk(const LpcnetModel *m, const LpcnetSampling *how, float power,
                        LpcnetState *s, const Scratch *t, const int quantised) {
    float p[16] ALIGNED;
    int node = 1, block = -1;
    for (int level = 0; level < 8; level++) {
        if (block != node / 16) {
            vf logits[PARTS];
            block = node / 16;
            node_logits(m, block, 1, s, t, logits, quantised);
            for (int i = 0; i < PARTS; i++) store(p + i * LANES, sigmoid(power * logits[i]));
        }
        float one = p[node % 16];
        one = one < how->cut ? 0.f : one > 1.f - how->cut ? 1.f : one;
        node = 2 * node + (uniform(&s->random) < one);
    }
    return node - LPCNET_LEVELS;
}

/* Whether any of 16 nodes has a level over the floor. */
INLINE int alive(const float *p, float floor) {
    int any = 0;
    for (int i = 0; i < PARTS; i++) any |= vf_any_at_least(load(p + i * LANES), floor);
    return any;
}

/* How many of x[n], from the first, *left covers; takes those off it. Without branches: no
 * processor predicts where a draw ends. */
INLINE int pass(const float *x, int n, float *left) {
    float total = 0, below = 0;
    int count = 0;
    for (int i = 0; i < n; i++) {
        total += x[i];
        const int passed = total <= *left;
        count += passed;
        below = passed ? total : below;
    }
    *left -= below;
    return count;
}

/* Distributes the probabilities of 16 nodes over their 32 children. */
INLINE void descend(const float *nodes, const float *bits, float *children) {
    for (int i = 0; i < 16; i += LANES) {
        const vf here = load(nodes + i), up = here * load(bits + i);
        interleave(children + 2 * i, here - up, up);
    }
}

/* Sharpens the distribution, takes the floor off and draws. Levels under the floor are dropped
 * before the power: for exponents of 1 and more the power could not lift them over it, so whole
 * subtrees need not be looked at. */
INLINE int draw_from_distribution(const LpcnetModel *m, const LpcnetSampling *how, float power,
                                  LpcnetState *s, const Scratch *t, const int quantised) {
    float p[LPCNET_LEVELS] ALIGNED;    /* [node]: probability of coming by */
    float bit[LPCNET_LEVELS] ALIGNED;  /* [node]: of going on to child 1 */
    float leaf[LPCNET_LEVELS] ALIGNED; /* of levels: 32 for each live block of last nodes */
    int origin[8], count = 0;          /* those blocks */
    /* The upper nodes, and those of the middle levels, which are hardly ever improbable: together,
     * without waiting for what leads to them. */
    node_bits(m, 0, 4, s, t, bit, quantised);
    p[1] = 1.f;
    for (int node = 1; node < 16; node++) {
        p[2 * node + 1] = p[node] * bit[node];
        p[2 * node] = p[node] - p[2 * node + 1];
    }
    node_bits(m, 5, 2, s, t, bit + 16 * 5, quantised);
    node_bits(m, 11, 2, s, t, bit + 16 * 11, quantised);
    for (int b = 1; b < 4; b++) descend(p + 16 * b, bit + 16 * b, p + 32 * b);
    for (int b = 4; b < 8; b++) {
        if (b == 4 || b == 7) {
            if (!alive(p + 16 * b, how->floor)) {
                memset(p + 32 * b, 0, 32 * sizeof *p);
                continue;
            }
            node_bits(m, b, 1, s, t, bit + 16 * b, quantised);
        }
        descend(p + 16 * b, bit + 16 * b, p + 32 * b);
    }
    for (int b = 8; b < 16; b++) {
        origin[count] = b;
        count += alive(p + 16 * b, how->floor);
    }
    for (int k = 0; k < count; k++) {
        const int b = origin[k];
        if (b != 11 && b != 12) node_bits(m, b, 1, s, t, bit + 16 * b, quantised);
        descend(p + 16 * b, bit + 16 * b, leaf + 32 * k);
    }

    vf total = splat(0);
    for (int i = 0; i < 32 * count; i += LANES) {
        vf q = load(leaf + i);
        q = (vf)((vi)q & (q >= how->floor));
        if (power != 1.f) q = (vf)((vi)power_(q, power) & (q > 0.f));
        store(leaf + i, q);
        total += q;
    }
    const float norm = 1.f / sum(total);
    float mass[16], rest = 0; /* of 16 levels */
    for (int b = 0; b < 2 * count; b++) {
        vf in_block = splat(0);
        for (int i = 0; i < PARTS; i++) {
            const vf q = vf_max(load(leaf + 16 * b + i * LANES) * norm - how->floor, splat(0));
            store(leaf + 16 * b + i * LANES, q);
            in_block += q;
        }
        rest += mass[b] = sum(in_block);
    }
    float left = uniform(&s->random) * rest;
    if (!(rest > 0)) return LPCNET_LEVELS / 2; /* all as likely, and the floor as high */
    /* sums are rounded: should a draw end behind the last one with a chance, go back to that */
    int b = pass(mass, 2 * count, &left);
    while (b == 2 * count || (b > 0 && mass[b] <= 0.f)) b--;
    int i = pass(leaf + 16 * b, 16, &left);
    while (i == 16 || (i > 0 && leaf[16 * b + i] <= 0.f)) i--;
    return 32 * (origin[b / 2] - 8) + 16 * (b % 2) + i;
}

INLINE float clamp(float x, float limit) { return x > limit ? limit : x < -limit ? -limit : x; }

INLINE float predict(const float *lpc_newest_last, const float *history) {
    vf x = load(lpc_newest_last) * load(history);
    for (int i = LANES; i < LPCNET_ORDER; i += LANES)
        x += load(lpc_newest_last + i) * load(history + i);
    return sum(x);
}

/* One stretch under one condition; pcm is read if forced, written otherwise. */
INLINE void stretch(const LpcnetModel *m, const LpcnetCondition *c, const LpcnetSampling *how,
                    LpcnetState *s, int n, int16_t *written, const int16_t *pcm, float *logits,
                    uint8_t *excitations, const int quantised) {
    Scratch t;
    float line[LPCNET_ORDER + LPCNET_SPAN] ALIGNED, lpc[LPCNET_ORDER] ALIGNED;
    scratch_init(&t, m, s);
    for (int i = 0; i < LPCNET_ORDER; i++) lpc[i] = c->lpc[LPCNET_ORDER - 1 - i];
    memcpy(line, s->signal, sizeof s->signal);
    float power = 1.f;
    if (!pcm && how->voicing * c->correlation > 0.5f) power += how->voicing * c->correlation - 0.5f;

    for (int i = 0; i < n; i++) {
        float *now = line + LPCNET_ORDER + i;
        const float prediction = predict(lpc, line + i);
        step(m, c, s, &t, mu_law_level(now[-1]), mu_law_level(prediction), s->excitation,
             quantised);
        if (logits)
            for (int b = 0; b < 16; b++) {
                vf v[PARTS];
                node_logits(m, b, 1, s, &t, v, quantised);
                for (int p = 0; p < PARTS; p++) store(logits + 256 * i + 16 * b + p * LANES, v[p]);
            }
        if (pcm) {
            *now = pcm[i] - LPCNET_EMPHASIS * s->output;
            s->output = pcm[i];
            s->excitation = mu_law_level(*now - prediction);
            if (excitations) excitations[i] = (uint8_t)s->excitation;
        } else {
            s->excitation = how->walk ? draw_by_walk(m, how, power, s, &t, quantised)
                                      : draw_from_distribution(m, how, power, s, &t, quantised);
            *now = clamp(prediction + m->mu_law[s->excitation], 65536.f);
            s->output = clamp(*now + LPCNET_EMPHASIS * s->output, 32767.f);
            written[i] = (int16_t)lrintf(s->output);
        }
    }
    memcpy(s->signal, line + n, sizeof s->signal);
}

static void run(const LpcnetModel *m, const LpcnetCondition *c, const LpcnetSampling *how,
                LpcnetState *s, int n, int16_t *pcm) {
    if (m->quantised)
        stretch(m, c, how, s, n, pcm, NULL, NULL, NULL, 1);
    else
        stretch(m, c, how, s, n, pcm, NULL, NULL, NULL, 0);
}

static void force(const LpcnetModel *m, const LpcnetCondition *c, LpcnetState *s, int n,
                  const int16_t *pcm, float *logits, uint8_t *excitations) {
    if (m->quantised)
        stretch(m, c, NULL, s, n, NULL, pcm, logits, excitations, 1);
    else
        stretch(m, c, NULL, s, n, NULL, pcm, logits, excitations, 0);
}

const LpcnetPath PATH_SYMBOL = {PATH_NAME, PATH_ORDER, STATE_OFFSET, condition, run, force};
