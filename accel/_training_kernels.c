/* Training in place: what does not depend on the instruction set, and the choice of one.
 *
 * Nothing here may be fused behind our back: pulses have the bits of the numpy twin, and all else one fixed
 * order on each instruction set. Sums of reads are fused where FUSED says so.
 */
#include "_training_kernels.h"

#include "_instruction_set.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off", "no-math-errno", "no-trapping-math")
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Adding and subtracting 1.5 * 2^23 rounds |c| < 2^22 to the nearest integer, ties to even. */
#define ROUNDER 12582912.0f

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- converters --------------------------------------------------------------------------------------- */

/* Clip, then round to even; a NaN fails both comparisons and becomes full scale. */
static inline float code(float value, float levels)
{
    value = value < levels ? value : levels;
    value = value > -levels ? value : -levels;
    return (value + ROUNDER) - ROUNDER;
}

static int is_live(float step) { return step > 0.0f && isfinite(step); }

/* ---- element by element ------------------------------------------------------------------------------- */

static inline float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float widen(uint16_t half) { return from_bits((uint32_t)half << 16); }

/* expf and tanhf of Moshier's Cephes library (single/expf.c, single/tanhf.c); relative error < 2e-7. What is
 * beyond +-87 is taken as that: e^87 = 6e37. */
static inline float exponential(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    float shifted = x * 1.44269504088896341f + ROUNDER, n = shifted - ROUNDER;
    x = x - n * 0.693359375f - n * -2.12194440e-4f;
    float p = x * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * x + 8.3334519073e-3f;
    p = p * x + 4.1665795894e-2f;
    p = p * x + 1.6666665459e-1f;
    p = p * x + 5.0000001201e-1f;
    p = p * (x * x) + x + 1.0f;
    return p * from_bits((to_bits(shifted) - to_bits(ROUNDER) + 127) << 23);
}

static inline float hyperbolic_tangent(float x)
{
    float size = fabsf(x), z = x * x;
    float p = z * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    float near = p * z * x + x, far = 1.0f - 2.0f / (exponential(size + size) + 1.0f);
    return size < 0.625f ? near : x < 0.0f ? -far : far;
}

static inline float logistic(float x) { return 1.0f / (1.0f + exponential(-x)); }

/* What a bias row is updated with: its cells hold bias / bias_drive, and so their change is -lr d / bias_drive. */
static float bias_update(const struct pcmc_training_bank *bank)
{
    return bank->bias_drive != 0.0f ? 1.0f / bank->bias_drive : 0.0f;
}

/* ---- pulses ------------------------------------------------------------------------------------------- */

/* 1 / sqrt(n): how the noise of n pulses compares to n times that of one. */
static const float ONE_OVER_ROOT[32] = {
    0.0f, 1.0f, 0.707106769f, 0.577350259f, 0.5f, 0.44721359f,
    0.408248305f, 0.377964467f, 0.353553385f, 0.333333343f, 0.316227764f, 0.301511347f,
    0.288675129f, 0.277350098f, 0.267261237f, 0.258198887f, 0.25f, 0.242535621f,
    0.235702261f, 0.22941573f, 0.223606795f, 0.218217894f, 0.213200718f, 0.208514407f,
    0.204124153f, 0.200000003f, 0.196116135f, 0.192450091f, 0.188982233f, 0.185695335f,
    0.182574183f, 0.179605305f,
};

/* n (n - 1) / 2 pairs of n pulses. */
static const float PAIRS[32] = {
    0,   0,   1,   3,   6,   10,  15,  21,  28,  36,  45,  55,  66,  78,  91,  105,
    120, 136, 153, 171, 190, 210, 231, 253, 276, 300, 325, 351, 378, 406, 435, 465,
};

/* Whether so many pulses change the size of a step by so much that two terms of the series are not enough. */
static int is_steep(const struct pcmc_law *law, int64_t slots) { return law->steepest * (float)slots > 0.03125f; }

/* How many times the first pulse n of them on a cell do: (1 - (1 - slope)^n) / slope, that is 1 + keep + keep^2 +
 * ... of n terms. With small slopes by the first order of slope, else from the sums of 1, 2, 4, ... terms. */
static inline float effect(uint32_t n, float slope, int steep)
{
    float sum = (float)(n & 1), block = 1.0f, power = 1.0f - slope;
    if (!steep)
        return (float)n - PAIRS[n] * slope;
    for (uint32_t bit = 2; bit <= n; bit <<= 1) {
        block = block + block * power;
        power = power * power;
        if (n & bit)
            sum = sum * power + block;
    }
    return sum;
}

/* ---- the kernels, once per instruction set ------------------------------------------------------------ */

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define FN(name) PASTE(name, SUFFIX)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

#define SUFFIX plain
#define TARGET
#define VL 4
#define FUSED(a, b, c) ((a) * (b) + (c))
#include "_training_isa.h"
#undef SUFFIX
#undef TARGET
#undef VL
#undef FUSED

#if defined(__x86_64__)

#define SUFFIX avx2
#define TARGET __attribute__((target("avx2,fma,popcnt")))
#define VL 8
#define FUSED(a, b, c) ((FN(floats))_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#include "_training_isa.h"
#undef SUFFIX
#undef TARGET
#undef VL
#undef FUSED

#define SUFFIX avx512
#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,popcnt")))
#define VL 16
#define FUSED(a, b, c) ((FN(floats))_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#include "_training_isa.h"
#undef SUFFIX
#undef TARGET
#undef VL
#undef FUSED

#endif

static const struct pcmc_training_kernels *choose(void)
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

const struct pcmc_training_kernels *pcmc_training_kernels(void)
{
    static const struct pcmc_training_kernels *chosen;
    if (!chosen)
        chosen = choose();
    return chosen;
}

