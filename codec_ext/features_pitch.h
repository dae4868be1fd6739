#ifndef FEATURES_PITCH_H
#define FEATURES_PITCH_H

#include "features_tables.h"

#define MIN_PERIOD 32
#define MAX_PERIOD 255
#define LAGS (MAX_PERIOD - MIN_PERIOD + 1)

/* History of the low-passed residual: the newest hop, one hop before it and the longest period. */
#define RESIDUAL_HISTORY (WINDOW + MAX_PERIOD + 1)

typedef struct {
    float residual[RESIDUAL_HISTORY];
    float low_pass[2];          /* biquad memory, transposed direct form II */
    float products[LAGS];       /* previous hop's sums of x[n] x[n - lag] */
    float score[LAGS];          /* of the best path that ends at each lag */
} PitchTracker;

typedef struct {
    float period;      /* samples, refined below one sample; rounds to the integer lag found */
    float correlation; /* newest hop against one period earlier, -1..1 */
} Pitch;

void pitch_init_tables(void);

void pitch_reset(PitchTracker *t);

/* Takes one hop of the pre-emphasised signal, preceded in memory by ORDER more samples, and the
   predictor of the window that ends with it. */
Pitch pitch_track(PitchTracker *t, const float *restrict hop, const float *restrict lpc);

#endif
