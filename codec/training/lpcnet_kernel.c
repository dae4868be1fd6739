/* LPCNet's sample-rate network, forward and backward in one pass, for training.
 *
 *   GRU A (256 units; inputs: three table rows and the frame's conditioning; block-sparse recurrence)
 *   -> GRU B (32 units) -> binary tree of 255 dual fully-connected nodes (8 decisions per sample)
 *
 * Sixteen sequences are computed at a time, one per lane of PARTS vectors: a matrix product is
 * "broadcast one weight, multiply a vec, add", with as many sums kept in registers as there are.
 * Weight gradients are sums over time and sequences, so for them a few steps are transposed to one row
 * per (step, sequence) and the lanes become outputs.
 *
 * Everything is written with the vector extensions of GCC and Clang. A vec is as wide as the machine's
 * registers: of wider ones GCC makes scalar code.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined __AVX512F__
#define WIDTH 16
#elif defined __AVX__
#define WIDTH 8
#else
#define WIDTH 4
#endif

enum {
    LANES = 16,         /* sequences side by side, and outputs of a block */
    PARTS = LANES / WIDTH,
    TILE = WIDTH == 16 ? 16 : WIDTH / 2, /* outputs whose sums, PARTS each, fit into the registers */
    RUN = WIDTH == 16 ? 6 : 1,           /* blocks whose gradients do */
    UNITS_A = 256,
    GATES_A = 3 * UNITS_A,
    UNITS_B = 32,
    GATES_B = 3 * UNITS_B,
    LEVELS = 256,
    DEPTH = 8,          /* decisions per sample: log2(LEVELS) */
    TABLES = 3,         /* last signal, prediction, last excitation */
    FRAME = 160,
    BLOCK_INPUTS = 4,   /* a block is LANES outputs x BLOCK_INPUTS inputs */
    BLOCK = LANES * BLOCK_INPUTS,
    CHUNK = 2,          /* steps whose gates are transposed before their weight gradients are summed */
    CHUNK_ROWS = CHUNK * LANES,
    MAX_THREADS = 64,
};

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef float vec_any __attribute__((vector_size(4 * WIDTH), aligned(4))); /* at any address */
typedef int32_t ivec __attribute__((vector_size(4 * WIDTH)));

/* A value of one unit for all sequences. */
typedef struct { vec part[PARTS]; } lanes;

#define INLINE static inline __attribute__((always_inline))
#define LOAD(p) ((vec)(*(const vec_any *)(p)))
#define STORE(p, v) (*(vec_any *)(p) = (v))
#define ADD_TO(p, v) STORE(p, LOAD(p) + (v))

/* A matrix of `groups` x LANES outputs, stored twice: by output for the product, by input for the
 * product with the transpose. Only the listed blocks exist. */
typedef struct {
    const int32_t *row_start;    /* [groups + 1] */
    const int32_t *row_input;    /* [blocks] first input of a block */
    const float *row_weight;     /* [blocks][BLOCK_INPUTS][LANES] */
    const int32_t *column_start; /* [inputs / BLOCK_INPUTS + 1] */
    const int32_t *column_output;/* [blocks] first output of a block */
    const float *column_weight;  /* [blocks][LANES][BLOCK_INPUTS] */
    int32_t groups;
    int32_t blocks;
} Matrix;

typedef struct {
    int32_t rows, frames, backward, threads;
    const uint8_t *inputs;  /* [rows][steps][TABLES] mu-law */
    const uint8_t *targets; /* [rows][steps] mu-law excitation */
    const float *tables;    /* [TABLES][LEVELS][GATES_A] */
    const float *condition_a, *condition_b; /* [rows][frames][GATES] */
    Matrix recurrent_a, input_b, recurrent_b;
    const float *bias_a, *bias_b;           /* [UNITS]: inside the reset gate */
    const float *tree_weight[2];            /* [LEVELS][UNITS_B]; node 0 unused, root 1 */
    const float *tree_bias[2], *tree_scale[2]; /* [LEVELS] */
    float scale;            /* of loss and gradients: 1 / (rows * steps) for a mean */
    /* results; those marked * exist once per thread and are added up by the caller */
    double *loss;                              /* * */
    float *d_tables;                           /* * zeroed by the caller */
    float *d_condition_a, *d_condition_b;      /* zeroed by the caller */
    float *d_recurrent_a, *d_input_b, *d_recurrent_b; /* * [blocks][BLOCK_INPUTS][LANES], zeroed */
    float *d_bias_a, *d_bias_b;                /* * zeroed */
    float *d_tree_weight[2], *d_tree_bias[2], *d_tree_scale[2]; /* * zeroed */
    float *workspace;                          /* * workspace_floats() each, 64-byte aligned */
} Network;

