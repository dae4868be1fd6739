/* The two GRUs of the sample network; included by lpcnet_template.h. */
/* A state as the dot products want it, beside the floats. */
typedef struct {
    State8 a[LPCNET_MAX_UNITS] ALIGNED;
    State8 b[LPCNET_MAX_UNITS] ALIGNED;
    float zr[2 * LPCNET_MAX_UNITS] ALIGNED;    /* GRU A's gates z and r: [units / 16][2][16] */
    float input[LPCNET_MAX_UNITS] ALIGNED;     /* to its n gate */
    float recurrent[LPCNET_MAX_UNITS] ALIGNED; /* what r multiplies */
} Scratch;

static void scratch_init(Scratch *s, const LpcnetModel *m, const LpcnetState *state) {
    memset(s, 0, sizeof *s); /* chains reach beyond the last unit */
    for (int i = 0; i < m->units_a; i += LANES) store_state8(s->a + i, load(state->a + i));
    for (int i = 0; i < m->units_b; i += LANES) store_state8(s->b + i, load(state->b + i));
}

/* The next state of a GRU from what t holds of its gates:
 * h' = z h + (1 - z) n with n = tanh(input + r * recurrent). */
INLINE void advance(Scratch *t, int units, float *state, State8 *state8, const int quantised) {
    vf x[CHAINS];
    for (int i = 0; i < 2 * units; i += CHAINS * LANES) {
        for (int k = 0; k < CHAINS; k++) x[k] = load(t->zr + i + k * LANES);
        sigmoids(x, CHAINS);
        for (int k = 0; k < CHAINS; k++) store(t->zr + i + k * LANES, x[k]);
    }
    for (int i = 0; i < units; i += CHAINS * LANES) {
        for (int k = 0; k < CHAINS; k++) {
            const int at = i + k * LANES, r = 2 * (at & ~15) + 16 + (at & 15);
            x[k] = load(t->input + at) + load(t->zr + r) * load(t->recurrent + at);
        }
        tanhs(x, CHAINS);
        for (int k = 0; k < CHAINS; k++) {
            const int at = i + k * LANES, z = 2 * (at & ~15) + (at & 15);
            const vf h = x[k] + load(t->zr + z) * (load(state + at) - x[k]);
            store(state + at, h);
            if (quantised) store_state8(state8 + at, h);
        }
    }
}

INLINE void step(const LpcnetModel *m, const LpcnetCondition *c, LpcnetState *s, Scratch *t,
                 int signal, int prediction, int excitation, const int quantised) {
    const ptrdiff_t width = 3 * (ptrdiff_t)m->units_a;
    const int16_t *e0 = m->embedding + signal * width;
    const int16_t *e1 = m->embedding + (LPCNET_LEVELS + prediction) * width;
    const int16_t *e2 = m->embedding + (2 * LPCNET_LEVELS + excitation) * width;

    for (int u = 0; u < m->units_a / 16; u++)
        for (int gate = 0; gate < 3; gate++) {
            vf input[PARTS], product[PARTS];
            for (int k = 0; k < PARTS; k++) {
                const ptrdiff_t i = 48 * u + 16 * gate + k * LANES;
                const vh levels = *(const vh_loose *)(e0 + i) + *(const vh_loose *)(e1 + i) +
                                        *(const vh_loose *)(e2 + i);
                input[k] = load(c->a + i) + to_float(widen(levels)) *
                                                load(m->embedding_scale + i);
                product[k] = gate < 2 ? splat(0) : load(m->bias_a + 16 * u + k * LANES);
            }
            rows(&m->recurrent_a, 3 * u + gate, s->a, t->a, product, quantised);
            for (int k = 0; k < PARTS; k++)
                if (gate < 2) {
                    store(t->zr + 32 * u + 16 * gate + k * LANES, input[k] + product[k]);
                } else {
                    store(t->input + 16 * u + k * LANES, input[k]);
                    store(t->recurrent + 16 * u + k * LANES, product[k]);
                }
        }
    advance(t, m->units_a, s->a, t->a, quantised);

    for (int u = 0; u < m->units_b / 16; u++) {
        vf input[3 * PARTS], product[3 * PARTS];
        for (int k = 0; k < 3 * PARTS; k++) {
            input[k] = load(c->b + 48 * u + k * LANES);
            product[k] = splat(0);
        }
        for (int p = 0; p < PARTS; p++)
            product[2 * PARTS + p] = load(m->bias_b + 16 * u + p * LANES);
        stripe(&m->recurrent_b, 3 * u, 3, s->b, t->b, product, quantised);
        stripe(&m->input_b, 3 * u, 3, s->a, t->a, input, quantised);
        for (int k = 0; k < 2 * PARTS; k++)
            store(t->zr + 32 * u + k * LANES, input[k] + product[k]);
        for (int k = 0; k < PARTS; k++) {
            store(t->input + 16 * u + k * LANES, input[2 * PARTS + k]);
            store(t->recurrent + 16 * u + k * LANES, product[2 * PARTS + k]);
        }
    }
    advance(t, m->units_b, s->b, t->b, quantised);
}
