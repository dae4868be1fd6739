#include "features_tables.h"

#include <math.h>
#include <string.h>

static const double PI = 3.14159265358979323846;

/* In bins of 50 Hz: the Bark-like bands of CELT at 5 ms resolution. */
const int band_centres[BANDS] = {0,  4,  8,  12, 16, 20, 24,  28,  32,
                                 40, 48, 56, 64, 80, 96, 112, 136, 160};

FeatureTables feature_tables;

static void init_transform(FeatureTables *t)
{
    for (int i = 0; i < HOP; i++) {
        double s = sin(PI / 2 * (i + 0.5) / HOP);
        t->window[i] = t->window[WINDOW - 1 - i] = (float)sin(PI / 2 * s * s);
    }
    for (int k = 0; k < ROW_BINS; k++) {
        for (int n = 0; n < ROWS; n++) {
            t->row_cos[k][n] = (float)cos(2 * PI * (k * n % ROWS) / ROWS);
            t->row_sin[k][n] = (float)-sin(2 * PI * (k * n % ROWS) / ROWS);
        }
        for (int n = 0; n < COLUMNS; n++) {
            t->twiddle_cos[k][n] = (float)cos(2 * PI * k * n / WINDOW);
            t->twiddle_sin[k][n] = (float)-sin(2 * PI * k * n / WINDOW);
        }
    }
    for (int k = 0; k < COLUMNS; k++) {
        for (int n = 0; n < COLUMNS; n++) {
            t->column_cos[k][n] = (float)cos(2 * PI * (k * n % COLUMNS) / COLUMNS);
            t->column_sin[k][n] = (float)-sin(2 * PI * (k * n % COLUMNS) / COLUMNS);
        }
    }
}

static void init_bands(FeatureTables *t)
{
    double weight[BANDS] = {0};     /* sum of a band's triangle, doubled at both ends */
    double interpolation[BINS][BANDS]; /* spectrum from band energies; the last bin stays 0 */
    memset(interpolation, 0, sizeof interpolation);
    for (int i = 0; i < BANDS - 1; i++) {
        int width = band_centres[i + 1] - band_centres[i];
        for (int j = 0; j < width; j++) {
            int bin = band_centres[i] + j;
            double up = (double)j / width;
            double lower = i == 0 ? 2 : 1, upper = i == BANDS - 2 ? 2 : 1;
            t->falling[bin] = (float)((1 - up) * lower);
            t->rising[bin] = (float)(up * upper);
            weight[i] += (1 - up) * lower;
            weight[i + 1] += up * upper;
            interpolation[bin][i] = 1 - up;
            interpolation[bin][i + 1] = up;
        }
    }
    for (int lag = 0; lag <= ORDER; lag++) {
        for (int i = 0; i < BANDS; i++) {
            double sum = 0;
            for (int bin = 0; bin < BINS; bin++) {
                double both_sides = bin == 0 || bin == BINS - 1 ? 1 : 2;
                sum += both_sides * interpolation[bin][i]
                       * cos(2 * PI * (bin * lag % WINDOW) / WINDOW);
            }
            /* 4: a band of unit compensation is four bins wide. */
            t->autocorrelation[lag][i] = (float)(sum * 4 / weight[i]);
        }
    }
}

static void init_cosines(FeatureTables *t)
{
    for (int k = 0; k < BANDS; k++) {
        double scale = sqrt((k == 0 ? 1.0 : 2.0) / BANDS);
        for (int i = 0; i < BANDS; i++) {
            t->dct[k][i] = t->idct[i][k] = (float)(scale * cos(PI * k * (i + 0.5) / BANDS));
        }
    }
}

void features_init_tables(void)
{
    init_transform(&feature_tables);
    init_bands(&feature_tables);
    init_cosines(&feature_tables);
}
