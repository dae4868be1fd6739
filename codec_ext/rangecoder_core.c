#include "rangecoder_core.h"

#include <string.h>

enum { SYMBOL_BITS = 8, CODE_BITS = 32, UINT_BITS = 8 };
#define CODE_TOP (1u << 31)
#define CODE_BOTTOM (CODE_TOP >> SYMBOL_BITS)
#define CODE_MASK (CODE_TOP - 1)
#define CODE_SHIFT (CODE_BITS - SYMBOL_BITS - 1)

/* Number of bits needed for a value, 0 for 0. */
static uint32_t bit_length(uint32_t value)
{
    return value ? 32u - (uint32_t)__builtin_clz(value) : 0u;
}

/* ---- encoder (section 5.1) ---- */

void range_encoder_init(range_encoder *coder, uint8_t *bytes, uint32_t size)
{
    memset(coder, 0, sizeof(*coder));
    coder->bytes = bytes;
    coder->size = size;
    coder->range = CODE_TOP;
    coder->pending = -1;
    coder->bits_total = CODE_BITS + 1;
}

static void put_front(range_encoder *coder, uint32_t byte)
{
    if (coder->front + coder->back >= coder->size) {
        coder->failed = 1;
        return;
    }
    coder->bytes[coder->front++] = (uint8_t)byte;
}

static void put_back(range_encoder *coder, uint32_t byte)
{
    if (coder->front + coder->back >= coder->size) {
        coder->failed = 1;
        return;
    }
    coder->bytes[coder->size - ++coder->back] = (uint8_t)byte;
}

/* A symbol of 9 bits: the ninth is a carry into what is held back. Section 5.1.1. */
static void carry_out(range_encoder *coder, uint32_t symbol)
{
    if (symbol == 255) {
        coder->carries++;
        return;
    }
    uint32_t carry = symbol >> SYMBOL_BITS;
    if (coder->pending >= 0)
        put_front(coder, (uint32_t)coder->pending + carry);
    for (; coder->carries > 0; coder->carries--)
        put_front(coder, 255 + carry);
    coder->pending = (int32_t)(symbol & 255);
}

static void encoder_normalise(range_encoder *coder)
{
    while (coder->range <= CODE_BOTTOM) {
        carry_out(coder, coder->low >> CODE_SHIFT);
        coder->low = (coder->low << SYMBOL_BITS) & CODE_MASK;
        coder->range <<= SYMBOL_BITS;
        coder->bits_total += SYMBOL_BITS;
    }
}

static void encode_scaled(range_encoder *coder, uint32_t scale, uint32_t low, uint32_t high,
                          uint32_t total)
{
    if (low > 0) {
        coder->low += coder->range - scale * (total - low);
        coder->range = scale * (high - low);
    } else {
        coder->range -= scale * (total - high);
    }
    encoder_normalise(coder);
}

void range_encode(range_encoder *coder, uint32_t low, uint32_t high, uint32_t total)
{
    encode_scaled(coder, coder->range / total, low, high, total);
}

void range_encode_binary(range_encoder *coder, uint32_t low, uint32_t high, uint32_t bits)
{
    encode_scaled(coder, coder->range >> bits, low, high, 1u << bits);
}

void range_encode_icdf(range_encoder *coder, uint32_t symbol, const uint16_t *icdf, uint32_t bits)
{
    uint32_t total = 1u << bits;
    uint32_t low = symbol > 0 ? total - icdf[symbol - 1] : 0;
    encode_scaled(coder, coder->range >> bits, low, total - icdf[symbol], total);
}

void range_encode_uint(range_encoder *coder, uint32_t value, uint32_t total)
{
    uint32_t last = total - 1;
    uint32_t length = bit_length(last);
    if (length > UINT_BITS) {
        length -= UINT_BITS;
        uint32_t top = value >> length;
        range_encode(coder, top, top + 1, (last >> length) + 1);
        range_encode_bits(coder, value & ((1u << length) - 1), length);
    } else {
        range_encode(coder, value, value + 1, total);
    }
}

void range_encode_bits(range_encoder *coder, uint32_t value, uint32_t bits)
{
    coder->window |= (uint64_t)value << coder->window_bits;
    coder->window_bits += bits;
    while (coder->window_bits >= SYMBOL_BITS) {
        put_back(coder, (uint32_t)(coder->window & 255));
        coder->window >>= SYMBOL_BITS;
        coder->window_bits -= SYMBOL_BITS;
    }
    coder->bits_total += bits;
}

uint32_t range_encoder_tell(const range_encoder *coder)
{
    return coder->bits_total - bit_length(coder->range);
}

