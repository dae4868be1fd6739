/* The two GRUs of the sample network; included by lpcnet_template.h. */

/* States as the dot products want them, beside the floats, and gates in the order of a model's
 * rows, [units / 16][z, r, n][16]. What is kept of an n gate is what r multiplies. */
typedef struct {
    State8 a[LPCNET_MAX_UNITS] ALIGNED;
    State8 b[LPCNET_MAX_UNITS] ALIGNED;
    float known_a[3 * LPCNET_MAX_UNITS] ALIGNED; /* all through a stretch */
    float gates_a[3 * LPCNET_MAX_UNITS] ALIGNED;
    float gates_b[3 * LPCNET_MAX_UNITS] ALIGNED;
    float input_b[LPCNET_MAX_UNITS] ALIGNED; /* to the n gate */
} Scratch;

static void scratch_init(Scratch *s, const LpcnetModel *m, const LpcnetCondition *c,
                         const LpcnetState *state) {
    for (int b = 0; b < 3 * m->units_a / 16; b++) {
        const float *known = b % 3 < 2 ? c->a + 16 * b : m->bias_a + b / 3 * 16;
        for (int i = 0; i < 16; i += LANES) store(s->known_a + 16 * b + i, load(known + i));
    }
    for (int i = 0; i < m->units_a; i += LANES) store_state8(s->a + i, load(state->a + i));
    for (int i = 0; i < m->units_b; i += LANES) store_state8(s->b + i, load(state->b + i));
}

/* h' = z h + (1 - z) tanh(x) for n vectors of x, z being the first of each three `gates`. */
INLINE void advance(vf *x, const int n, const float *gates, float *state, State8 *state8,
                    const int quantised) {
    tanhs(x, n, quantised);
    EACH {
        const vf z = load(gates + 48 * (i / PARTS) + i % PARTS * LANES);
        const vf h = x[i] + z * (load(state + i * LANES) - x[i]);
        store(state + i * LANES, h);
        if (quantised) store_state8(state8 + i * LANES, h);
    }
}

/* Sample embeddings times GRU A's input weights: what the last signal, the prediction and the last
 * excitation add to its gates. */
typedef struct {
    const int16_t *entry[3];
} Embedded;

INLINE Embedded embed(const LpcnetModel *m, int signal, int prediction, int excitation) {
    const ptrdiff_t width = 3 * (ptrdiff_t)m->units_a;
    return (Embedded){{
        m->embedding + signal * width,
        m->embedding + (LPCNET_LEVELS + prediction) * width,
        m->embedding + (2 * LPCNET_LEVELS + excitation) * width,
    }};
}

/* Adds 16 values of that, from the i-th on, to out[PARTS]. */
INLINE void add_embedded(const LpcnetModel *m, const Embedded *e, ptrdiff_t i, vf *out) {
    for (int k = 0; k < PARTS; k += LEVEL_PARTS) {
        vi levels[LEVEL_PARTS];
        const ptrdiff_t at = i + k * LANES;
        widen(*(const vh_loose *)(e->entry[0] + at) + *(const vh_loose *)(e->entry[1] + at) +
                  *(const vh_loose *)(e->entry[2] + at),
              levels);
        for (int p = 0; p < LEVEL_PARTS; p++)
            out[k + p] += to_float(levels[p]) * load(m->embedding_scale + at + p * LANES);
    }
}

/* GRU A's next gates but for what the samples add. */
INLINE void prepare_a(const LpcnetModel *m, const LpcnetState *s, Scratch *t,
                      const int quantised) {
    Blocks next = blocks_of(&m->recurrent_a);
    for (int b = 0; b < 3 * m->units_a / 16; b++) {
        vf out[PARTS];
        for (int p = 0; p < PARTS; p++) out[p] = load(t->known_a + 16 * b + p * LANES);
        rows(&m->recurrent_a, b, &next, s->a, t->a, out, quantised);
        for (int p = 0; p < PARTS; p++) store(t->gates_a + 16 * b + p * LANES, out[p]);
    }
}