typedef struct { /* what the backward pass needs of one step */
    lanes state_a[UNITS_A], state_b[UNITS_B];             /* before the step */
    lanes update_a[UNITS_A], reset_a[UNITS_A], new_a[UNITS_A], inner_a[UNITS_A];
    lanes update_b[UNITS_B], reset_b[UNITS_B], new_b[UNITS_B], inner_b[UNITS_B];
    lanes d_state_b[UNITS_B];                             /* from the tree, after the step */
} Step;

/* Rows are an odd number of cache lines long, or one column's rows would share a few cache sets. */
#define ROW(n) ((n) + ((n) / LANES % 2 ? 0 : LANES))

typedef struct { /* rows of a chunk of steps, one per (step, sequence) */
    float recurrent_a[CHUNK_ROWS][ROW(GATES_A)]; /* gradients seen by the recurrent product of A */
    float new_a[CHUNK_ROWS][ROW(UNITS_A)];       /* of the candidate's input */
    float state_a[CHUNK_ROWS + LANES][ROW(UNITS_A)]; /* before each step, and after the last */
    float input_b[CHUNK_ROWS][ROW(GATES_B)], recurrent_b[CHUNK_ROWS][ROW(GATES_B)];
    float state_b[CHUNK_ROWS][ROW(UNITS_B)];
} Chunk;

int64_t workspace_floats(int32_t frames) {
    return ((int64_t)(frames * FRAME + 1) * sizeof(Step) + sizeof(Chunk)) / sizeof(float);
}

/* ---- elementwise functions */

INLINE vec clamp(vec x, float low, float high) {
    const vec lo = low - (vec){0}, hi = high - (vec){0};
    ivec m = x < lo;
    x = (vec)((m & (ivec)lo) | (~m & (ivec)x));
    m = x > hi;
    return (vec)((m & (ivec)hi) | (~m & (ivec)x));
}

/* e^x for |x| <= 40 (beyond, the value at 40), relative error 2e-7: 2^round * polynomial. The limit
 * lets two of the results be multiplied. */
INLINE vec exponential(vec x) {
    const float to_integer = 12582912.f; /* 1.5 * 2^23: adding it rounds to the units bit */
    vec t = clamp(x, -40.f, 40.f) * 1.44269504f;
    vec shifted = t + to_integer;
    vec f = t - (shifted - to_integer);
    vec p = f * 1.5403530e-4f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.f;
    return (vec)((ivec)p + ((ivec)shifted << 23));
}

INLINE vec sigmoid(vec x) { return 1.f / (1.f + exponential(-x)); }
INLINE vec hyperbolic_tangent(vec x) { return 2.f / (1.f + exponential(-2.f * x)) - 1.f; }

#define SWAP_BLOCKS(S, LOW, HIGH)                                            \
    for (int i = 0; i < WIDTH; i++)                                          \
        if (!(i & S)) {                                                      \
            vec a = v[i], b = v[i + S];                                      \
            v[i] = __builtin_shufflevector(a, b, LOW);                       \
            v[i + S] = __builtin_shufflevector(a, b, HIGH);                  \
        }
#define LIST(...) __VA_ARGS__

