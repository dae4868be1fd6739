/* The kernel, once for every instruction set.
 *
 * A path includes this after defining
 *   PATH_NAME, PATH_SYMBOL, PATH_ORDER
 *   LANES                        floats in a vector; vf and vi are vectors of floats and int32
 *   State8                       what a quantised state value is stored as
 *   vf_min, vf_max, vf_divide, vf_any_at_least, interleave
 *   store_state8(State8 *, vf)   round(127 x) of LANES values
 *   accumulate8(vi *even, vi *odd, w, x, y)
 *                                two int8 blocks of 16 rows times the 4 values at x and those at y,
 *                                exactly, added to even + odd
 *   STATE_OFFSET                 what store_state8 adds to a value
 */
#include "lpcnet_kernel.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "lpcnet_math.h"
#include "lpcnet_products.h"
#include "lpcnet_gru.h"
#include "lpcnet_draw.h"

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
    scratch_init(&t, m, c, s);
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

const LpcnetPath PATH_SYMBOL = {PATH_NAME, PATH_ORDER, LANES,     STATE_OFFSET,
                               condition, run,        force};
