#ifndef RANGECODER_CORE_H
#define RANGECODER_CORE_H

#include <stddef.h>
#include <stdint.h>

/* Range coder of RFC 6716, sections 4.1 (decoder) and 5.1 (encoder). Symbols go forward from the
 * start of the buffer, raw bits backward from its end. Nothing outside [0, size) is ever touched:
 * a decoder that runs dry reads zeros, an encoder that runs out of room sets `failed`. */

typedef struct {
    uint8_t *bytes;
    uint32_t size;
    uint32_t front;      /* bytes written from the start */
    uint32_t back;       /* bytes written from the end */
    uint32_t range;
    uint32_t low;
    int32_t pending;     /* last byte, held back for a carry; -1 before the first */
    uint32_t carries;    /* bytes of 255 held back behind it */
    uint32_t bits_total;
    uint64_t window;     /* raw bits not yet written */
    uint32_t window_bits;
    int failed;
} range_encoder;

typedef struct {
    const uint8_t *bytes;
    uint32_t size;
    uint32_t front;
    uint32_t back;
    uint32_t range;
    uint32_t difference; /* top of the range minus the code value, minus 1 */
    uint32_t scale;      /* range / total of the symbol being decoded */
    uint32_t last;       /* byte whose lowest bit is still to be used */
    uint32_t bits_total;
    uint64_t window;
    uint32_t window_bits;
    int failed;
} range_decoder;

void range_encoder_init(range_encoder *coder, uint8_t *bytes, uint32_t size);
/* 0 <= low < high <= total <= 65536 */
void range_encode(range_encoder *coder, uint32_t low, uint32_t high, uint32_t total);
void range_encode_binary(range_encoder *coder, uint32_t low, uint32_t high, uint32_t bits);
/* icdf[k] = 2^bits - cumulative frequency after symbol k; the last entry is 0 */
void range_encode_icdf(range_encoder *coder, uint32_t symbol, const uint16_t *icdf, uint32_t bits);
void range_encode_uint(range_encoder *coder, uint32_t value, uint32_t total);
void range_encode_bits(range_encoder *coder, uint32_t value, uint32_t bits);
uint32_t range_encoder_tell(const range_encoder *coder);
/* Complete the code in the first `size` bytes of the buffer; 0 if it does not fit. */
int range_encoder_finish(range_encoder *coder, uint32_t size);

void range_decoder_init(range_decoder *coder, const uint8_t *bytes, uint32_t size);
uint32_t range_decode(range_decoder *coder, uint32_t total);
uint32_t range_decode_binary(range_decoder *coder, uint32_t bits);
void range_decoder_update(range_decoder *coder, uint32_t low, uint32_t high, uint32_t total);
uint32_t range_decode_icdf(range_decoder *coder, const uint16_t *icdf, uint32_t bits);
uint32_t range_decode_uint(range_decoder *coder, uint32_t total);
uint32_t range_decode_bits(range_decoder *coder, uint32_t bits);
uint32_t range_decoder_tell(const range_decoder *coder);

#endif