/* Transpose in registers: exchange the off-diagonal halves of 2x2, 4x4, 8x8 and 16x16 blocks. */
INLINE void transpose(vec v[WIDTH]) {
#if WIDTH == 16
#pragma GCC unroll 16
    SWAP_BLOCKS(1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
                LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#pragma GCC unroll 16
    SWAP_BLOCKS(2, LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
                LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
#pragma GCC unroll 16
    SWAP_BLOCKS(4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
                LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
#pragma GCC unroll 16
    SWAP_BLOCKS(8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
                LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#elif WIDTH == 8
#pragma GCC unroll 8
    SWAP_BLOCKS(1, LIST(0, 8, 2, 10, 4, 12, 6, 14), LIST(1, 9, 3, 11, 5, 13, 7, 15))
#pragma GCC unroll 8
    SWAP_BLOCKS(2, LIST(0, 1, 8, 9, 4, 5, 12, 13), LIST(2, 3, 10, 11, 6, 7, 14, 15))
#pragma GCC unroll 8
    SWAP_BLOCKS(4, LIST(0, 1, 2, 3, 8, 9, 10, 11), LIST(4, 5, 6, 7, 12, 13, 14, 15))
#else
#pragma GCC unroll 4
    SWAP_BLOCKS(1, LIST(0, 4, 2, 6), LIST(1, 5, 3, 7))
#pragma GCC unroll 4
    SWAP_BLOCKS(2, LIST(0, 1, 4, 5), LIST(2, 3, 6, 7))
#endif
}

/* n units -> rows [LANES] of n floats, `stride` apart; n a multiple of LANES */
INLINE void to_rows(const lanes *units, int n, float *rows, int stride) {
    for (int u = 0; u < n; u += WIDTH)
        for (int p = 0; p < PARTS; p++) {
            vec v[WIDTH];
            for (int i = 0; i < WIDTH; i++) v[i] = units[u + i].part[p];
            transpose(v);
            for (int i = 0; i < WIDTH; i++) STORE(rows + (p * WIDTH + i) * stride + u, v[i]);
        }
}

/* ---- matrix products */

INLINE lanes splat(float x) {
    lanes y;
    for (int p = 0; p < PARTS; p++) y.part[p] = x - (vec){0};
    return y;
}

/* sum[o] += product of the output group with x[inputs] */
INLINE void product(const Matrix *m, int group, const lanes *x, lanes sum[LANES]) {
#pragma GCC unroll 1
    for (int first = 0; first < LANES; first += TILE) {
        vec total[TILE][PARTS];
#pragma GCC unroll 16
        for (int o = 0; o < TILE; o++)
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; p++) total[o][p] = sum[first + o].part[p];
        for (int b = m->row_start[group]; b < m->row_start[group + 1]; b++) {
            const lanes *in = x + m->row_input[b];
            const float *w = m->row_weight + (int64_t)b * BLOCK + first;
#pragma GCC unroll 4
            for (int k = 0; k < BLOCK_INPUTS; k++)
#pragma GCC unroll 16
                for (int o = 0; o < TILE; o++)
#pragma GCC unroll 4
                    for (int p = 0; p < PARTS; p++) total[o][p] += w[k * LANES + o] * in[k].part[p];
        }
#pragma GCC unroll 16
        for (int o = 0; o < TILE; o++)
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; p++) sum[first + o].part[p] = total[o][p];
    }
}

/* d_x[inputs] += transpose(m) * d[outputs] */
INLINE void add_transposed_product(const Matrix *m, int inputs, const lanes *d, lanes *d_x) {
    enum { CHAINS = PARTS == 1 ? 2 : 1 }; /* enough to cover the latency of the additions */
    for (int c = 0; c < inputs / BLOCK_INPUTS; c++) {
        vec sum[CHAINS][BLOCK_INPUTS][PARTS] = {0};
        for (int b = m->column_start[c]; b < m->column_start[c + 1]; b++) {
            const lanes *out = d + m->column_output[b];
            const float *w = m->column_weight + (int64_t)b * BLOCK;
#pragma GCC unroll 16
            for (int o = 0; o < LANES; o++)
#pragma GCC unroll 4
                for (int k = 0; k < BLOCK_INPUTS; k++)
#pragma GCC unroll 4
                    for (int p = 0; p < PARTS; p++)
                        sum[o % CHAINS][k][p] += w[o * BLOCK_INPUTS + k] * out[o].part[p];
        }
        for (int i = 0; i < CHAINS; i++)
            for (int k = 0; k < BLOCK_INPUTS; k++)
                for (int p = 0; p < PARTS; p++) d_x[c * BLOCK_INPUTS + k].part[p] += sum[i][k][p];
    }
}

/* Gradients of n consecutive blocks of one output group: n * BLOCK_INPUTS sums stay in registers. */
INLINE void block_gradients(int n, const int32_t *input, const float *d, int d_stride,
                            const float *x, int x_stride, float *d_weight) {
    vec sum[RUN][BLOCK_INPUTS][PARTS];
#pragma GCC unroll 6
    for (int b = 0; b < n; b++)
#pragma GCC unroll 4
        for (int k = 0; k < BLOCK_INPUTS; k++)
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; p++)
                sum[b][k][p] = LOAD(d_weight + b * BLOCK + k * LANES + p * WIDTH);
    for (int row = 0; row < CHUNK_ROWS; row++) {
        const float *gradient = d + row * d_stride;
        const float *in = x + row * x_stride;
#pragma GCC unroll 6
        for (int b = 0; b < n; b++)
#pragma GCC unroll 4
            for (int k = 0; k < BLOCK_INPUTS; k++)
#pragma GCC unroll 4
                for (int p = 0; p < PARTS; p++)
                    sum[b][k][p] += in[input[b] + k] * LOAD(gradient + p * WIDTH);
    }
#pragma GCC unroll 6
    for (int b = 0; b < n; b++)
#pragma GCC unroll 4
        for (int k = 0; k < BLOCK_INPUTS; k++)
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; p++)
                STORE(d_weight + b * BLOCK + k * LANES + p * WIDTH, sum[b][k][p]);
}

