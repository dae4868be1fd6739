/* The tree of levels, and draws from it; included by lpcnet_template.h. */
/* Logits of the tree's nodes from 16 b on, n blocks of them: 1, 2 or 4. Node m has children 2 m
 * (bit 0) and 2 m + 1 (bit 1). */
INLINE void node_logits(const LpcnetModel *m, int b, const int n, const LpcnetState *s,
                        const Scratch *t, vf *out, const int quantised) {
    vf v[4 * 2 * PARTS];
    for (int k = 0; k < n * 2 * PARTS; k++) v[k] = load(m->node_bias + 32 * b + k * LANES);
    EACH stripe(&m->nodes, 2 * (b + i), 2, s->b, t->b, v + i * 2 * PARTS, quantised);
    const int chains = 2 * n * PARTS < CHAINS ? 2 * n * PARTS : CHAINS;
    for (int k = 0; k < n * 2 * PARTS; k += chains) tanhs(v + k, chains, 0);
    EACH for (int p = 0; p < PARTS; p++) {
        const float *scale = m->node_scale + 32 * (b + i) + p * LANES;
        const vf *first = v + i * 2 * PARTS + p;
        out[i * PARTS + p] = load(scale) * *first + load(scale + 16) * first[PARTS];
    }
}

/* Probabilities of bit 1 at those nodes. */
INLINE void node_bits(const LpcnetModel *m, int b, const int n, const LpcnetState *s,
                      const Scratch *t, float *out, const int quantised) {
    vf v[4 * PARTS];
    node_logits(m, b, n, s, t, v, quantised);
    const int chains = n * PARTS < CHAINS ? n * PARTS : CHAINS;
    for (int k = 0; k < n * PARTS; k += chains) sigmoids(v + k, chains, 0);
    for (int k = 0; k < n * PARTS; k++) store(out + k * LANES, v[k]);
}

/* Uniform in [0, 1): xorshift64*. */
INLINE float uniform(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (float)((*state * 0x2545f4914f6cdd1du) >> 40) * 0x1p-24f;
}

INLINE int draw_by_walk(const LpcnetModel *m, const LpcnetSampling *how, float power,
                        LpcnetState *s, const Scratch *t, const int quantised) {
    float p[16] ALIGNED;
    int node = 1, block = -1;
    for (int level = 0; level < 8; level++) {
        if (block != node / 16) {
            vf logits[PARTS];
            block = node / 16;
            node_logits(m, block, 1, s, t, logits, quantised);
            for (int i = 0; i < PARTS; i++) store(p + i * LANES, sigmoid(power * logits[i]));
        }
        float one = p[node % 16];
        one = one < how->cut ? 0.f : one > 1.f - how->cut ? 1.f : one;
        node = 2 * node + (uniform(&s->random) < one);
    }
    return node - LPCNET_LEVELS;
}

/* Whether any of 16 nodes has a level over the floor. */
INLINE int alive(const float *p, float floor) {
    int any = 0;
    for (int i = 0; i < PARTS; i++) any |= vf_any_at_least(load(p + i * LANES), floor);
    return any;
}

/* How many of x[n], from the first, *left covers; takes those off it. Without branches: no
 * processor predicts where a draw ends. */
INLINE int pass(const float *x, int n, float *left) {
    float total = 0, below = 0;
    int count = 0;
    for (int i = 0; i < n; i++) {
        total += x[i];
        const int passed = total <= *left;
        count += passed;
        below = passed ? total : below;
    }
    *left -= below;
    return count;
}

/* Distributes the probabilities of 16 nodes over their 32 children. */
INLINE void descend(const float *nodes, const float *bits, float *children) {
    for (int i = 0; i < 16; i += LANES) {
        const vf here = load(nodes + i), up = here * load(bits + i);
        interleave(children + 2 * i, here - up, up);
    }
}

/* Sharpens the distribution, takes the floor off and draws. Levels under the floor are dropped
 * before the power: for exponents of 1 and more the power could not lift them over it, so whole
 * subtrees need not be looked at. */
INLINE int draw_from_distribution(const LpcnetModel *m, const LpcnetSampling *how, float power,
                                  LpcnetState *s, const Scratch *t, const int quantised) {
    float p[LPCNET_LEVELS] ALIGNED;    /* [node]: probability of coming by */
    float bit[LPCNET_LEVELS] ALIGNED;  /* [node]: of going on to child 1 */
    float leaf[LPCNET_LEVELS] ALIGNED; /* of levels: 32 for each live block of last nodes */
    int origin[8], count = 0;          /* those blocks */
    /* The upper nodes, and those of the middle levels, which are hardly ever improbable: together,
     * without waiting for what leads to them. */
    node_bits(m, 0, 4, s, t, bit, quantised);
    p[1] = 1.f;
    for (int node = 1; node < 16; node++) {
        p[2 * node + 1] = p[node] * bit[node];
        p[2 * node] = p[node] - p[2 * node + 1];
    }
    node_bits(m, 5, 2, s, t, bit + 16 * 5, quantised);
    node_bits(m, 11, 2, s, t, bit + 16 * 11, quantised);
    for (int b = 1; b < 4; b++) descend(p + 16 * b, bit + 16 * b, p + 32 * b);
    for (int b = 4; b < 8; b++) {
        if (b == 4 || b == 7) {
            if (!alive(p + 16 * b, how->floor)) {
                memset(p + 32 * b, 0, 32 * sizeof *p);
                continue;
            }
            node_bits(m, b, 1, s, t, bit + 16 * b, quantised);
        }
        descend(p + 16 * b, bit + 16 * b, p + 32 * b);
    }
    for (int b = 8; b < 16; b++) {
        origin[count] = b;
        count += alive(p + 16 * b, how->floor);
    }
    for (int k = 0; k < count; k++) {
        const int b = origin[k];
        if (b != 11 && b != 12) node_bits(m, b, 1, s, t, bit + 16 * b, quantised);
        descend(p + 16 * b, bit + 16 * b, leaf + 32 * k);
    }

    vf total = splat(0);
    for (int i = 0; i < 32 * count; i += LANES) {
        vf q = load(leaf + i);
        q = (vf)((vi)q & (q >= how->floor));
        if (power != 1.f) q = (vf)((vi)power_(q, power) & (q > 0.f));
        store(leaf + i, q);
        total += q;
    }
    const float norm = 1.f / sum(total);
    float mass[16], rest = 0; /* of 16 levels */
    for (int b = 0; b < 2 * count; b++) {
        vf in_block = splat(0);
        for (int i = 0; i < PARTS; i++) {
            const vf q = vf_max(load(leaf + 16 * b + i * LANES) * norm - how->floor, splat(0));
            store(leaf + 16 * b + i * LANES, q);
            in_block += q;
        }
        rest += mass[b] = sum(in_block);
    }
    float left = uniform(&s->random) * rest;
    if (!(rest > 0)) return LPCNET_LEVELS / 2; /* all as likely, and the floor as high */
    /* sums are rounded: should a draw end behind the last one with a chance, go back to that */
    int b = pass(mass, 2 * count, &left);
    while (b == 2 * count || (b > 0 && mass[b] <= 0.f)) b--;
    int i = pass(leaf + 16 * b, 16, &left);
    while (i == 16 || (i > 0 && leaf[16 * b + i] <= 0.f)) i--;
    return 32 * (origin[b / 2] - 8) + 16 * (b % 2) + i;
}
