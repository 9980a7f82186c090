/* Tile reads for one instruction set; _tile_read.c includes this file several times.
 *
 *   SUFFIX     ends every name
 *   TARGET     attribute that every function carries itself
 *   VL         floats in a vector
 *   REGISTERS  vector registers, 16 or 32
 *
 * All the work is in one micro-kernel: NC broadcast values times NV vectors of lanes, sums in registers, rows
 * strictly in order. So a result does not depend on how lanes and values were grouped: not on the batch, not
 * on the threads.
 *
 *   read               lanes                      broadcast
 *   dense              columns of the block       input vectors
 *   conv               output positions           columns of the block
 *   dense transposed   input vectors              rows of the block
 *   conv transposed    output positions           rows of the block
 *
 * The element-wise loops are plain C: the compiler makes vectors of them. Digitizing and adding are separate
 * loops, since fused into one multiply-add they would round differently from the twin.
 */

typedef float FN(vec) __attribute__((vector_size(4 * VL)));
typedef float FN(loose) __attribute__((vector_size(4 * VL), aligned(4), may_alias));

/* The floats that VL halves stand for. */
static TARGET inline __attribute__((always_inline)) FN(vec) FN(load_halves)(const uint16_t *from)
{
#if VL == 16
    return (FN(vec))_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i_u *)from)), 16);
#elif VL == 8
    return (FN(vec))_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i_u *)from)), 16);
#else
    FN(vec) floats;
    for (int l = 0; l < VL; l++)
        floats[l] = widen_one(from[l]);
    return floats;
#endif
}

/* The first n lanes of a vector, 1 <= n <= VL: the others are 0, or left alone; no other memory is touched. */
static TARGET inline __attribute__((always_inline)) FN(vec) FN(load_first)(const float *from, int64_t n)
{
#if VL == 16
    return (FN(vec))_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), from);
#elif VL == 8
    return (FN(vec))_mm256_maskload_ps(from, _mm256_loadu_si256((const __m256i_u *)(ENDS + 8 - n)));
#else
    FN(vec) found = {0};
    for (int64_t l = 0; l < n; l++)
        found[l] = from[l];
    return found;
#endif
}

static TARGET inline __attribute__((always_inline)) void FN(store_first)(float *to, FN(vec) values, int64_t n)
{
#if VL == 16
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << n) - 1), (__m512)values);
#elif VL == 8
    _mm256_maskstore_ps(to, _mm256_loadu_si256((const __m256i_u *)(ENDS + 8 - n)), (__m256)values);
#else
    for (int64_t l = 0; l < n; l++)
        to[l] = values[l];
#endif
}

/* ---- the micro-kernel --------------------------------------------------------------------------------- */

#define EACH(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < n; i++)

#define MICRO(NC, NV)                                                                                       \
    static TARGET void FN(micro_##NC##_##NV)(const float *lanes, const int64_t *off, int64_t n,             \
                                             const float *broadcast, int64_t sk, int64_t sb, float *acc)    \
    {                                                                                                       \
        FN(vec) sum[NC][NV];                                                                                \
        EACH(b, NC)                                                                                         \
            EACH(v, NV)                                                                                     \
                sum[b][v] = *(FN(loose) *)(acc + b * ACC_LD + v * VL);                                      \
        for (int64_t k = 0; k < n; k++, broadcast += sk) {                                                  \
            const float *from = lanes + off[k];                                                             \
            FN(vec) lane[NV];                                                                               \
            EACH(v, NV)                                                                                     \
                lane[v] = *(const FN(loose) *)(from + v * VL);                                              \
            EACH(b, NC)                                                                                     \
                EACH(v, NV)                                                                                 \
                    sum[b][v] += lane[v] * broadcast[b * sb];                                               \
        }                                                                                                   \
        EACH(b, NC)                                                                                         \
            EACH(v, NV)                                                                                     \
                *(FN(loose) *)(acc + b * ACC_LD + v * VL) = sum[b][v];                                      \
    }

/* NC * NV sums, NV lanes and a broadcast value must fit the registers. */
MICRO(1, 1) MICRO(1, 2) MICRO(1, 3) MICRO(1, 4) MICRO(1, 5) MICRO(1, 6) MICRO(1, 7) MICRO(1, 8)
MICRO(2, 1) MICRO(2, 2) MICRO(2, 3) MICRO(2, 4) MICRO(2, 5) MICRO(2, 6)
MICRO(4, 1) MICRO(4, 2) MICRO(4, 3)
#if REGISTERS == 32
MICRO(2, 7) MICRO(2, 8)
MICRO(4, 4) MICRO(4, 5) MICRO(4, 6)
MICRO(8, 1) MICRO(8, 2) MICRO(8, 3)
#endif

#define M(NC, NV) FN(micro_##NC##_##NV)

/* By log2(NC), NV - 1; below them the largest NV of each. */
#if REGISTERS == 32
static micro_kernel *const FN(micros)[4][8] = {
    {M(1, 1), M(1, 2), M(1, 3), M(1, 4), M(1, 5), M(1, 6), M(1, 7), M(1, 8)},
    {M(2, 1), M(2, 2), M(2, 3), M(2, 4), M(2, 5), M(2, 6), M(2, 7), M(2, 8)},
    {M(4, 1), M(4, 2), M(4, 3), M(4, 4), M(4, 5), M(4, 6)},
    {M(8, 1), M(8, 2), M(8, 3)},
};
static const int FN(widest)[] = {8, 8, 6, 3};
#else
static micro_kernel *const FN(micros)[3][8] = {
    {M(1, 1), M(1, 2), M(1, 3), M(1, 4), M(1, 5), M(1, 6), M(1, 7), M(1, 8)},
    {M(2, 1), M(2, 2), M(2, 3), M(2, 4), M(2, 5), M(2, 6)},
    {M(4, 1), M(4, 2), M(4, 3)},
};
static const int FN(widest)[] = {8, 6, 3};
#endif