/* z and r of n times 16 units of GRU A. */
INLINE void gates_a(const LpcnetModel *m, const Embedded *e, Scratch *t, int u, const int n,
                    const int quantised) {
    vf x[CHAINS];
    EACH for (int k = 0; k < 2; k++) {
        const int at = 48 * (u + i) + 16 * k;
        vf *out = x + (2 * i + k) * PARTS;
        for (int p = 0; p < PARTS; p++) out[p] = load(t->gates_a + at + p * LANES);
        add_embedded(m, e, at, out);
    }
    sigmoids(x, 2 * PARTS * n, quantised);
    EACH for (int p = 0; p < 2 * PARTS; p++)
        store(t->gates_a + 48 * (u + i) + p * LANES, x[2 * PARTS * i + p]);
}

/* Their next states. */
INLINE void advance_a(const LpcnetModel *m, const LpcnetCondition *c, const Embedded *e,
                      LpcnetState *s, Scratch *t, int u, const int n, const int quantised) {
    vf x[CHAINS];
    EACH {
        const float *gates = t->gates_a + 48 * (u + i);
        vf *out = x + i * PARTS;
        for (int p = 0; p < PARTS; p++)
            out[p] = load(gates + 16 + p * LANES) * load(gates + 32 + p * LANES) +
                     load(c->a + 48 * (u + i) + 32 + p * LANES);
        add_embedded(m, e, 48 * (u + i) + 32, out);
    }
    advance(x, n * PARTS, t->gates_a + 48 * u, s->a + 16 * u, t->a + 16 * u, quantised);
}

INLINE void step(const LpcnetModel *m, const LpcnetCondition *c, LpcnetState *s, Scratch *t,
                 int signal, int prediction, int excitation, const int quantised) {
    enum { WIDE = CHAINS / (2 * PARTS), WIDER = CHAINS / PARTS };
    const Embedded e = embed(m, signal, prediction, excitation);
    const int blocks_a = m->units_a / 16, blocks_b = m->units_b / 16;
    prepare_a(m, s, t, quantised);
    int u = 0;
    for (; u + WIDE <= blocks_a; u += WIDE) gates_a(m, &e, t, u, WIDE, quantised);
    for (; u < blocks_a; u++) gates_a(m, &e, t, u, 1, quantised);
    for (u = 0; u + WIDER <= blocks_a; u += WIDER) advance_a(m, c, &e, s, t, u, WIDER, quantised);
    for (; u < blocks_a; u++) advance_a(m, c, &e, s, t, u, 1, quantised);

    for (u = 0; u < blocks_b; u++) {
        vf input[3 * PARTS], product[3 * PARTS];
        for (int k = 0; k < 3 * PARTS; k++) {
            input[k] = load(c->b + 48 * u + k * LANES);
            product[k] = splat(0);
        }
        for (int p = 0; p < PARTS; p++)
            product[2 * PARTS + p] = load(m->bias_b + 16 * u + p * LANES);
        stripe(&m->recurrent_b, 3 * u, 3, s->b, t->b, product, quantised);
        stripe(&m->input_b, 3 * u, 3, s->a, t->a, input, quantised);
        for (int k = 0; k < 2 * PARTS; k++) input[k] += product[k];
        sigmoids(input, 2 * PARTS, quantised);
        for (int k = 0; k < 2 * PARTS; k++) store(t->gates_b + 48 * u + k * LANES, input[k]);
        for (int k = 0; k < PARTS; k++)
            store(t->input_b + 16 * u + k * LANES,
                  input[2 * PARTS + k] + input[PARTS + k] * product[2 * PARTS + k]);
    }
    for (u = 0; u < blocks_b; u++) {
        vf x[PARTS];
        for (int k = 0; k < PARTS; k++) x[k] = load(t->input_b + 16 * u + k * LANES);
        advance(x, PARTS, t->gates_b + 48 * u, s->b + 16 * u, t->b + 16 * u, quantised);
    }
}
