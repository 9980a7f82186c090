/* Training in place for one instruction set; _training_kernels.c includes this file several times.
 *
 *   SUFFIX   ends every name
 *   TARGET   attribute that every function carries itself
 *   VL       floats in a vector: 4, 8 or 16
 *   FUSED    a * b + c of vectors of floats, rounded once where the instruction set can
 *
 * Loops that are plain C are made vectors of by the compiler; nothing in them is fused or reordered, so they
 * give the same bits everywhere.
 */

#include "_threefry_isa.h"

typedef float FN(floats) __attribute__((vector_size(4 * VL)));
typedef int32_t FN(ints) __attribute__((vector_size(4 * VL)));
typedef float FN(any) __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint32_t FN(any_words) __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint16_t FN(any_halves) __attribute__((vector_size(2 * VL), aligned(2), may_alias));

/* VL floats, or bfloat16, from `index` on. */
INLINE FN(floats) FN(load)(const void *from, int64_t index, int halves)
{
    if (!halves)
        return *(const FN(any) *)((const float *)from + index);
    FN(any_halves) found = *(const FN(any_halves) *)((const uint16_t *)from + index);
    return (FN(floats))(__builtin_convertvector(found, FN(words)) << 16);
}

/* ---- element by element ------------------------------------------------------------------------------- */

/* max(least, max |x[i]|), NaN left out. */
static TARGET float FN(largest)(const float *x, int64_t n, float least)
{
    float top[2 * VL];
    int64_t i = 0;
    for (int l = 0; l < 2 * VL; l++)
        top[l] = least;
    for (; i + 2 * VL <= n; i += 2 * VL)
        for (int l = 0; l < 2 * VL; l++) {
            float size = fabsf(x[i + l]);
            top[l] = size > top[l] ? size : top[l];
        }
    for (; i < n; i++)
        top[0] = fabsf(x[i]) > top[0] ? fabsf(x[i]) : top[0];
    for (int l = 1; l < 2 * VL; l++)
        top[0] = top[l] > top[0] ? top[l] : top[0];
    return top[0];
}

/* Indices of the words whose lower 31 bits are not all 0 (floats: that are not 0); how many there are. Up to VL
 * more entries of `index` are overwritten. */
static TARGET int64_t FN(list_nonzero)(const void *words, int64_t n, int32_t *index)
{
    int64_t count = 0;
#if VL == 16
    __m512i at = (__m512i)FN(from)(0), bits = _mm512_set1_epi32(0x7fffffff);
    for (int64_t i = 0; i < n; i += 16, at = _mm512_add_epi32(at, _mm512_set1_epi32(16))) {
        __mmask16 valid = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
        __m512i word = _mm512_maskz_loadu_epi32(valid, (const char *)words + 4 * i);
        __mmask16 found = _mm512_test_epi32_mask(word, bits);
        _mm512_storeu_si512(index + count, _mm512_maskz_compress_epi32(found, at));
        count += __builtin_popcount(found);
    }
#else
    const char *from = words;
    for (int64_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, from + 4 * i, 4);
        index[count] = (int32_t)i;
        count += (word & 0x7fffffff) != 0;
    }
#endif
    return count;
}

static TARGET void FN(to_codes)(const float *from, float *to, int64_t n, float step, float levels)
{
    float div = is_live(step) ? step : 1.0f, mul = is_live(step) ? step : 0.0f;
    for (int64_t i = 0; i < n; i++)
        to[i] = code(from[i] / div, levels) * mul;
}

/* n sums to what the converters from `at` on make of them; how many clipped. */
static TARGET int64_t FN(digitize)(float *restrict sums, int64_t n, const struct pcmc_port *port, int64_t at,
                                   float lsb)
{
    float levels = port->adc_levels, most = levels + 0.5f;
    int32_t clipped = 0;
    if (!is_live(lsb))
        memset(sums, 0, sizeof(float) * (size_t)n);
    else if (port->offset) {
        const float *offset = port->offset + at;
        for (int64_t i = 0; i < n; i++) {
            float value = sums[i] / lsb + offset[i];
            clipped += !(fabsf(value) <= most);
            sums[i] = code(value, levels) * lsb;
        }
    } else
        for (int64_t i = 0; i < n; i++) {
            float value = sums[i] / lsb;
            clipped += !(fabsf(value) <= most);
            sums[i] = code(value, levels) * lsb;
        }
    return clipped;
}

static TARGET void FN(add_noise)(float *restrict sums, const float *restrict variance,
                                 const float *restrict numbers, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        sums[i] += sqrtf(variance[i]) * numbers[i];
}

static TARGET void FN(add)(float *restrict to, const float *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

static TARGET void FN(square)(float *restrict to, const float *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i] * from[i];
}

