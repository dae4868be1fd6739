#ifndef FEATURES_EXTRACTOR_H
#define FEATURES_EXTRACTOR_H

#include <stdint.h>

#include "features_pitch.h"
#include "features_tables.h"

/* A flat struct: copying it copies the stream's state. */
typedef struct {
    float emphasised[WINDOW];
    float last_sample;
    PitchTracker pitch;
} Extractor;

/* Once per process, before anything else. */
void extractor_init_tables(void);

void extractor_reset(Extractor *e);

/* HOP samples -> FEATURES floats. */
void extractor_process(Extractor *e, const int16_t *restrict pcm, float *restrict features);

#endif
