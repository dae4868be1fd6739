#ifndef FEATURES_CEPSTRUM_H
#define FEATURES_CEPSTRUM_H

#include "features_tables.h"

/* |DFT / 320|^2 of 320 windowed samples, bins 0..160. */
void power_spectrum(const float *restrict windowed, float *restrict power);

/* 320 pre-emphasised samples (not yet windowed) -> 18 cepstral features. */
void cepstrum(const float *restrict samples, float *restrict features);

/* 18 cepstral features -> predictor: p[n] = sum a[i] s[n-1-i] on the pre-emphasised signal. */
void cepstrum_to_lpc(const float *restrict features, float *restrict lpc);

#endif
