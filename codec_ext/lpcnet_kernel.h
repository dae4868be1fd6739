#ifndef LPCNET_KERNEL_H
#define LPCNET_KERNEL_H

#include <stdint.h>

enum {
    LPCNET_BLOCK = 16,          /* rows handled together, in every matrix */
    LPCNET_GROUP = 4,           /* columns of one sparse block */
    LPCNET_MAX_UNITS = 512,     /* of either GRU, and of a layer of the frame network */
    LPCNET_FEATURES = 20,
    LPCNET_CONTEXT = 5,         /* feature rows k-3..k+1 condition frame k */
    LPCNET_ORDER = 16,          /* of the linear predictor */
    LPCNET_LEVELS = 256,        /* of mu-law */
    LPCNET_SPAN = 160           /* longest stretch under one condition: 10 ms */
};

#define LPCNET_EMPHASIS 0.85f /* signal[n] = pcm[n] - LPCNET_EMPHASIS * pcm[n - 1] */

/* Block-sparse matrix. Row block b holds blocks start[b]..start[b+1]-1; block i multiplies the four
 * columns from column[i]. A block is 16 x 4 weights: float [4][16], or int8 in the order the
 * path's dot product wants, with a scale per row. A dense matrix simply has every block. */
typedef struct {
    int32_t rows, columns;
    const int32_t *start;
    const uint16_t *column;
    const void *weights;
    const float *scale;     /* [rows], int8 only: dot = scale * sum(weight * round(127 x)) */
    const int32_t *offset;  /* [rows], int8 only: undoes the path's state_offset */
} LpcnetMatrix;

/* Rows belonging to a GRU are ordered [units / 16][z, r, n][16], so that one pass over a matrix
 * meets the three gates of 16 units one after the other. */
typedef struct {
    int32_t units_a, units_b;
    int32_t quantised;              /* int8 recurrence and output; the frame network stays float */
    LpcnetMatrix recurrent_a, input_b, recurrent_b;
    LpcnetMatrix nodes;             /* [16][tree_weight1, tree_weight2][16] */
    const int16_t *embedding;       /* [last signal, prediction, last excitation][256][3 units_a] */
    const float *embedding_scale;   /* [3 units_a] */
    const float *mu_law;            /* [256]: the value of each level */
    const float *bias_a, *bias_b;   /* [units]: of the n gate's recurrent part */
    const float *node_bias, *node_scale;    /* [512], rows as in nodes */

    int32_t period_width;
    const float *feature_mean, *feature_gain;   /* [20]; gain = 1 / deviation */
    const float *period_embedding;              /* [256][period_width] */
    LpcnetMatrix conv1, conv2, dense1, dense2, condition_a, condition_b;
    const float *conv1_bias, *conv2_bias, *dense1_bias, *dense2_bias;
    const float *condition_a_bias, *condition_b_bias;
} LpcnetModel;

/* What the sample network needs to know of one 10 ms frame. */
typedef struct {
    float a[3 * LPCNET_MAX_UNITS];
    float b[3 * LPCNET_MAX_UNITS];
    float lpc[LPCNET_ORDER];        /* prediction = sum lpc[i] * signal[-1 - i] */
    float correlation;              /* pitch correlation, about 0..1 */
} LpcnetCondition;

/* One voice. Flat: copying the struct copies the voice. */
typedef struct {
    float a[LPCNET_MAX_UNITS];
    float b[LPCNET_MAX_UNITS];
    float signal[LPCNET_ORDER];     /* pre-emphasised, newest last */
    float output;                   /* last sample after de-emphasis */
    int32_t excitation;             /* last one, mu-law */
    uint64_t random;
} LpcnetState;

typedef struct {
    int32_t walk;       /* 1: eight binary draws down the tree; 0: draw from the whole distribution */
    float floor;        /* probability taken off every level (distribution) */
    float cut;          /* node probabilities under this, or within it of 1, become certain (walk) */
    float voicing;      /* exponent 1 + max(0, voicing * correlation - 0.5) on probabilities */
} LpcnetSampling;

typedef enum { LPCNET_INT8_ROWS, LPCNET_INT8_PAIRS } LpcnetInt8Order;

/* One implementation of the kernel for one instruction set. */
typedef struct {
    const char *name;
    LpcnetInt8Order order;  /* of a block: int8 [16][4], or int16 [2][16][2] */
    int32_t lanes;          /* floats in a vector */
    int32_t state_offset;   /* added to quantised states; packing subtracts it times the row sum */

    /* Frame network: features [5][20] -> everything in *condition but the predictor. */
    void (*condition)(const LpcnetModel *, const float *features, LpcnetCondition *condition);

    /* Produces n <= 160 samples. */
    void (*run)(const LpcnetModel *, const LpcnetCondition *, const LpcnetSampling *,
                LpcnetState *, int n, int16_t *pcm);

    /* Drives the network with n <= 160 true samples. logits, if not NULL, receives float
     * [n][256]: the node logits before each sample. excitation, if not NULL, the true mu-law
     * excitation [n]. */
    void (*force)(const LpcnetModel *, const LpcnetCondition *, LpcnetState *, int n,
                  const int16_t *pcm, float *logits, uint8_t *excitation);
} LpcnetPath;

#if defined(__x86_64__) && defined(__GNUC__)
#define LPCNET_X86 1
extern const LpcnetPath lpcnet_avx512, lpcnet_avx2;
#endif
extern const LpcnetPath lpcnet_portable;

/* The paths this machine can run, best first; index from 0, NULL at the end. */
const LpcnetPath *lpcnet_path(int index);

void lpcnet_reset(LpcnetState *state, uint64_t seed);

/* Lets denormals count as zero in this thread; returns what lpcnet_denormals_restore takes. */
uint64_t lpcnet_denormals_off(void);
void lpcnet_denormals_restore(uint64_t saved);

#endif
