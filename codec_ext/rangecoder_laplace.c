#include "rangecoder_laplace.h"

enum { PRECISION = 15, GROUP = 7 };

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void sign_table(uint16_t icdf[3], uint8_t p0)
{
    icdf[0] = (uint16_t)((1u << PRECISION) - ((uint32_t)p0 << 7));
    icdf[1] = icdf[0] / 2;
    icdf[2] = 0;
}

/* Geometric shares of 0..6 more and of "7 and more to come"; each keeps at least 1 / 32768. */
static void tail_table(uint16_t icdf[GROUP + 1], uint8_t r)
{
    uint32_t decay = (uint32_t)r << 7;
    icdf[0] = (uint16_t)larger(GROUP, decay);
    for (uint32_t i = 1; i < GROUP; i++)
        icdf[i] = (uint16_t)larger(GROUP - i, icdf[i - 1] * decay >> PRECISION);
    icdf[GROUP] = 0;
}

void laplace_encode(range_encoder *coder, int32_t value, uint8_t p0, uint8_t r)
{
    if (r == 0 || p0 == 255)
        return;
    uint16_t sign[3], tail[GROUP + 1];
    sign_table(sign, p0);
    range_encode_icdf(coder, value == 0 ? 0 : value > 0 ? 1 : 2, sign, PRECISION);
    if (value == 0)
        return;
    tail_table(tail, r);
    uint32_t rest = (uint32_t)(value > 0 ? value : -value) - 1;
    for (; rest >= GROUP; rest -= GROUP)
        range_encode_icdf(coder, GROUP, tail, PRECISION);
    range_encode_icdf(coder, rest, tail, PRECISION);
}

int32_t laplace_decode(range_decoder *coder, uint8_t p0, uint8_t r)
{
    if (r == 0 || p0 == 255)
        return 0;
    uint16_t sign[3], tail[GROUP + 1];
    sign_table(sign, p0);
    uint32_t kind = range_decode_icdf(coder, sign, PRECISION);
    if (kind == 0)
        return 0;
    tail_table(tail, r);
    uint32_t magnitude = 1, more;
    do {
        more = range_decode_icdf(coder, tail, PRECISION);
        magnitude += more;
    } while (more == GROUP && magnitude <= LAPLACE_LIMIT);
    if (magnitude > LAPLACE_LIMIT) {
        coder->failed = 1;
        magnitude = LAPLACE_LIMIT;
    }
    return kind == 1 ? (int32_t)magnitude : -(int32_t)magnitude;
}
