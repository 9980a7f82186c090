/* Gaussians for one instruction set; _gaussian.c includes this file several times.
 *
 *   SUFFIX   ends every name
 *   TARGET   attribute that every function carries itself
 *   VL       floats in a vector: 4, 8 or 16
 *   SQRT     square roots of a vector, rounded correctly; where it is not defined, one by one
 */

#include "_threefry_isa.h"

typedef float FN(floats) __attribute__((vector_size(4 * VL)));
typedef int32_t FN(ints) __attribute__((vector_size(4 * VL)));
typedef float FN(any) __attribute__((vector_size(4 * VL), aligned(4), may_alias));

INLINE FN(floats) FN(roots)(FN(floats) v)
{
#ifdef SQRT
    return SQRT(v);
#else
    for (int l = 0; l < VL; l++)
        v[l] = sqrtf(v[l]);
    return v;
#endif
}

/* L = -2 ln(u) of u = (w / 2 + 1/2) / 2^31, at most 2^31 of them: L <= 44.4. Relative error < 4e-7. */
INLINE FN(floats) FN(minus_two_log)(FN(words) w)
{
    FN(floats) u = __builtin_convertvector((FN(ints))(w >> 1), FN(floats)) * 0x1p-31f + 0x1p-32f;
    FN(ints) bits = (FN(ints))u, e = (bits - 0x3f3504f3) >> 23; /* u = m * 2^e, m from sqrt(1/2) to sqrt(2) */
    FN(floats) y = (FN(floats))(bits - (e << 23)) - 1.0f;
    FN(floats) p = y * 0.20213778f - 0.32445169f;
    p = p * y + 0.34501666f;
    p = p * y - 0.39800331f;
    p = p * y + 0.49939817f;
    p = p * y - 0.66670120f;
    p = p * y + 1.00000727f;
    p = p * y - 1.99999988f;
    return __builtin_convertvector(e, FN(floats)) * -1.38629436f + y * p;
}

/* Cosine and sine of an angle anywhere on the circle: its sine and the size of its cosine come from the word as a
 * signed number, the sign of the cosine from the lowest bit. Absolute error < 3e-7. */
INLINE void FN(circle)(FN(words) w, FN(floats) *cosine, FN(floats) *sine)
{
    FN(floats) f = __builtin_convertvector((FN(ints))w, FN(floats)) * 0x1p-31f, t = f * f;
    FN(floats) s = t * 0.00015082262f - 0.0046722330f;
    s = s * t + 0.079688482f;
    s = s * t - 0.64596337f;
    s = s * t + 1.57079625f;
    FN(floats) c = t * 0.00085819064f - 0.020810628f;
    c = c * t + 0.25365075f;
    c = c * t - 1.23369825f;
    c = c * t + 0.99999994f;
    *cosine = (FN(floats))((FN(words))c ^ w << 31);
    *sine = s * f;
}

/* Four normal numbers a lane are roots(l[0]) * t[0], roots(l[0]) * t[1], roots(l[1]) * t[2], roots(l[1]) * t[3]. */
INLINE void FN(quartet)(const uint32_t key[4], FN(words) c0, uint32_t c1, uint32_t c2, uint32_t c3,
                        FN(floats) l[2], FN(floats) t[4])
{
    FN(words) x[4] = {c0, FN(spread)(c1), FN(spread)(c2), FN(spread)(c3)};
    FN(threefry)(key, x);
    l[0] = FN(minus_two_log)(x[0]);
    FN(circle)(x[1], &t[0], &t[1]);
    l[1] = FN(minus_two_log)(x[2]);
    FN(circle)(x[3], &t[2], &t[3]);
}

/* Number `word` of the four alone, as roots(l) * t. */
INLINE void FN(one_of_quartet)(const uint32_t key[4], FN(words) c0, uint32_t c1, uint32_t c2, uint32_t c3,
                               int64_t word, FN(floats) *l, FN(floats) *t)
{
    FN(words) x[4] = {c0, FN(spread)(c1), FN(spread)(c2), FN(spread)(c3)};
    FN(floats) cosine, sine;
    FN(threefry)(key, x);
    *l = FN(minus_two_log)(word < 2 ? x[0] : x[2]);
    FN(circle)(word < 2 ? x[1] : x[3], &cosine, &sine);
    *t = word % 2 ? sine : cosine;
}

TARGET void FN(pcmc_add_noise)(float *sums, const float *variance, int64_t nc, int64_t n, int64_t ld,
                               const struct pcmc_place *place)
{
    for (int64_t b = 0, end; b < nc; b = end) {
        int64_t word = (int64_t)((place->row + (uint64_t)b) % 4);
        end = b + 4 - word < nc ? b + 4 - word : nc;
        uint32_t four = (uint32_t)((place->row + (uint64_t)b) / 4);
        for (int64_t i = 0; i < n; i += VL) {
            FN(floats) l[2], t[4];
            FN(words) lane = FN(from)(place->lane + (uint32_t)i);
            float *to = sums + b * ld + i;
            const float *v = variance + b * ld + i;
            if (end - b == 1) {
                FN(one_of_quartet)(place->key, lane, place->item, four, place->block, word, l, t);
                *(FN(any) *)to += FN(roots)(l[0] * *(const FN(any) *)v) * t[0];
                continue;
            }
            FN(quartet)(place->key, lane, place->item, four, place->block, l, t);
            if (end - b == 4) {
                for (int k = 0; k < 4; k++)
                    *(FN(any) *)(to + k * ld) += FN(roots)(l[k / 2] * *(const FN(any) *)(v + k * ld)) * t[k];
                continue;
            }
            for (int64_t k = word; k < word + end - b; k++, to += ld, v += ld)
                *(FN(any) *)to += FN(roots)(l[k / 2] * *(const FN(any) *)v) * t[k];
        }
    }
}

/* Numbers 64 g to 64 g + 63: number 16 k + l of them is number k of lane l, whose counter is 16 g + l. */
INLINE void FN(fill_group)(float *out, const uint32_t key[4], uint64_t group)
{
    for (int at = 0; at < 16; at += VL) {
        uint64_t counter = group * 16 + (uint64_t)at;
        FN(floats) l[2], t[4];
        FN(quartet)(key, FN(from)((uint32_t)counter), (uint32_t)(counter >> 32), 0, 0, l, t);
        l[0] = FN(roots)(l[0]);
        l[1] = FN(roots)(l[1]);
        for (int k = 0; k < 4; k++)
            *(FN(any) *)(out + 16 * k + at) = l[k / 2] * t[k];
    }
}

TARGET void FN(pcmc_fill_gaussian)(float *out, int64_t n, const uint32_t key[4], uint64_t counter0)
{
    float edge[64];
    while (n > 0) {
        int64_t skip = (int64_t)(counter0 % 64), count = 64 - skip < n ? 64 - skip : n;
        if (count == 64)
            FN(fill_group)(out, key, counter0 / 64);
        else {
            FN(fill_group)(edge, key, counter0 / 64);
            for (int64_t i = 0; i < count; i++)
                out[i] = edge[skip + i];
        }
        out += count;
        n -= count;
        counter0 += (uint64_t)count;
    }
}

#undef INLINE