#undef M
#undef MICRO
#undef EACH

/* log2 of how many of `left` broadcast values to take at once. */
static TARGET inline int FN(group)(int64_t left)
{
    int g = (int)(sizeof FN(widest) / sizeof *FN(widest)) - 1;
    while (left < (int64_t)1 << g)
        g--;
    return g;
}

/* How many of `left` vectors of lanes to take at once, at most `most`; in even portions, 7 as 3 + 2 + 2. */
static TARGET inline int FN(portion)(int64_t left, int most)
{
    if (left <= most)
        return (int)left;
    int64_t turns = (left + most - 1) / most;
    return (int)((left + turns - 1) / turns);
}

/* ---- element-wise loops ------------------------------------------------------------------------------- */

static TARGET void FN(quantize)(const float *from, float *to, int64_t n, struct step step, float levels)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = code(from[i] / step.div, levels) * step.mul;
}

static TARGET void FN(quantize_lanes)(float *values, int64_t n, const float *div, const float *mul,
                                      float levels)
{
    for (int64_t i = 0; i < n; i++)
        values[i] = code(values[i] / div[i], levels) * mul[i];
}

/* Sums to codes, not yet rounded or clipped, and such codes to values; numbers of each lane. */
static TARGET void FN(to_codes)(float *restrict sums, int64_t n, float scale, const float *restrict gain,
                                const float *restrict offset)
{
    for (int64_t i = 0; i < n; i++)
        sums[i] = sums[i] / scale * gain[i] + offset[i];
}

static TARGET void FN(to_values)(float *restrict codes, int64_t n, float scale, const float *restrict step,
                                 const float *restrict shift, float levels)
{
    for (int64_t i = 0; i < n; i++)
        codes[i] = (code(codes[i], levels) * step[i] + shift[i]) * scale;
}

/* The same with numbers that all lanes share. */
static TARGET void FN(to_codes_alike)(float *sums, int64_t n, float scale, float gain, float offset)
{
    for (int64_t i = 0; i < n; i++)
        sums[i] = sums[i] / scale * gain + offset;
}

static TARGET void FN(to_values_alike)(float *codes, int64_t n, float scale, float step, float shift, float levels)
{
    for (int64_t i = 0; i < n; i++)
        codes[i] = (code(codes[i], levels) * step + shift) * scale;
}

/* How many of n <= ACC_LD sums / div will clip; a NaN does. */
static TARGET int64_t FN(count_clipped)(const float *sums, int64_t n, float div, float levels)
{
    float most = levels + 0.5f;
    int32_t clipped = 0;
    for (int64_t i = 0; i < n; i++)
        clipped += !(fabsf(sums[i] / div) <= most);
    return clipped;
}

static TARGET void FN(add)(float *restrict to, const float *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

static TARGET void FN(add_value)(float *to, int64_t n, float value)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += value;
}

static TARGET void FN(rectify)(float *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = to[i] < 0.0f ? 0.0f : to[i]; /* a NaN stays one */
}

static TARGET void FN(fill)(float *to, int64_t n, float value)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = value;
}

static TARGET void FN(scaled)(float *restrict to, const float *restrict from, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i] * factor;
}

/* Halves to floats. */
static TARGET void FN(widen)(float *restrict to, const uint16_t *restrict from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = widen_one(from[i]);
}

static TARGET void FN(add_scaled)(float *restrict to, const float *restrict from, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i] * factor;
}

/* What variances go with: |x|^power. */
static TARGET void FN(raise)(float *restrict to, const float *restrict from, int64_t n, int power)
{
    if (power == 1)
        for (int64_t i = 0; i < n; i++)
            to[i] = fabsf(from[i]);
    else
        for (int64_t i = 0; i < n; i++)
            to[i] = from[i] * from[i];
}

static TARGET void FN(input_range)(const float *x, int64_t n, float floor, float *scale, int64_t first,
                                   int64_t last)
{
    for (int64_t item = first; item < last; item++) {
        const float *from = x + item * n;
        float top[4 * VL];
        int64_t i = 0;
        for (int l = 0; l < 4 * VL; l++)
            top[l] = floor;
        for (; i + 4 * VL <= n; i += 4 * VL)
            for (int l = 0; l < 4 * VL; l++) {
                float size = fabsf(from[i + l]);
                top[l] = size > top[l] ? size : top[l]; /* false for a NaN, which is so left out */
            }
        for (; i < n; i++)
            top[0] = fabsf(from[i]) > top[0] ? fabsf(from[i]) : top[0];
        for (int l = 1; l < 4 * VL; l++)
            top[0] = top[l] > top[0] ? top[l] : top[0];
        scale[item] = top[0];
    }
}

#include "_tile_read_dense_isa.h"

#include "_tile_read_conv_isa.h"

static const struct pcmc_kernels FN(kernels) = {
    .simd = STRING(SUFFIX),
    .dense_read = FN(dense_read),
    .dense_read_transposed = FN(dense_read_transposed),
    .conv_read = FN(conv_read),
    .conv_read_transposed = FN(conv_read_transposed),
    .input_range = FN(input_range),
    .fill_gaussian = FN(pcmc_fill_gaussian),
};