int range_encoder_finish(range_encoder *coder, uint32_t size)
{
    if (coder->failed || size > coder->size || coder->front + coder->back > size)
        return 0;
    memmove(coder->bytes + size - coder->back, coder->bytes + coder->size - coder->back,
            coder->back);
    coder->size = size;

    /* Section 5.1.5: the value in the final range with the most trailing zeros. */
    int32_t length = CODE_BITS - (int32_t)bit_length(coder->range);
    uint32_t mask = CODE_MASK >> length;
    uint32_t end = (coder->low + mask) & ~mask;
    if ((end | mask) >= coder->low + coder->range) {
        length++;
        mask >>= 1;
        end = (coder->low + mask) & ~mask;
    }
    while (length > 0) {
        carry_out(coder, end >> CODE_SHIFT);
        end = (end << SYMBOL_BITS) & CODE_MASK;
        length -= SYMBOL_BITS;
    }
    if (coder->pending >= 0 || coder->carries > 0)
        carry_out(coder, 0);

    if (coder->failed)
        return 0;
    memset(coder->bytes + coder->front, 0, size - coder->front - coder->back);
    if (coder->window_bits > 0) {
        if (coder->back >= size)
            return 0;
        uint32_t left = coder->window_bits;
        /* The last raw bits may share a byte with the symbols, whose final -length bits are free. */
        if (coder->front + coder->back >= size && (uint32_t)-length < left)
            return 0;
        coder->bytes[size - coder->back - 1] |= (uint8_t)coder->window;
    }
    return 1;
}

/* ---- decoder (section 4.1) ---- */

static uint32_t get_front(range_decoder *coder)
{
    return coder->front < coder->size ? coder->bytes[coder->front++] : 0;
}

static void decoder_normalise(range_decoder *coder)
{
    while (coder->range <= CODE_BOTTOM) {
        uint32_t next = get_front(coder);
        uint32_t symbol = ((coder->last << SYMBOL_BITS | next) >> 1) & 255;
        coder->last = next;
        coder->range <<= SYMBOL_BITS;
        coder->difference = ((coder->difference << SYMBOL_BITS) + (255 - symbol)) & CODE_MASK;
        coder->bits_total += SYMBOL_BITS;
    }
}

void range_decoder_init(range_decoder *coder, const uint8_t *bytes, uint32_t size)
{
    memset(coder, 0, sizeof(*coder));
    coder->bytes = bytes;
    coder->size = size;
    coder->last = get_front(coder);
    coder->range = 128;
    coder->difference = 127 - (coder->last >> 1);
    coder->bits_total = 9;
    decoder_normalise(coder);
}

static uint32_t locate(const range_decoder *coder, uint32_t total)
{
    uint32_t below = coder->difference / coder->scale + 1;
    return total - (below < total ? below : total);
}

uint32_t range_decode(range_decoder *coder, uint32_t total)
{
    coder->scale = coder->range / total;
    return locate(coder, total);
}

uint32_t range_decode_binary(range_decoder *coder, uint32_t bits)
{
    coder->scale = coder->range >> bits;
    return locate(coder, 1u << bits);
}

void range_decoder_update(range_decoder *coder, uint32_t low, uint32_t high, uint32_t total)
{
    uint32_t above = coder->scale * (total - high);
    coder->difference -= above;
    coder->range = low > 0 ? coder->scale * (high - low) : coder->range - above;
    decoder_normalise(coder);
}

uint32_t range_decode_icdf(range_decoder *coder, const uint16_t *icdf, uint32_t bits)
{
    uint32_t scale = coder->range >> bits;
    uint32_t above = coder->range;
    uint32_t symbol = 0;
    uint32_t bound = scale * icdf[0];
    while (coder->difference < bound) {
        above = bound;
        bound = scale * icdf[++symbol];
    }
    coder->difference -= bound;
    coder->range = above - bound;
    decoder_normalise(coder);
    return symbol;
}

uint32_t range_decode_uint(range_decoder *coder, uint32_t total)
{
    uint32_t last = total - 1;
    uint32_t length = bit_length(last);
    if (length > UINT_BITS) {
        length -= UINT_BITS;
        uint32_t tops = (last >> length) + 1;
        uint32_t top = range_decode(coder, tops);
        range_decoder_update(coder, top, top + 1, tops);
        uint32_t value = top << length | range_decode_bits(coder, length);
        if (value <= last)
            return value;
        coder->failed = 1;
        return last;
    }
    uint32_t value = range_decode(coder, total);
    range_decoder_update(coder, value, value + 1, total);
    return value;
}

uint32_t range_decode_bits(range_decoder *coder, uint32_t bits)
{
    while (coder->window_bits < bits) {
        uint64_t byte = coder->back < coder->size ? coder->bytes[coder->size - ++coder->back] : 0;
        coder->window |= byte << coder->window_bits;
        coder->window_bits += SYMBOL_BITS;
    }
    uint32_t value = (uint32_t)(coder->window & ((UINT64_C(1) << bits) - 1));
    coder->window >>= bits;
    coder->window_bits -= bits;
    coder->bits_total += bits;
    return value;
}

uint32_t range_decoder_tell(const range_decoder *coder)
{
    return coder->bits_total - bit_length(coder->range);
}
