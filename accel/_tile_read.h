/* The tile reads as C sees them; accel/_kernels.pyx is their only caller, accel/tile.py checks all arguments.
 *
 * A bank is `cells` (blocks packed one after the other, each row-major) and a table of blocks. The cells must
 * be followed by PCMC_CELL_PADDING readable floats, because the last vector load of a row may run past its
 * end, and variances by as many halves. A half is a bfloat16, the upper 16 bits of a float. All functions
 * overwrite `out` for the items [first, last) only, and return 0, or -1 when memory is short.
 */
#ifndef PCMC_TILE_READ_H
#define PCMC_TILE_READ_H

#include <stdint.h>

#include "_gaussian.h"

#define PCMC_CELL_PADDING 64

struct pcmc_block { /* a row of the table; int64 [n, 6] on the Python side */
    int64_t row0, col0, rows, cols, bias, offset;
};

struct pcmc_bank {
    const float *cells;
    const struct pcmc_block *blocks;
    int64_t n_blocks, rows, cols; /* rows, cols: inputs and outputs of the whole matrix */
};

/* A conversion is a column of a block, counted block after block, in a block column after column. */

struct pcmc_converters { /* levels 0: off */
    float dac_levels, adc_levels, adc_full;
    const float *scale;   /* one per vector (convolutions: per image); read only when one is on, or with a floor */
    const float *columns; /* gain, offset, step, shift [4, conversions]; NULL: all alike */
    int64_t conversions;
    int64_t *saturated; /* increased for each item by its conversions that clipped; NULL: not counted */
};

struct pcmc_noise { /* variance and floor NULL: none */
    const uint16_t *variance; /* halves, of a current of 1 through each cell; packed and padded as the cells */
    const float *floor;       /* of the read-out at a scale of 1, [conversions] */
    uint32_t key[4];
    uint32_t first; /* index of item 0 of this call in its stream */
    int power;      /* variances go with |input|^power, 1 or 2 */
};

struct pcmc_finish { /* what is done to the sum of all blocks, in this order; NULL: nothing */
    const float *offset; /* added to each column, [bank.cols] */
    const float *addend; /* added, shaped as out */
    int relu;            /* what is below 0 becomes 0 */
};

struct pcmc_window { /* a convolution's window, top and left padding */
    int64_t kernel_y, kernel_x, stride_y, stride_x, dilation_y, dilation_x, top, left;
};

struct pcmc_images { /* x [n, channels, height, width] and out [n, bank.cols, out_height, out_width] */
    int64_t channels, height, width, out_height, out_width;
};

struct pcmc_kernels {
    const char *simd;
    /* x [vectors, bank.rows] -> out [vectors, bank.cols]; an item is a vector */
    int (*dense_read)(const struct pcmc_bank *, const struct pcmc_converters *, const struct pcmc_noise *,
                      const struct pcmc_finish *, const float *x, float bias_drive, float *out, int64_t first,
                      int64_t last);
    /* d [vectors, bank.cols] -> out [vectors, bank.rows]; an item is a vector */
    int (*dense_read_transposed)(const struct pcmc_bank *, const struct pcmc_converters *, const float *d,
                                 float *out, int64_t first, int64_t last);
    /* x -> out; item = image * chunks + chunk, a chunk is a band of output rows */
    int (*conv_read)(const struct pcmc_bank *, const struct pcmc_converters *, const struct pcmc_noise *,
                     const struct pcmc_finish *, const struct pcmc_window *, const struct pcmc_images *,
                     const float *x, float bias_drive, float *out, int64_t chunks, int64_t first, int64_t last);
    /* d, shaped as a read's output -> out, shaped as its input; an item is an image */
    int (*conv_read_transposed)(const struct pcmc_bank *, const struct pcmc_converters *,
                                const struct pcmc_window *, const struct pcmc_images *, const float *d,
                                float *out, int64_t first, int64_t last);
    /* scale[i] = max(floor, max |x[i, :]|), NaN left out; x [items, n] */
    void (*input_range)(const float *x, int64_t n, float floor, float *scale, int64_t first, int64_t last);
    pcmc_fill_gaussian *fill_gaussian;
};

/* Items [first, last) of a kernel; returns 0, or -1 when memory is short. */
typedef int pcmc_part(void *context, int64_t first, int64_t last);

/* Runs a part for each of so many threads, this one included; 0, or -1 if a part failed. Parts may be fewer. */
int pcmc_share(pcmc_part *part, void *context, int64_t first, int64_t last, int64_t threads);

/* The kernels of the best instruction set of this processor; PCMC_SIMD=plain|avx2|avx512 in the environment
 * caps it. Decided at the first call. */
const struct pcmc_kernels *pcmc_kernels(void);

#endif
