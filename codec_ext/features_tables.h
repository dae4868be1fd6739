#ifndef FEATURES_TABLES_H
#define FEATURES_TABLES_H

#define HOP 160
#define WINDOW (2 * HOP)
#define BINS (HOP + 1)
#define BANDS 18
#define ORDER 16
#define FEATURES 20

/* WINDOW = ROWS * COLUMNS: the transform is a dense DFT along each, see features_cepstrum.c. */
#define ROWS 20
#define COLUMNS 16
#define ROW_BINS (ROWS / 2 + 1)
#define ROW_BINS_PADDED 12

typedef struct {
    float window[WINDOW];
    float row_cos[ROW_BINS][ROWS], row_sin[ROW_BINS][ROWS];
    float twiddle_cos[ROW_BINS][COLUMNS], twiddle_sin[ROW_BINS][COLUMNS];
    float column_cos[COLUMNS][COLUMNS], column_sin[COLUMNS][COLUMNS];
    float rising[BINS], falling[BINS]; /* share of a bin that goes to the band above, below */
    float dct[BANDS][BANDS];           /* [coefficient][band] */
    float idct[BANDS][BANDS];          /* [band][coefficient] */
    float autocorrelation[ORDER + 1][BANDS]; /* lag from compensated band energies */
} FeatureTables;

extern FeatureTables feature_tables;
extern const int band_centres[BANDS];

void features_init_tables(void);

#endif