static void add_weight_gradient(const Matrix *m, const float *d, int d_stride, const float *x,
                                int x_stride, float *d_weight) {
    for (int g = 0; g < m->groups; g++) {
        const float *dg = d + g * LANES;
        for (int b = m->row_start[g], end = m->row_start[g + 1]; b < end; b += RUN) {
            const int32_t *in = m->row_input + b;
            float *dw = d_weight + (int64_t)b * BLOCK;
#if WIDTH == 16
            switch (end - b) {
            case 1: block_gradients(1, in, dg, d_stride, x, x_stride, dw); break;
            case 2: block_gradients(2, in, dg, d_stride, x, x_stride, dw); break;
            case 3: block_gradients(3, in, dg, d_stride, x, x_stride, dw); break;
            case 4: block_gradients(4, in, dg, d_stride, x, x_stride, dw); break;
            case 5: block_gradients(5, in, dg, d_stride, x, x_stride, dw); break;
            default: block_gradients(6, in, dg, d_stride, x, x_stride, dw);
            }
#else
            block_gradients(1, in, dg, d_stride, x, x_stride, dw);
#endif
        }
    }
}

/* ---- the gated units: h' = z h + (1 - z) n,  n = tanh(x_n + r (U h + b)) */

typedef struct { vec update, reset, fresh, inner; } Gates;

INLINE Gates open_gates(vec update, vec reset, vec candidate, vec inner) {
    /* one division for two sigmoids */
    vec u = 1.f + exponential(-update), r = 1.f + exponential(-reset);
    vec both = 1.f / (u * r);
    reset = both * u;
    return (Gates){both * r, reset, hyperbolic_tangent(candidate + reset * inner), inner};
}

typedef struct { vec update, reset, candidate, inner, previous; } GateGradients;

INLINE GateGradients gate_gradients(vec d, vec update, vec reset, vec fresh, vec inner, vec previous) {
    vec candidate = d * (1.f - update) * (1.f - fresh * fresh);
    return (GateGradients){
        d * (previous - fresh) * update * (1.f - update),
        candidate * inner * reset * (1.f - reset),
        candidate,
        candidate * reset,
        d * update,
    };
}

/* ---- one thread's share */

typedef struct {
    const Network *net;
    int first;          /* first of the LANES sequences */
    Step *steps;
    Chunk *chunk;
    double loss;
    float *d_tables, *d_recurrent_a, *d_input_b, *d_recurrent_b;
    lanes d_bias_a[UNITS_A], d_bias_b[UNITS_B];
    float *d_tree_weight[2], *d_tree_bias[2], *d_tree_scale[2];
} Worker;

INLINE int64_t at(const Worker *w, int lane, int t) {
    return (int64_t)(w->first + lane) * w->net->frames * FRAME + t;
}

/* The three table rows of a step; `gradient` selects the tables or their gradients. */
INLINE void table_rows(const Worker *w, int lane, int t, float *base, float *rows[TABLES]) {
    const uint8_t *in = w->net->inputs + at(w, lane, t) * TABLES;
    for (int i = 0; i < TABLES; i++) rows[i] = base + (int64_t)(i * LEVELS + in[i]) * GATES_A;
}

/* What GRU A's outputs o .. o + LANES - 1 get from the table rows and the condition. */
INLINE void table_input(float *const row[LANES][TABLES], const float *const condition[LANES], int o,
                        lanes out[LANES]) {
    for (int u = 0; u < LANES; u += WIDTH)
        for (int p = 0; p < PARTS; p++) {
            vec v[WIDTH];
            for (int i = 0; i < WIDTH; i++) {
                const int lane = p * WIDTH + i;
                v[i] = (LOAD(condition[lane] + o + u) + LOAD(row[lane][0] + o + u)) +
                       (LOAD(row[lane][1] + o + u) + LOAD(row[lane][2] + o + u));
            }
            transpose(v);
            for (int i = 0; i < WIDTH; i++) out[u + i].part[p] = v[i];
        }
}

