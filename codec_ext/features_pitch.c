#include "features_pitch.h"

#include <math.h>
#include <string.h>

/* Elliptic, order 2, 2 dB ripple, 20 dB stop band, 1200 Hz at 16 kHz. */
static const float LOW_PASS_B[3] = {0.11411735f, -0.09694279f, 0.11411735f};
static const float LOW_PASS_A[2] = {-1.54324413f, 0.70853086f};

/* In int16 units; far under anything that was ever a sample, far above where squares turn into
   denormal numbers. */
static const float NOTHING = 1e-9f;

/* Penalties in units of squared correlation. */
static const float OCTAVE_BIAS = 0.15f;   /* per octave of period: a multiple fits as well */
static const float FREE_STEP = 0.02f;     /* octaves a hop that cost nothing */
static const float STEP_COST = 0.7f;      /* per octave beyond it */
static const float LEAP_COST = 0.4f;      /* to anywhere: onsets, octave corrections */

static float lag_bias[LAGS];
static float step_cost[LAGS];  /* from lag i - 1 to lag i */
static int free_reach[LAGS];   /* lags within FREE_STEP */

void pitch_init_tables(void)
{
    for (int i = 0; i < LAGS; i++) {
        const double lag = MIN_PERIOD + i;
        lag_bias[i] = 1 - OCTAVE_BIAS * (float)log2(lag / MIN_PERIOD);
        step_cost[i] = STEP_COST * (float)log2(lag / (lag - 1));
        free_reach[i] = (int)(lag * (exp2(FREE_STEP) - 1) + 0.5);
    }
}

void pitch_reset(PitchTracker *t)
{
    memset(t, 0, sizeof *t);
}

static void filter_residual(PitchTracker *t, const float *restrict hop, const float *restrict lpc)
{
    float residual[HOP];
    memcpy(residual, hop, sizeof residual);
    for (int i = 0; i < ORDER; i++) {
        for (int n = 0; n < HOP; n++) {
            residual[n] -= lpc[i] * hop[n - 1 - i];
        }
    }

    memmove(t->residual, t->residual + HOP, (RESIDUAL_HISTORY - HOP) * sizeof *t->residual);
    float *out = t->residual + RESIDUAL_HISTORY - HOP;
    float m0 = t->low_pass[0], m1 = t->low_pass[1];
    for (int n = 0; n < HOP; n++) {
        const float x = residual[n], y = LOW_PASS_B[0] * x + m0;
        m0 = LOW_PASS_B[1] * x - LOW_PASS_A[0] * y + m1;
        m1 = LOW_PASS_B[2] * x - LOW_PASS_A[1] * y;
        out[n] = y;
    }
    /* One hop takes NOTHING down to 1e-21: clearing once a hop is enough. */
    t->low_pass[0] = fabsf(m0) < NOTHING ? 0 : m0;
    t->low_pass[1] = fabsf(m1) < NOTHING ? 0 : m1;
    for (int n = 0; n < HOP; n++) {
        out[n] = fabsf(out[n]) < NOTHING ? 0 : out[n];
    }
}

#define LAGS_AT_ONCE 16 /* LAGS is a multiple */

/* products[i] = sum of x[n] x[n - MIN_PERIOD - i] over one hop. */
static void correlate(const float *restrict x, float *restrict products)
{
    for (int first = 0; first < LAGS; first += LAGS_AT_ONCE) {
        const float *past = x - MIN_PERIOD - first - (LAGS_AT_ONCE - 1);
        float sum[LAGS_AT_ONCE] = {0};
        for (int n = 0; n < HOP; n++) {
            for (int i = 0; i < LAGS_AT_ONCE; i++) {
                sum[i] += x[n] * past[n + i];
            }
        }
        for (int i = 0; i < LAGS_AT_ONCE; i++) {
            products[first + LAGS_AT_ONCE - 1 - i] = sum[i];
        }
    }
}

/* Best path score that reaches each lag, before this hop's own evidence. */
static void move(const float *restrict score, float *restrict reached)
{
    float best = score[0];
    for (int i = 1; i < LAGS; i++) {
        best = fmaxf(best, score[i]);
    }
    for (int i = 0; i < LAGS; i++) {
        float m = best - LEAP_COST;
        const int from = i > free_reach[i] ? i - free_reach[i] : 0;
        const int to = i + free_reach[i] < LAGS ? i + free_reach[i] : LAGS - 1;
        for (int j = from; j <= to; j++) {
            m = m > score[j] ? m : score[j];
        }
        reached[i] = m;
    }
    for (int i = 1; i < LAGS; i++) {
        const float m = reached[i - 1] - step_cost[i];
        reached[i] = m > reached[i] ? m : reached[i];
    }
    for (int i = LAGS - 2; i >= 0; i--) {
        const float m = reached[i + 1] - step_cost[i + 1];
        reached[i] = m > reached[i] ? m : reached[i];
    }
    for (int i = 0; i < LAGS; i++) {
        reached[i] -= best; /* so that scores stay bounded */
    }
}

/* Fraction of a sample to the top of the parabola through three points, within half a sample. */
static float parabola_top(float left, float middle, float right)
{
    const float curvature = left - 2 * middle + right;
    if (!(curvature < 0)) {
        return 0;
    }
    const float offset = 0.5f * (left - right) / curvature;
    return fminf(fmaxf(offset, -0.49f), 0.49f);
}

Pitch pitch_track(PitchTracker *t, const float *restrict hop, const float *restrict lpc)
{
    filter_residual(t, hop, lpc);

    double energy_to[RESIDUAL_HISTORY + 1]; /* of all samples before one */
    energy_to[0] = 0;
    for (int n = 0; n < RESIDUAL_HISTORY; n++) {
        energy_to[n + 1] = energy_to[n] + (double)t->residual[n] * t->residual[n];
    }

    const int end = RESIDUAL_HISTORY, newest = end - HOP, start = end - WINDOW;
    float products[LAGS], correlation[LAGS], reached[LAGS];
    correlate(t->residual + newest, products);
    const float energy = (float)(energy_to[end] - energy_to[start]);
    for (int i = 0; i < LAGS; i++) {
        const int lag = MIN_PERIOD + i;
        const float past = (float)(energy_to[end - lag] - energy_to[start - lag]);
        correlation[i] = (products[i] + t->products[i]) / sqrtf(1 + energy * past);
    }

    move(t->score, reached);
    int found = 0;
    for (int i = 0; i < LAGS; i++) {
        const float c = correlation[i] > 0 ? correlation[i] : 0;
        t->score[i] = reached[i] + c * c * lag_bias[i];
        if (t->score[i] > t->score[found]) {
            found = i;
        }
    }

    Pitch pitch;
    const int lag = MIN_PERIOD + found;
    const float now = (float)(energy_to[end] - energy_to[newest]);
    const float before = (float)(energy_to[end - lag] - energy_to[newest - lag]);
    pitch.correlation = products[found] / sqrtf(1 + now * before);
    pitch.period = (float)lag;
    if (found > 0 && found < LAGS - 1) {
        pitch.period += parabola_top(correlation[found - 1], correlation[found],
                                     correlation[found + 1]);
    }
    memcpy(t->products, products, sizeof products);
    return pitch;
}