static TARGET void FN(activate)(int kind, const float *x, float *y, int64_t n)
{
    if (kind == PCMC_RELU)
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] < 0.0f ? 0.0f : x[i]; /* a NaN stays one */
    else if (kind == PCMC_TANH)
        for (int64_t i = 0; i < n; i++)
            y[i] = hyperbolic_tangent(x[i]);
    else if (kind == PCMC_SIGMOID)
        for (int64_t i = 0; i < n; i++)
            y[i] = logistic(x[i]);
    else if (y != x)
        memcpy(y, x, sizeof(float) * (size_t)n);
}

static TARGET void FN(activate_backward)(int kind, const float *y, const float *dy, float *dx, int64_t n)
{
    if (kind == PCMC_RELU)
        for (int64_t i = 0; i < n; i++)
            dx[i] = y[i] > 0.0f ? dy[i] : 0.0f;
    else if (kind == PCMC_TANH)
        for (int64_t i = 0; i < n; i++)
            dx[i] = dy[i] * (1.0f - y[i] * y[i]);
    else if (kind == PCMC_SIGMOID)
        for (int64_t i = 0; i < n; i++)
            dx[i] = dy[i] * (y[i] * (1.0f - y[i]));
    else if (dx != dy)
        memcpy(dx, dy, sizeof(float) * (size_t)n);
}

/* ---- the loss ----------------------------------------------------------------------------------------- */

/* What is wanted of output j of vector v. */
INLINE float FN(wanted)(const struct pcmc_targets *targets, int64_t v, int64_t j)
{
    if (targets->labels)
        return targets->labels[v] == (targets->cols > 1 ? j : 1) ? 1.0f : 0.0f;
    return targets->wanted[v * targets->cols + j];
}

/* The gradient is the softmax times the sum of the targets, less the targets. */
static TARGET double FN(cross_entropy)(const float *z, const struct pcmc_targets *targets, int64_t v, float *grad)
{
    int64_t n = targets->cols;
    float top = -INFINITY, total = 0.0f, weight = 0.0f;
    for (int64_t j = 0; j < n; j++)
        top = z[j] > top ? z[j] : top;
    for (int64_t j = 0; j < n; j++)
        grad[j] = exponential(z[j] - top);
    for (int64_t j = 0; j < n; j++) {
        total += grad[j];
        weight += FN(wanted)(targets, v, j);
    }
    double loss = 0.0, logarithm = log((double)total) + (double)top;
    for (int64_t j = 0; j < n; j++) {
        float wanted = FN(wanted)(targets, v, j);
        loss += wanted != 0.0f ? (double)wanted * (logarithm - (double)z[j]) : 0.0;
        grad[j] = grad[j] / total * weight - wanted;
    }
    return loss;
}

static TARGET float FN(loss_and_grad)(int kind, const float *z, const struct pcmc_targets *targets, int64_t v,
                                      float *grad, int64_t *right)
{
    int64_t n = targets->cols, best = 0, meant = 0;
    double loss = 0.0;
    for (int64_t j = 1; j < n; j++) {
        best = z[j] > z[best] ? j : best;
        meant = FN(wanted)(targets, v, j) > FN(wanted)(targets, v, meant) ? j : meant;
    }
    if (n == 1 && kind != PCMC_CROSS_ENTROPY)
        *right += (z[0] > (kind == PCMC_BCE ? 0.0f : 0.5f)) == (FN(wanted)(targets, v, 0) > 0.5f);
    else
        *right += n > 0 && best == meant;
    if (kind == PCMC_CROSS_ENTROPY)
        return (float)FN(cross_entropy)(z, targets, v, grad);
    for (int64_t j = 0; j < n; j++) {
        float wanted = FN(wanted)(targets, v, j), size = fabsf(z[j]);
        if (kind == PCMC_MSE) {
            loss += (double)(z[j] - wanted) * (double)(z[j] - wanted);
            grad[j] = (z[j] - wanted) * (2.0f / (float)n);
        } else {
            loss += log1p(exp(-(double)size)) + (z[j] > 0.0f ? z[j] : 0.0) - (double)z[j] * (double)wanted;
            grad[j] = (logistic(z[j]) - wanted) / (float)n;
        }
    }
    return n > 0 ? (float)(loss / (double)n) : 0.0f;
}

#include "_training_reads_isa.h"

#include "_training_pulses_isa.h"

static const struct pcmc_training_kernels FN(kernels) = {
    .simd = STRING(SUFFIX),
    .forward = FN(forward),
    .backward = FN(backward),
    .update = FN(update),
    .leak = FN(leak),
    .activate = FN(activate),
    .activate_backward = FN(activate_backward),
    .loss_and_grad = FN(loss_and_grad),
};

#undef INLINE
