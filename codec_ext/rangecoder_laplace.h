#ifndef RANGECODER_LAPLACE_H
#define RANGECODER_LAPLACE_H

#include "rangecoder_core.h"

/* Laplace code of draft-ietf-mlcodec-opus-dred: the probability of zero is p0 / 256, the magnitude
 * beyond 1 decays by r / 256 a step. r = 0 or p0 = 255 means that the value is always 0 and takes
 * no bits. */

enum { LAPLACE_LIMIT = 4096 };

/* |value| <= LAPLACE_LIMIT */
void laplace_encode(range_encoder *coder, int32_t value, uint8_t p0, uint8_t r);
/* Any bytes give a value in [-LAPLACE_LIMIT, LAPLACE_LIMIT]; `failed` is set when it was cut. */
int32_t laplace_decode(range_decoder *coder, uint8_t p0, uint8_t r);

#endif
