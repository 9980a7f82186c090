/* Tile reads: what does not depend on the instruction set, and the choice of one.
 *
 * The kernels are in _tile_read_isa.h, included below once per instruction set. Each function in it carries
 * its own `target` attribute, so that one object file runs everywhere and needs no -march.
 */
#define _GNU_SOURCE /* processors that a thread may have */

#include "_tile_read.h"

#include "_instruction_set.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define ACC_LD 128      /* floats from one broadcast value's sums to the next in the accumulator buffer */
#define MAX_BROADCAST 8 /* most broadcast values in one micro-kernel */
/* Adding and subtracting 1.5 * 2^23 rounds |c| < 2^22 to the nearest integer, ties to even. */
#define ROUNDER 12582912.0f

/* ---- converters --------------------------------------------------------------------------------------- */

/* One code of a converter: value = round(sum / div) * mul. A dead one (no range, or one that is not finite)
 * gives 0 whatever comes in. */
struct step {
    float div, mul;
};

static struct step make_step(float size)
{
    struct step live = {size, size}, dead = {1.0f, 0.0f};
    return size > 0.0f && isfinite(size) ? live : dead;
}

static struct step dac_step(const struct pcmc_converters *conv, int64_t item)
{
    return make_step(conv->dac_levels > 0.0f ? conv->scale[item] / conv->dac_levels : 0.0f);
}

static struct step adc_step(const struct pcmc_converters *conv, int64_t item)
{
    return make_step(conv->adc_levels > 0.0f ? conv->adc_full * conv->scale[item] / conv->adc_levels : 0.0f);
}

/* What makes the sums of one item codes and values; alone its step, or with `columns` numbers of each column,
 * and then the step only says whether it is dead. */
struct adc {
    struct step step;
    float scale;
};

static struct adc adc_of(const struct pcmc_converters *conv, const struct pcmc_noise *noise, int64_t item)
{
    int ranged = conv->dac_levels > 0.0f || conv->adc_levels > 0.0f || noise->floor;
    struct adc adc = {adc_step(conv, item), ranged ? conv->scale[item] : 0.0f};
    return adc;
}

struct columns {
    const float *gain, *offset, *step, *shift;
};

/* From conversion `at` on; nothing to be used where all are alike. */
static struct columns columns_at(const struct pcmc_converters *conv, int64_t at)
{
    const float *from = conv->columns ? conv->columns + at : NULL;
    struct columns columns = {from, from, from, from};
    if (from) {
        columns.offset = from + conv->conversions;
        columns.step = from + conv->conversions * 2;
        columns.shift = from + conv->conversions * 3;
    }
    return columns;
}

static int is_noisy(const struct pcmc_noise *noise) { return noise->variance || noise->floor; }

/* Clip, then round to even; a NaN fails both comparisons and becomes full scale. */
static inline float code(float value, float levels)
{
    value = value < levels ? value : levels;
    value = value > -levels ? value : -levels;
    return (value + ROUNDER) - ROUNDER;
}

static float raise_one(float value, int power)
{
    return power == 1 ? fabsf(value) : value * value;
}