/* Units u .. u + n - 1 of a GRU: their gates, kept in the step, and their next state. */
INLINE void advance(int n, const lanes *update, const lanes *reset, const lanes *inner,
                    const lanes *before, lanes *kept_update, lanes *kept_reset, lanes *fresh,
                    lanes *kept_inner, lanes *next) {
    for (int u = 0; u < n; u++)
        for (int p = 0; p < PARTS; p++) {
            const Gates g = open_gates(update[u].part[p], reset[u].part[p], fresh[u].part[p],
                                       inner[u].part[p]);
            kept_update[u].part[p] = g.update;
            kept_reset[u].part[p] = g.reset;
            fresh[u].part[p] = g.fresh;
            kept_inner[u].part[p] = g.inner;
            next[u].part[p] = g.fresh + g.update * (before[u].part[p] - g.fresh);
        }
}

static void step_a(Worker *w, int t, Step *s, lanes *next) {
    const Network *net = w->net;
    const int frame = t / FRAME;
    float *row[LANES][TABLES];
    const float *condition[LANES];
    for (int i = 0; i < LANES; i++) {
        table_rows(w, i, t, (float *)net->tables, row[i]);
        condition[i] = net->condition_a + ((int64_t)(w->first + i) * net->frames + frame) * GATES_A;
    }
    for (int u = 0; u < UNITS_A; u += LANES) {
        lanes x[3][LANES];
        for (int gate = 0; gate < 3; gate++) {
            const int o = gate * UNITS_A + u;
            /* the candidate's input is kept apart: the reset gate acts on the product only */
            table_input(row, condition, o, gate < 2 ? x[gate] : s->new_a + u);
            if (gate == 2)
                for (int i = 0; i < LANES; i++) x[gate][i] = splat(net->bias_a[u + i]);
            product(&net->recurrent_a, o / LANES, s->state_a, x[gate]);
        }
        advance(LANES, x[0], x[1], x[2], s->state_a + u, s->update_a + u, s->reset_a + u,
                s->new_a + u, s->inner_a + u, next + u);
    }
}

static void step_b(Worker *w, int t, Step *s, const lanes *state_a, lanes *next) {
    const Network *net = w->net;
    lanes x[GATES_B], inner[UNITS_B];
    for (int o = 0; o < GATES_B; o += WIDTH)
        for (int p = 0; p < PARTS; p++) {
            vec v[WIDTH];
            for (int i = 0; i < WIDTH; i++) {
                const int64_t sequence = w->first + p * WIDTH + i;
                v[i] = LOAD(net->condition_b + (sequence * net->frames + t / FRAME) * GATES_B + o);
            }
            transpose(v);
            for (int i = 0; i < WIDTH; i++) x[o + i].part[p] = v[i];
        }
    for (int o = 0; o < GATES_B; o += LANES) {
        product(&net->input_b, o / LANES, state_a, x + o);
        if (o < 2 * UNITS_B) product(&net->recurrent_b, o / LANES, s->state_b, x + o);
    }
    for (int u = 0; u < UNITS_B; u += LANES) {
        for (int i = 0; i < LANES; i++) inner[u + i] = splat(net->bias_b[u + i]);
        product(&net->recurrent_b, (2 * UNITS_B + u) / LANES, s->state_b, inner + u);
    }
    memcpy(s->new_b, x + 2 * UNITS_B, sizeof s->new_b);
    advance(UNITS_B, x, x + UNITS_B, inner, s->state_b, s->update_b, s->reset_b, s->new_b,
            s->inner_b, next);
}

/* Negative log-likelihood of the targets along their paths through the tree, and its gradients. A
 * node's logit is the sum of two scaled tanh: of branches 0 to 7 for each level the first, of 8 to 15
 * the second. */
