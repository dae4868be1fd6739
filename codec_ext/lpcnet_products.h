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

/* Row block b of an int8 matrix times a quantised state, added to out[PARTS]. Blocks come in twos
 * (packing fills up with zeros), for two chains that hide the latency of the dot product. Their
 * columns are read together: loads are what the processor has least of here. */
INLINE void rows_int8(const LpcnetMatrix *m, int b, const State8 *x, vf *out) {
    vi even[PARTS], odd[PARTS];
    for (int p = 0; p < PARTS; p++) {
        even[p] = rows_offset(m, b, p);
        odd[p] = (vi){0};
    }
    const Weight8 *w = (const Weight8 *)m->weights + 64 * (ptrdiff_t)m->start[b];
    const uint16_t *column = m->column + m->start[b], *end = m->column + m->start[b + 1];
    for (; column < end; column += 2, w += 128) {
        uint32_t both; /* little-endian, as all machines this is for */
        memcpy(&both, column, sizeof both);
        accumulate8(even, w, x + (both & 0xffff));
        accumulate8(odd, w + 64, x + (both >> 16));
    }
    for (int p = 0; p < PARTS; p++) out[p] += rows_scaled(m, b, p, even[p] + odd[p]);
}

INLINE void rows(const LpcnetMatrix *m, int b, const float *x, const State8 *x8, vf *out,
                 const int quantised) {
    if (quantised)
        rows_int8(m, b, x8, out);
    else
        rows_float(m, b, x, out);
}

/* Row blocks b .. b + height - 1, at most 3, of a dense matrix with a multiple of 8 columns times a
 * vector, added to out[height * PARTS]: together, they share the broadcasts of the vector. */
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
    for (int i = 0; i < m->columns; i += 8, w += 128)
        for (int r = 0; r < height; r++) {
            accumulate8(even + r * PARTS, w + r * apart, x8 + i);
            accumulate8(odd + r * PARTS, w + r * apart + 64, x8 + i + 4);
        }
    for (int k = 0; k < height * PARTS; k++) out[k] += rows_scaled(m, b, k, even[k] + odd[k]);
}