/* The float that a half stands for. */
static inline float widen_one(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float quantize_one(float value, struct step step, float levels)
{
    return levels > 0.0f ? code(value / step.div, levels) * step.mul : value;
}

/* ---- how a convolution's windows lie in memory -------------------------------------------------------- */

/* Padded planes of one image, so that no im2col array is needed. A plane holds every stride-th row and column
 * of a padded channel from a given phase on, [height, width] floats. Matrix row r = (c, ky, kx) at output
 * (oy, ox) is then plane[row[r] + oy * width + ox]: contiguous along the position q = oy * width + ox.
 * Positions with ox >= out_width come out as garbage and are skipped. With stride 1 there is one phase. */
struct phase {
    int64_t start;       /* first padded row or column */
    int64_t first, last; /* indices that lie inside of the image, the others are padding */
};

struct planes {
    int64_t height, width, stride, phases_y, phases_x, size;
    int64_t reach; /* rows of a plane that one output row needs, less one */
    struct phase *phase_y, *phase_x;
    int64_t *row;
    unsigned char *used; /* channels that some block reads */
};

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* Cells of the largest block. */
static int64_t largest_block(const struct pcmc_bank *bank)
{
    int64_t largest = 1;
    for (int64_t i = 0; i < bank->n_blocks; i++)
        largest = max64(largest, bank->blocks[i].rows * bank->blocks[i].cols);
    return largest;
}

/* What to do with sums and the outputs that they belong to. */
enum move { ADD, STORE, LOAD };

/* Whether no block before has added to the columns of this one; `reach` is where those before ended, in a table that goes
 * through rows, then columns. (A wrong no costs time, nothing else: outputs start from 0.) */
static int is_fresh(const struct pcmc_block *block, int64_t *reach)
{
    int fresh = block->col0 >= *reach;
    *reach = max64(*reach, block->col0 + block->cols);
    return fresh;
}

/* Rows that are summed in one run before the sum is added to what the rows before them gave, and the bias last, where no
 * ADC stands between: the order of onnxruntime's SGEMM (MLAS: strides of 128 rows, doubled while fewer than half of 128
 * results are wanted), so that most layers agree with it to the bit. Rounding in a quantized model would amplify the last
 * bit. `n` results of `rows` products each. */
static int64_t sum_run(int64_t n, int64_t rows)
{
    int64_t run = 128;
    for (int64_t strip = 128; n < rows && strip > 16 && strip / 2 >= n; strip /= 2)
        run *= 2;
    return run;
}

static int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

/* Lists the distinct phases of the taps of one axis; index[tap] is the phase of each. Returns how many. */
static int64_t list_phases(int64_t taps, int64_t stride, int64_t dilation, int64_t pad, int64_t extent,
                           int64_t length, struct phase *phases, int64_t *index)
{
    int64_t n = 0;
    for (int64_t tap = 0; tap < taps; tap++) {
        int64_t start = tap * dilation % stride, i = 0;
        while (i < n && phases[i].start != start)
            i++;
        if (i == n) {
            phases[i].start = start;
            phases[i].first = min64(length, max64(0, -floor_div(start - pad, stride)));
            phases[i].last =
                max64(phases[i].first, min64(length, floor_div(extent - 1 + pad - start, stride) + 1));
            n++;
        }
        index[tap] = i;
    }
    return n;
}

static void free_planes(struct planes *p)
{
    free(p->phase_y);
    free(p->phase_x);
    free(p->row);
    free(p->used);
}

/* Offsets of the matrix rows, once the phases and the sizes are known. */
static int place_rows(struct planes *p, const struct pcmc_window *w, int64_t channels, const int64_t *index_y,
                      const int64_t *index_x)
{
    int64_t *row = p->row = malloc(sizeof(int64_t) * (size_t)(channels * w->kernel_y * w->kernel_x + 1));
    if (!row)
        return -1;
    for (int64_t c = 0; c < channels; c++)
        for (int64_t ky = 0; ky < w->kernel_y; ky++) {
            int64_t down = ky * w->dilation_y / w->stride_y * p->width;
            int64_t plane = (c * p->phases_y + index_y[ky]) * p->phases_x;
            for (int64_t kx = 0; kx < w->kernel_x; kx++)
                *row++ = (plane + index_x[kx]) * p->stride + down + kx * w->dilation_x / w->stride_x;
        }
    return 0;
}

static void mark_used(struct planes *p, const struct pcmc_bank *bank, int64_t taps)
{
    for (int64_t i = 0; i < bank->n_blocks; i++) {
        const struct pcmc_block *block = &bank->blocks[i];
        int64_t inputs = block->rows - block->bias;
        if (inputs > 0)
            for (int64_t c = block->row0 / taps; c <= (block->row0 + inputs - 1) / taps; c++)
                p->used[c] = 1;
    }
}

static int make_planes(struct planes *p, const struct pcmc_bank *bank, const struct pcmc_window *w,
                       const struct pcmc_images *im)
{
    int64_t *index = malloc(sizeof(int64_t) * (size_t)(w->kernel_y + w->kernel_x));
    int failed = -1;
    memset(p, 0, sizeof *p);
    p->phase_y = malloc(sizeof(struct phase) * (size_t)w->kernel_y);
    p->phase_x = malloc(sizeof(struct phase) * (size_t)w->kernel_x);
    p->used = calloc((size_t)im->channels + 1, 1);
    if (index && p->phase_y && p->phase_x && p->used) {
        p->reach = (w->kernel_y - 1) * w->dilation_y / w->stride_y;
        p->height = im->out_height + p->reach;
        p->width = im->out_width + (w->kernel_x - 1) * w->dilation_x / w->stride_x;
        p->phases_y = list_phases(w->kernel_y, w->stride_y, w->dilation_y, w->top, im->height, p->height,
                                  p->phase_y, index);
        p->phases_x = list_phases(w->kernel_x, w->stride_x, w->dilation_x, w->left, im->width, p->width,
                                  p->phase_x, index + w->kernel_y);
        /* An odd number of cache lines: planes a power of two apart would fight for the same cache sets. */
        p->stride = ((p->height * p->width + 15) / 16 | 1) * 16;
        p->size = im->channels * p->phases_y * p->phases_x * p->stride + ACC_LD;
        mark_used(p, bank, w->kernel_y * w->kernel_x);
        /* Sizes come from model files: refuse what can't be meant before it overflows. */
        if ((double)im->channels * (double)p->phases_y * (double)p->phases_x * (double)p->height
                * (double)p->width
            < 0x1p44)
            failed = place_rows(p, w, im->channels, index, index + w->kernel_y);
    }
    free(index);
    return failed;
}

/* ---- threads ------------------------------------------------------------------------------------------ */

#include "_tile_read_pool.h"

/* ---- the kernels, once per instruction set ------------------------------------------------------------ */

/* A micro-kernel adds to acc[b][lane] the sum over k of lanes[off[k] + lane] * broadcast[k * sk + b * sb]. */
typedef void micro_kernel(const float *lanes, const int64_t *off, int64_t n, const float *broadcast,
                          int64_t sk, int64_t sb, float *acc);

#define APART __attribute__((noinline)) /* loops that need all registers for themselves */

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define FN(name) PASTE(name, SUFFIX)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

#define SUFFIX plain
#define TARGET
#define VL 4
#if defined(__aarch64__)
#define REGISTERS 32
#else
#define REGISTERS 16
#endif
#include "_tile_read_isa.h"
#undef SUFFIX
#undef TARGET
#undef VL
#undef REGISTERS

#if defined(__x86_64__)

/* From ENDS + 8 - n on, a mask of the first n lanes. */
static const int32_t ENDS[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

#define SUFFIX avx2
#define TARGET __attribute__((target("avx2,fma")))
#define VL 8
#define REGISTERS 16
#include "_tile_read_isa.h"
#undef SUFFIX
#undef TARGET
#undef VL
#undef REGISTERS

#define SUFFIX avx512
#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")))
#define VL 16
#define REGISTERS 32
#include "_tile_read_isa.h"
#undef SUFFIX
#undef TARGET
#undef VL
#undef REGISTERS

#endif

static const struct pcmc_kernels *choose(void)
{
#if defined(__x86_64__)
    switch (pcmc_instruction_set()) {
    case PCMC_AVX512: return &kernels_avx512;
    case PCMC_AVX2: return &kernels_avx2;
    default: break;
    }
#endif
    return &kernels_plain;
}

const struct pcmc_kernels *pcmc_kernels(void)
{
    static const struct pcmc_kernels *chosen;
    if (!chosen)
        chosen = choose();
    return chosen;
}