/* ---- work space --------------------------------------------------------------------------------------- */

/* The next `bytes` of the memory, on a cache line; only counts where there is no memory yet. */
static void *take(struct pcmc_training_bank *bank, size_t *used, size_t bytes)
{
    void *here = bank->memory ? (char *)bank->memory + *used : NULL;
    *used += (bytes + 63) / 64 * 64;
    return here;
}

static size_t lay_out(struct pcmc_training_bank *bank)
{
    size_t used = 0, word = sizeof(float);
    size_t rows = (size_t)bank->rows + 1 + PCMC_TRAINING_PADDING;
    size_t cols = (size_t)bank->cols + PCMC_TRAINING_PADDING, longer = rows > cols ? rows : cols;
    int64_t conversions = max64(bank->ports[0].conversions, bank->ports[1].conversions);
    bank->inputs = take(bank, &used, word * longer);
    bank->active = take(bank, &used, word * longer);
    bank->squares = take(bank, &used, word * longer);
    bank->chance = take(bank, &used, word * longer);
    bank->sums = take(bank, &used, word * longer);
    bank->spread = take(bank, &used, word * longer);
    bank->numbers = take(bank, &used, word * ((size_t)conversions + PCMC_TRAINING_PADDING));
    bank->line = take(bank, &used, word * longer);
    bank->fired = take(bank, &used, word * longer);
    bank->offset = take(bank, &used, sizeof(int64_t) * longer);
    bank->row_train = take(bank, &used, word * rows);
    bank->col_train = take(bank, &used, word * cols);
    bank->pulse_numbers.numbers = take(bank, &used, word * (PCMC_PULSE_NUMBERS + PCMC_TRAINING_PADDING));
    return used;
}

int pcmc_training_reserve(struct pcmc_training_bank *bank)
{
    bank->memory = NULL;
    size_t bytes = lay_out(bank);
    bank->memory = aligned_alloc(64, bytes);
    if (!bank->memory)
        return -1;
    memset(bank->memory, 0, bytes);
    lay_out(bank);
    bank->pulse_numbers.first = INT64_MIN / 2;
    return 0;
}

void pcmc_training_release(struct pcmc_training_bank *bank)
{
    free(bank->memory);
    bank->memory = NULL;
}

/* ---- a chain of banks --------------------------------------------------------------------------------- */

/* values[k] goes into bank k, errors[k] comes back behind it (to its columns); all from one allocation. */
static float **reserve_values(const struct pcmc_chain *chain, float ***errors)
{
    size_t pointers = sizeof(float *) * (size_t)(2 * chain->n + 1), floats = 0;
    for (int64_t k = 0; k < chain->n; k++)
        floats += 2 * (size_t)((chain->banks[k]->cols + 15) / 16 * 16);
    pointers = (pointers + 63) / 64 * 64;
    float **values = aligned_alloc(64, pointers + floats * sizeof(float));
    if (!values)
        return NULL;
    float *next = (float *)((char *)values + pointers);
    *errors = values + chain->n + 1;
    for (int64_t k = 0; k < chain->n; k++) {
        int64_t width = (chain->banks[k]->cols + 15) / 16 * 16;
        values[k + 1] = next;
        (*errors)[k] = next + width;
        next += 2 * width;
    }
    return values;
}

static void leak_chain(const struct pcmc_chain *chain, const struct pcmc_training_kernels *kernels)
{
    for (int64_t k = 0; k < chain->n; k++)
        if (chain->trainable[k] && chain->banks[k]->has_law) {
            kernels->leak(chain->banks[k], 1.0f, (float)chain->pulls[2 * k]);
            chain->pulls[2 * k] *= chain->pulls[2 * k + 1];
        }
}

/* Forward, loss, backward as far as bank `first`, and update, of the example at values[0]. */
static void train_one(const struct pcmc_chain *chain, const struct pcmc_training_kernels *kernels, float **values,
                      float **errors, int64_t first, int64_t example, double *loss, int64_t *right)
{
    struct pcmc_training_bank **banks = chain->banks;
    int64_t n = chain->n;
    for (int64_t k = 0; k < n; k++) {
        kernels->forward(banks[k], values[k], values[k + 1], PCMC_FORWARD_NOISE);
        kernels->activate((int)chain->activations[k], values[k + 1], values[k + 1], banks[k]->cols);
    }
    *loss += kernels->loss_and_grad(chain->loss, values[n], &chain->targets, example, errors[n - 1], right);
    for (int64_t k = n - 1; k >= first; k--) {
        kernels->activate_backward((int)chain->activations[k], values[k + 1], errors[k], errors[k],
                                   banks[k]->cols);
        if (k > first)
            kernels->backward(banks[k], errors[k], errors[k - 1]);
    }
    for (int64_t k = first; k < n; k++)
        if (chain->trainable[k])
            kernels->update(banks[k], values[k], errors[k], chain->lr);
}

int pcmc_train_chain(const struct pcmc_chain *chain, double *loss, int64_t *right)
{
    const struct pcmc_training_kernels *kernels = pcmc_training_kernels();
    float **errors, **values = reserve_values(chain, &errors);
    int64_t first = 0;
    if (!values)
        return -1;
    while (first < chain->n && !chain->trainable[first])
        first++;
    for (int64_t i = 0; i < chain->examples; i++) {
        int64_t example = chain->order[i];
        values[0] = (float *)chain->x + example * chain->banks[0]->rows; /* only read */
        train_one(chain, kernels, values, errors, first, example, loss, right);
        if ((chain->first_example + i + 1) % PCMC_LEAK_EVERY == 0)
            leak_chain(chain, kernels);
    }
    free(values);
    return 0;
}