static void tree(Worker *w, int t, Step *s, const lanes *state_b) {
    enum { BRANCHES = 2 * DEPTH, SLICES = UNITS_B / WIDTH };
    const Network *net = w->net;
    float state[LANES][UNITS_B] __attribute__((aligned(64)));
    float gradient[LANES][UNITS_B] __attribute__((aligned(64)));
    to_rows(state_b, UNITS_B, state[0], UNITS_B);
    for (int lane = 0; lane < LANES; lane++) {
        const int target = net->targets[at(w, lane, t)];
        int node[DEPTH];
        vec total[BRANCHES];
        float bias[BRANCHES], scale[BRANCHES], bounded[BRANCHES], d_sum[BRANCHES], error[DEPTH];
        for (int l = 0; l < DEPTH; l++) {
            node[l] = 1 << l | target >> (DEPTH - l);
            for (int i = 0; i < 2; i++) {
                const float *weight = net->tree_weight[i] + node[l] * UNITS_B;
                vec sum = {0};
                for (int k = 0; k < SLICES; k++)
                    sum += LOAD(state[lane] + k * WIDTH) * LOAD(weight + k * WIDTH);
                total[i * DEPTH + l] = sum;
                bias[i * DEPTH + l] = net->tree_bias[i][node[l]];
                scale[i * DEPTH + l] = net->tree_scale[i][node[l]];
            }
        }
        for (int n = 0; n < BRANCHES; n += WIDTH) {
            transpose(total + n);
            vec sum = LOAD(bias + n);
            for (int i = 0; i < WIDTH; i++) sum += total[n + i];
            STORE(bounded + n, hyperbolic_tangent(sum));
        }
        float logit[LANES] = {0}, probability[LANES];
        for (int l = 0; l < DEPTH; l++)
            logit[l] = scale[l] * bounded[l] + scale[DEPTH + l] * bounded[DEPTH + l];
        for (int n = 0; n < DEPTH; n += WIDTH) STORE(probability + n, sigmoid(LOAD(logit + n)));
        float likelihood = 1.f;
        for (int l = 0; l < DEPTH; l++) {
            error[l] = probability[l] - (target >> (DEPTH - 1 - l) & 1);
            likelihood *= 1.f - fabsf(error[l]);
        }
        w->loss -= logf(fmaxf(likelihood, 1e-30f));
        if (!net->backward) continue;
        for (int n = 0; n < BRANCHES; n++) {
            const float d = error[n % DEPTH] * net->scale;
            d_sum[n] = d * scale[n] * (1.f - bounded[n] * bounded[n]);
            w->d_tree_bias[n / DEPTH][node[n % DEPTH]] += d_sum[n];
            w->d_tree_scale[n / DEPTH][node[n % DEPTH]] += d * bounded[n];
        }
        vec d_state[SLICES] = {0};
        for (int n = 0; n < BRANCHES; n++) {
            const int from = node[n % DEPTH] * UNITS_B;
            const float *weight = net->tree_weight[n / DEPTH] + from;
            float *d_weight = w->d_tree_weight[n / DEPTH] + from;
            for (int k = 0; k < SLICES; k++) {
                d_state[k] += d_sum[n] * LOAD(weight + k * WIDTH);
                ADD_TO(d_weight + k * WIDTH, d_sum[n] * LOAD(state[lane] + k * WIDTH));
            }
        }
        for (int k = 0; k < SLICES; k++) STORE(gradient[lane] + k * WIDTH, d_state[k]);
    }
    if (!net->backward) return;
    for (int u = 0; u < UNITS_B; u += WIDTH)
        for (int p = 0; p < PARTS; p++) {
            vec v[WIDTH];
            for (int i = 0; i < WIDTH; i++) v[i] = LOAD(gradient[p * WIDTH + i] + u);
            transpose(v);
            for (int i = 0; i < WIDTH; i++) s->d_state_b[u + i].part[p] = v[i];
        }
}

/* Gradients at the gates of n units, from that of their next state to that of the one before. */
INLINE void back_through_gates(int n, lanes *d_state, const lanes *update, const lanes *reset,
                               const lanes *fresh, const lanes *inner, const lanes *before,
                               lanes *recurrent, lanes *candidate, lanes *d_bias) {
    for (int u = 0; u < n; u++)
        for (int p = 0; p < PARTS; p++) {
            const GateGradients g =
                gate_gradients(d_state[u].part[p], update[u].part[p], reset[u].part[p],
                               fresh[u].part[p], inner[u].part[p], before[u].part[p]);
            recurrent[u].part[p] = g.update;
            recurrent[n + u].part[p] = g.reset;
            recurrent[2 * n + u].part[p] = g.inner;
            candidate[u].part[p] = g.candidate;
            d_bias[u].part[p] += g.inner;
            d_state[u].part[p] = g.previous;
        }
}

