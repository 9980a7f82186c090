/* Training in place as C sees it; accel/_training.pyx is the only caller, accel/training/bank.py checks all
 * arguments, accel/training/reference.py has the formulas.
 *
 * A bank is one matrix in blocks, each row-major in `weights`. The weights and the variances must be followed
 * by PCMC_TRAINING_PADDING readable values. A bank has work space of its own: one caller at a time.
 */
#ifndef PCMC_TRAINING_KERNELS_H
#define PCMC_TRAINING_KERNELS_H

#include <stdint.h>

#include "_gaussian.h"

#define PCMC_TRAINING_PADDING 64
#define PCMC_LEAK_EVERY 80

struct pcmc_training_block { /* a row of the table; int64 [n, 6] on the Python side */
    int64_t row0, col0, rows, cols, bias, offset;
};

/* Entries of `counts`, in the order of reference.COUNTS; the first ones are where streams stand. */
enum pcmc_count {
    PCMC_READS,
    PCMC_BACKWARD_READS,
    PCMC_EVALUATION_READS,
    PCMC_UPDATES,
    PCMC_PULSE_NOISE,
    PCMC_PULSES_UP,
    PCMC_PULSES_DOWN,
    PCMC_COINCIDENCES,
    PCMC_ROWS_FIRED,
    PCMC_COLS_FIRED,
    PCMC_LINES_CLIPPED,
    PCMC_PULSES_LIMITED,
    PCMC_CLIPPED_FORWARD,
    PCMC_CLIPPED_BACKWARD,
    PCMC_COUNTS
};

/* The streams of random numbers; the first three are those of reads, as in `counts`. */
enum pcmc_stream {
    PCMC_FORWARD_NOISE,
    PCMC_BACKWARD_NOISE,
    PCMC_EVALUATION_NOISE,
    PCMC_ROW_PULSES,
    PCMC_COLUMN_PULSES,
    PCMC_NOISE_OF_PULSES,
    PCMC_STREAMS
};

enum pcmc_activation { PCMC_NONE, PCMC_RELU, PCMC_TANH, PCMC_SIGMOID };
enum pcmc_loss { PCMC_CROSS_ENTROPY, PCMC_MSE, PCMC_BCE };

struct pcmc_port { /* levels 0: off */
    float dac_levels, adc_levels, adc_full;
    const float *offset; /* of each conversion, in LSB; NULL: none */
    int64_t conversions;
};

struct pcmc_law { /* uint16_t: bfloat16 */
    float *low;
    const uint16_t *steps, *slopes, *bounds; /* of each cell two: up, down; low_min, low_max */
    const uint16_t *leak;                    /* NULL: all leak by leak_mean */
    float low_mid, noise, step, leak_mean, steepest;
};

struct pcmc_set_law { /* device (pair, cell) at pair * cells + cell; noise and mean step are those of pcmc_law */
    float *plus, *minus;
    const uint16_t *step_plus, *step_minus, *top_plus, *top_minus;
    float growth, decay, noise_offset, noise_slope;
    int64_t pairs; /* 0: there is no such law */
};

enum { PCMC_PULSE_NUMBERS = 2048 }; /* room for normal numbers of pulses */

struct pcmc_pulse_numbers { /* numbers first to first + PCMC_PULSE_NUMBERS of the stream */
    float *numbers;
    int64_t first; /* far below 0: none yet */
};

struct pcmc_training_bank {
    float *weights;
    int64_t cells;
    const struct pcmc_training_block *blocks;
    int64_t n_blocks, rows, cols, has_bias;
    float bias_drive, sign;
    struct pcmc_port ports[2]; /* forward, backward */
    uint32_t keys[PCMC_STREAMS][4];
    int64_t *counts;
    const uint16_t *variances; /* NULL: reads are quiet */
    int has_law;
    struct pcmc_law law;
    struct pcmc_set_law set;
    int64_t pulses; /* most slots; 0: none; negative: deterministic */
    /* Work space, from one allocation. */
    void *memory;
    float *inputs, *active, *squares, *sums, *spread, *numbers, *chance;
    int32_t *line, *fired;
    int64_t *offset;
    uint32_t *row_train, *col_train;
    struct pcmc_pulse_numbers pulse_numbers;
};

/* Work space of a bank whose other fields are set; -1 when memory is short. */
int pcmc_training_reserve(struct pcmc_training_bank *bank);
void pcmc_training_release(struct pcmc_training_bank *bank);

struct pcmc_targets { /* class numbers, or else wanted outputs [vectors, cols] */
    const int64_t *labels;
    const float *wanted;
    int64_t cols;
};

struct pcmc_training_kernels {
    const char *simd;
    /* One vector: x [rows] -> y [cols]; stream: of the noise, forward or of evaluations */
    void (*forward)(struct pcmc_training_bank *, const float *x, float *y, int stream);
    /* One vector: d [cols] -> e [rows] */
    void (*backward)(struct pcmc_training_bank *, const float *d, float *e);
    void (*update)(struct pcmc_training_bank *, const float *x, const float *d, float lr);
    void (*leak)(struct pcmc_training_bank *, float part, float pull);
    void (*activate)(int kind, const float *x, float *y, int64_t n);
    void (*activate_backward)(int kind, const float *y, const float *dy, float *dx, int64_t n);
    /* Loss of vector v, its gradient; whether it was right goes to *right */
    float (*loss_and_grad)(int kind, const float *z, const struct pcmc_targets *, int64_t v, float *grad,
                           int64_t *right);
};

/* The kernels of the best instruction set of this processor; PCMC_SIMD=plain|avx2|avx512 in the environment
 * caps it. Decided at the first call. */
const struct pcmc_training_kernels *pcmc_training_kernels(void);

struct pcmc_chain {
    struct pcmc_training_bank **banks;
    const int64_t *activations, *trainable;
    int64_t n;
    int loss;
    const float *x;
    struct pcmc_targets targets;
    const int64_t *order;
    int64_t examples, first_example;
    float lr;
    double *pulls; /* [n, 2]: of the next leak, and what it is multiplied with after each */
};

/* Trains with examples one after the other; -1 when memory is short. */
int pcmc_train_chain(const struct pcmc_chain *chain, double *loss, int64_t *right);

#endif
