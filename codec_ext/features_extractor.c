#include "features_extractor.h"

#include <math.h>
#include <string.h>

#include "features_cepstrum.h"

static const float PREEMPHASIS = 0.85f;

void extractor_init_tables(void)
{
    features_init_tables();
    pitch_init_tables();
}

void extractor_reset(Extractor *e)
{
    memset(e, 0, sizeof *e);
    pitch_reset(&e->pitch);
}

void extractor_process(Extractor *e, const int16_t *restrict pcm, float *restrict features)
{
    float *hop = e->emphasised + WINDOW - HOP;
    memcpy(e->emphasised, e->emphasised + HOP, (WINDOW - HOP) * sizeof *hop);
    hop[0] = pcm[0] - PREEMPHASIS * e->last_sample;
    for (int n = 1; n < HOP; n++) {
        hop[n] = pcm[n] - PREEMPHASIS * pcm[n - 1];
    }
    e->last_sample = pcm[HOP - 1];

    cepstrum(e->emphasised, features);
    float lpc[ORDER];
    cepstrum_to_lpc(features, lpc);
    const Pitch pitch = pitch_track(&e->pitch, hop, lpc);

    features[18] = log2f(256 / pitch.period) - 1.5f;
    /* Squashed so that steps among good correlations weigh more than among bad ones. */
    features[19] = log1pf(expf(5 * pitch.correlation)) / log1pf(expf(5)) - 0.5f;
}