static void back_step_b(Worker *w, int t, const Step *s, int row, lanes *d_state_a,
                        lanes *d_state_b) {
    const Network *net = w->net;
    Chunk *c = w->chunk;
    lanes input[GATES_B], recurrent[GATES_B];
    for (int u = 0; u < UNITS_B; u++)
        for (int p = 0; p < PARTS; p++) d_state_b[u].part[p] += s->d_state_b[u].part[p];
    back_through_gates(UNITS_B, d_state_b, s->update_b, s->reset_b, s->new_b, s->inner_b,
                       s->state_b, recurrent, input + 2 * UNITS_B, w->d_bias_b);
    memcpy(input, recurrent, 2 * UNITS_B * sizeof *input);
    add_transposed_product(&net->recurrent_b, UNITS_B, recurrent, d_state_b);
    add_transposed_product(&net->input_b, UNITS_A, input, d_state_a);
    to_rows(input, GATES_B, c->input_b[row], ROW(GATES_B));
    to_rows(recurrent, GATES_B, c->recurrent_b[row], ROW(GATES_B));
    to_rows(s->state_b, UNITS_B, c->state_b[row], ROW(UNITS_B));
    for (int i = 0; i < LANES; i++) {
        float *d = net->d_condition_b + ((int64_t)(w->first + i) * net->frames + t / FRAME) * GATES_B;
        for (int o = 0; o < GATES_B; o += WIDTH) ADD_TO(d + o, LOAD(c->input_b[row + i] + o));
    }
}

static void back_step_a(Worker *w, int t, const Step *s, int row, lanes *d_state) {
    const Network *net = w->net;
    Chunk *c = w->chunk;
    lanes recurrent[GATES_A], candidate[UNITS_A];
    back_through_gates(UNITS_A, d_state, s->update_a, s->reset_a, s->new_a, s->inner_a, s->state_a,
                       recurrent, candidate, w->d_bias_a);
    add_transposed_product(&net->recurrent_a, UNITS_A, recurrent, d_state);
    to_rows(recurrent, GATES_A, c->recurrent_a[row], ROW(GATES_A));
    to_rows(candidate, UNITS_A, c->new_a[row], ROW(UNITS_A));
    to_rows(s->state_a, UNITS_A, c->state_a[row], ROW(UNITS_A));
    for (int i = 0; i < LANES; i++) {
        float *d[TABLES];
        table_rows(w, i, t, w->d_tables, d);
        float *dc = net->d_condition_a + ((int64_t)(w->first + i) * net->frames + t / FRAME) * GATES_A;
        for (int o = 0; o < GATES_A; o += WIDTH) {
            vec g = o < 2 * UNITS_A ? LOAD(c->recurrent_a[row + i] + o)
                                    : LOAD(c->new_a[row + i] + o - 2 * UNITS_A);
            ADD_TO(dc + o, g);
            for (int k = 0; k < TABLES; k++) ADD_TO(d[k] + o, g);
        }
    }
}

static void run_group(Worker *w) {
    const Network *net = w->net;
    const int steps = net->frames * FRAME;
    memset(w->steps[0].state_a, 0, sizeof w->steps[0].state_a);
    memset(w->steps[0].state_b, 0, sizeof w->steps[0].state_b);
    for (int t = 0; t < steps; t++) {
        /* without a backward pass two steps take turns, and the working set stays in the cache */
        Step *s = w->steps + (net->backward ? t : t & 1);
        Step *next = w->steps + (net->backward ? t + 1 : ~t & 1);
        step_a(w, t, s, next->state_a);
        step_b(w, t, s, next->state_a, next->state_b);
        tree(w, t, s, next->state_b);
    }
    if (!net->backward) return;
    Chunk *c = w->chunk;
    lanes d_state_a[UNITS_A] = {0}, d_state_b[UNITS_B] = {0};
    for (int t = steps - 1; t >= 0; t--) {
        const int row = t % CHUNK * LANES;
        if (t % CHUNK == CHUNK - 1)
            to_rows(w->steps[t + 1].state_a, UNITS_A, c->state_a[CHUNK_ROWS], ROW(UNITS_A));
        back_step_b(w, t, w->steps + t, row, d_state_a, d_state_b);
        back_step_a(w, t, w->steps + t, row, d_state_a);
        if (row == 0) {
            add_weight_gradient(&net->recurrent_a, c->recurrent_a[0], ROW(GATES_A), c->state_a[0],
                                ROW(UNITS_A), w->d_recurrent_a);
            add_weight_gradient(&net->input_b, c->input_b[0], ROW(GATES_B), c->state_a[LANES],
                                ROW(UNITS_A), w->d_input_b);
            add_weight_gradient(&net->recurrent_b, c->recurrent_b[0], ROW(GATES_B), c->state_b[0],
                                ROW(UNITS_B), w->d_recurrent_b);
        }
    }
}

