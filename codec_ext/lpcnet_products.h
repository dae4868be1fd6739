/* Products of matrices and vectors; included by lpcnet_template.h. */

/* Row block b of a float matrix times x, added to out[PARTS]. */
INLINE void rows_float(const LpcnetMatrix *m, int b, const float *x, vf *out) {
    vf even[PARTS], odd[PARTS]; /* two chains hide the latency of the multiply-add */
    for (int p = 0; p < PARTS; p++) even[p] = odd[p] = splat(0);
    const float *w = (const float *)m->weights + 64 * (ptrdiff_t)m->start[b];
    const uint16_t *column = m->column + m->start[b], *end = m->column + m->start[b + 1];
    for (; column < end; column++, w += 64) {
        const float *v = x + *column;
        for (int p = 0; p < PARTS; p++) {
            even[p] += v[0] * load(w + p * LANES);
            odd[p] += v[1] * load(w + 16 + p * LANES);
            even[p] += v[2] * load(w + 32 + p * LANES);
            odd[p] += v[3] * load(w + 48 + p * LANES);
        }
    }
    for (int p = 0; p < PARTS; p++) out[p] += even[p] + odd[p];
}

INLINE vi rows_offset(const LpcnetMatrix *m, int b, int p) {
    return *(const vi_loose *)(m->offset + 16 * b + p * LANES);
}

INLINE vf rows_scaled(const LpcnetMatrix *m, int b, int p, vi sum) {
    return to_float(sum) * load(m->scale + 16 * b + p * LANES);
}

/* Where the blocks of the next row of blocks are. */
typedef struct {
    const Weight8 *weights;
    const uint16_t *column;
} Blocks;

INLINE Blocks blocks_of(const LpcnetMatrix *m) {
    return (Blocks){(const Weight8 *)m->weights, m->column};
}

/* Row block b of an int8 matrix times a quantised state, added to out[PARTS]; blocks are taken from
 * `next`. */
INLINE void rows_int8(const LpcnetMatrix *m, int b, Blocks *next, const State8 *x, vf *out) {
    vi even[PARTS], odd[PARTS]; /* two chains hide the latency of a dot product */
    for (int p = 0; p < PARTS; p++) {
        even[p] = rows_offset(m, b, p);
        odd[p] = (vi){0};
    }
    const Weight8 *w = next->weights;
    const uint16_t *column = next->column, *end = m->column + m->start[b + 1];
    const int step = PARTS > 2 ? 2 : 4; /* of four parts, compilers make more sums than registers */
    if ((end - column) & (step - 2)) {
        accumulate8(even, odd, w, x + column[0], x + column[1]);
        column += 2;
        w += 128;
    }
    for (; column < end; column += step, w += 64 * step)
        for (int k = 0; k < step; k += 2)
            accumulate8(even, odd, w + 64 * k, x + column[k], x + column[k + 1]);
    next->weights = w;
    next->column = column;
    for (int p = 0; p < PARTS; p++) out[p] += rows_scaled(m, b, p, even[p] + odd[p]);
}

/* Row blocks, one after the other from the first: b takes `next` on to b + 1. */
INLINE void rows(const LpcnetMatrix *m, int b, Blocks *next, const float *x, const State8 *x8,
                 vf *out, const int quantised) {
    if (quantised)
        rows_int8(m, b, next, x8, out);
    else
        rows_float(m, b, x, out);
}

/* Row blocks b .. b + height - 1, at most 3, of a dense matrix packed in stripes of that height
 * times a vector, added to out[height * PARTS]: they share the broadcasts of the vector. */
INLINE void stripe(const LpcnetMatrix *m, int b, const int height, const float *x,
                   const State8 *x8, vf *out, const int quantised) {
    if (!quantised) {
        for (int r = 0; r < height; r++) rows_float(m, b + r, x, out + r * PARTS);
        return;
    }
    vi even[3 * PARTS], odd[3 * PARTS];
    for (int k = 0; k < height * PARTS; k++) {
        even[k] = rows_offset(m, b, k);
        odd[k] = (vi){0};
    }
    const ptrdiff_t apart = 16 * (ptrdiff_t)m->columns;
    const Weight8 *w = (const Weight8 *)m->weights + apart * b;
    const uint16_t *column = m->column + m->start[b], *end = m->column + m->start[b + 1];
    for (; column < end; column += 2, w += 128)
        for (int r = 0; r < height; r++)
            accumulate8(even + r * PARTS, odd + r * PARTS, w + r * apart, x8 + column[0],
                        x8 + column[1]);
    for (int k = 0; k < height * PARTS; k++) out[k] += rows_scaled(m, b, k, even[k] + odd[k]);
}
