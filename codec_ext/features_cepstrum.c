#include "features_cepstrum.h"

#include <math.h>

/* Cooley-Tukey in one split, 320 = 20 rows x 16 columns, n = 16 row + column, k = k2 + 20 k1:
   dense DFTs along rows, a twiddle, dense DFTs along columns. Every inner loop has a fixed length
   and unit stride, so the compiler vectorises it; a deeper split saves multiplications but no
   time. The signal is real, hence rows need bins 0..10 only. */
void power_spectrum(const float *restrict windowed, float *restrict power)
{
    const FeatureTables *t = &feature_tables;
    float re[COLUMNS][ROW_BINS_PADDED], im[COLUMNS][ROW_BINS_PADDED];

    for (int k = 0; k < ROW_BINS; k++) {
        float row_re[COLUMNS] = {0}, row_im[COLUMNS] = {0};
        for (int n = 0; n < ROWS; n++) {
            const float c = t->row_cos[k][n], s = t->row_sin[k][n];
            for (int i = 0; i < COLUMNS; i++) {
                row_re[i] += c * windowed[n * COLUMNS + i];
                row_im[i] += s * windowed[n * COLUMNS + i];
            }
        }
        for (int i = 0; i < COLUMNS; i++) {
            const float c = t->twiddle_cos[k][i], s = t->twiddle_sin[k][i];
            re[i][k] = row_re[i] * c - row_im[i] * s;
            im[i][k] = row_re[i] * s + row_im[i] * c;
        }
    }
    for (int i = 0; i < COLUMNS; i++) {
        re[i][ROW_BINS] = im[i][ROW_BINS] = 0;
    }

    for (int k1 = 0; k1 < COLUMNS; k1++) {
        float bin_re[ROW_BINS_PADDED] = {0}, bin_im[ROW_BINS_PADDED] = {0};
        for (int n = 0; n < COLUMNS; n++) {
            const float c = t->column_cos[k1][n], s = t->column_sin[k1][n];
            for (int k = 0; k < ROW_BINS_PADDED; k++) {
                bin_re[k] += c * re[n][k] - s * im[n][k];
                bin_im[k] += s * re[n][k] + c * im[n][k];
            }
        }
        for (int k = 0; k < ROW_BINS; k++) {
            int bin = ROWS * k1 + k;
            if (bin > WINDOW / 2) {
                bin = WINDOW - bin;
            }
            power[bin] = (bin_re[k] * bin_re[k] + bin_im[k] * bin_im[k])
                         * (1.f / ((float)WINDOW * WINDOW));
        }
    }
}

static void band_energies(const float *restrict power, float *restrict energy)
{
    const FeatureTables *t = &feature_tables;
    for (int i = 0; i < BANDS; i++) {
        energy[i] = 0;
    }
    for (int i = 0; i < BANDS - 1; i++) {
        float below = 0, above = 0;
        for (int bin = band_centres[i]; bin < band_centres[i + 1]; bin++) {
            below += t->falling[bin] * power[bin];
            above += t->rising[bin] * power[bin];
        }
        energy[i] += below;
        energy[i + 1] += above;
    }
}

void cepstrum(const float *restrict samples, float *restrict features)
{
    const FeatureTables *t = &feature_tables;
    float windowed[WINDOW], power[BINS], energy[BANDS], level[BANDS];

    for (int i = 0; i < WINDOW; i++) {
        windowed[i] = samples[i] * t->window[i];
    }
    power_spectrum(windowed, power);
    band_energies(power, energy);

    /* A band more than 80 dB under the loudest one before it, or falling by more than 25 dB a
       band, holds nothing audible: limiting it keeps the cepstrum from coding noise floors. */
    float loudest = -2, follow = -2;
    for (int i = 0; i < BANDS; i++) {
        level[i] = log10f(1e-2f + energy[i]);
        level[i] = fmaxf(level[i], fmaxf(loudest - 8, follow - 2.5f));
        loudest = fmaxf(loudest, level[i]);
        follow = fmaxf(follow - 2.5f, level[i]);
    }
    for (int k = 0; k < BANDS; k++) {
        float sum = 0;
        for (int i = 0; i < BANDS; i++) {
            sum += t->dct[k][i] * level[i];
        }
        features[k] = sum;
    }
    features[0] -= 4;
}

/* Double precision: a strongly coloured frame leaves float few digits by order 16. */
static void levinson_durbin(const double *restrict ac, float *restrict lpc)
{
    double a[ORDER] = {0}, error = ac[0];
    for (int i = 0; i < ORDER; i++) {
        double sum = ac[i + 1];
        for (int j = 0; j < i; j++) {
            sum -= a[j] * ac[i - j];
        }
        const double reflection = sum / error;
        a[i] = reflection;
        for (int j = 0; j < i / 2; j++) {
            const double front = a[j], back = a[i - 1 - j];
            a[j] = front - reflection * back;
            a[i - 1 - j] = back - reflection * front;
        }
        if (i % 2) {
            a[i / 2] -= reflection * a[i / 2];
        }
        error *= 1 - reflection * reflection;
        if (error < 0.001 * ac[0]) {
            break;
        }
    }
    for (int i = 0; i < ORDER; i++) {
        lpc[i] = (float)a[i];
    }
}

void cepstrum_to_lpc(const float *restrict features, float *restrict lpc)
{
    const FeatureTables *t = &feature_tables;
    /* Features may come from a decoder that was fed garbage: 10^12 is some 20 dB above full scale. */
    const float highest = 12, lowest = -12;
    float energy[BANDS];
    for (int i = 0; i < BANDS; i++) {
        float level = t->idct[i][0] * 4;
        for (int k = 0; k < BANDS; k++) {
            level += t->idct[i][k] * features[k];
        }
        level = level < highest ? level : highest; /* also takes NaN out */
        level = level > lowest ? level : lowest;
        energy[i] = exp2f(level * 3.32192809488736f);
    }
    double ac[ORDER + 1];
    for (int lag = 0; lag <= ORDER; lag++) {
        float sum = 0;
        for (int i = 0; i < BANDS; i++) {
            sum += t->autocorrelation[lag][i] * energy[i];
        }
        ac[lag] = sum * (1 - 6e-5 * lag * lag);
    }
    ac[0] += ac[0] * 1e-4 + WINDOW / 12. / 38.;
    levinson_durbin(ac, lpc);
}