typedef struct {
    const Network *net;
    atomic_int *next_group;
    int thread;
} Job;

static void *work(void *argument) {
    const Job *job = argument;
    const Network *net = job->net;
    const int id = job->thread;
    Worker *w = aligned_alloc(64, (sizeof(Worker) + 63) / 64 * 64);
    if (!w) abort();
    memset(w, 0, sizeof *w);
    w->net = net;
    float *space = net->workspace + id * workspace_floats(net->frames);
    w->steps = (Step *)space;
    w->chunk = (Chunk *)(w->steps + net->frames * FRAME + 1);
    w->d_tables = net->d_tables + (int64_t)id * TABLES * LEVELS * GATES_A;
    w->d_recurrent_a = net->d_recurrent_a + (int64_t)id * net->recurrent_a.blocks * BLOCK;
    w->d_input_b = net->d_input_b + (int64_t)id * net->input_b.blocks * BLOCK;
    w->d_recurrent_b = net->d_recurrent_b + (int64_t)id * net->recurrent_b.blocks * BLOCK;
    for (int i = 0; i < 2; i++) {
        w->d_tree_weight[i] = net->d_tree_weight[i] + id * LEVELS * UNITS_B;
        w->d_tree_bias[i] = net->d_tree_bias[i] + id * LEVELS;
        w->d_tree_scale[i] = net->d_tree_scale[i] + id * LEVELS;
    }
    for (int g; (g = atomic_fetch_add(job->next_group, 1)) < net->rows / LANES;) {
        w->first = g * LANES;
        run_group(w);
    }
    net->loss[id] = w->loss * net->scale;
    for (int i = 0; net->backward && i < LANES; i++) {
        const int p = i / WIDTH, lane = i % WIDTH;
        for (int u = 0; u < UNITS_A; u++)
            net->d_bias_a[id * UNITS_A + u] += w->d_bias_a[u].part[p][lane];
        for (int u = 0; u < UNITS_B; u++)
            net->d_bias_b[id * UNITS_B + u] += w->d_bias_b[u].part[p][lane];
    }
    free(w);
    return NULL;
}

/* rows: a multiple of LANES; at most MAX_THREADS threads. */
void run(const Network *net) {
    pthread_t threads[MAX_THREADS];
    Job jobs[MAX_THREADS];
    int started[MAX_THREADS] = {0};
    atomic_int next_group = 0;
    for (int i = net->threads - 1; i >= 0; i--) {
        jobs[i] = (Job){net, &next_group, i};
        if (i == 0 || pthread_create(&threads[i], NULL, work, &jobs[i])) work(&jobs[i]);
        else started[i] = 1;
    }
    for (int i = 1; i < net->threads; i++)
        if (started[i]) pthread_join(threads[i], NULL);
}

/* ---- what the network sees of a signal */

/* Mu-law as in the synthesiser: 8 bits, 128 is zero. */
INLINE int to_mu_law(float x) {
    const float u = 128.f / logf(256.f) * logf(1.f + 255.f / 32768.f * fabsf(x));
    const int level = (int)(128.5f + (x < 0 ? -u : u));
    return level < 0 ? 0 : level > 255 ? 255 : level;
}

/* Run the quantised prediction loop over one sequence. signal: [16 + frames * 160] pre-emphasised,
 * the first 16 samples being history; lpc: [frames][16]; noise: [frames * 160] steps added to each
 * excitation after it was taken as target; linear: [256] decoded mu-law levels. */
void quantise_history(const float *signal, const float *lpc, const int8_t *noise, const float *linear,
                      int32_t frames, uint8_t *inputs, uint8_t *targets) {
    float past[16 + FRAME];
    int last = 128;
    memcpy(past, signal, 16 * sizeof(float));
    for (int f = 0; f < frames; f++) {
        for (int i = 0; i < FRAME; i++) {
            const int t = f * FRAME + i;
            float prediction = 0;
            for (int j = 0; j < 16; j++) prediction += lpc[f * 16 + j] * past[15 + i - j];
            const int excitation = to_mu_law(signal[16 + t] - prediction);
            inputs[t * TABLES] = to_mu_law(past[15 + i]);
            inputs[t * TABLES + 1] = to_mu_law(prediction);
            inputs[t * TABLES + 2] = last;
            targets[t] = excitation;
            last = excitation + noise[t];
            last = last < 0 ? 0 : last > 255 ? 255 : last;
            past[16 + i] = prediction + linear[last];
        }
        memcpy(past, past + FRAME, 16 * sizeof(float));
    }
}
