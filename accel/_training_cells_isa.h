/* Pulses on up to VL cells at a time, for instruction sets with vectors of 8 or 16; included by
 * _training_pulses_isa.h. The bits are those of `pulse` there. */

#if VL == 16

typedef __mmask16 FN(lanes);

INLINE FN(lanes) FN(lanes_of)(uint32_t bits) { return (__mmask16)bits; }

INLINE uint32_t FN(bits_of)(FN(lanes) lanes) { return lanes; }

/* Lanes that have some of the bits. */
INLINE FN(lanes) FN(have)(FN(words) v, FN(words) bits)
{
    return _mm512_test_epi32_mask((__m512i)v, (__m512i)bits);
}

/* a + b in some lanes, else a. */
INLINE FN(words) FN(plus)(FN(words) a, FN(lanes) lanes, FN(words) b)
{
    return (FN(words))_mm512_mask_add_epi32((__m512i)a, lanes, (__m512i)a, (__m512i)b);
}

/* Lanes that have the uppermost bit. */
INLINE FN(lanes) FN(signs)(FN(words) v) { return _mm512_movepi32_mask((__m512i)v); }

INLINE FN(lanes) FN(below)(FN(floats) a, FN(floats) b)
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
}

INLINE FN(lanes) FN(differ)(FN(floats) a, FN(floats) b)
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NEQ_UQ);
}

INLINE FN(words) FN(where)(FN(lanes) lanes, FN(words) then, FN(words) other)
{
    return (FN(words))_mm512_mask_mov_epi32((__m512i)other, lanes, (__m512i)then);
}

/* Lanes that are not taken are 0, and not touched in memory. */
INLINE FN(words) FN(take)(FN(lanes) lanes, const void *from)
{
    return (FN(words))_mm512_maskz_loadu_epi32(lanes, from);
}

INLINE void FN(put)(FN(lanes) lanes, float *to, FN(floats) v)
{
    _mm512_mask_storeu_ps(to, lanes, (__m512)v);
}

/* The next numbers, one for each of the lanes. */
INLINE FN(floats) FN(deal)(FN(lanes) lanes, const float *numbers)
{
    return (FN(floats))_mm512_maskz_expand_ps(lanes, _mm512_loadu_ps(numbers));
}

INLINE FN(floats) FN(clip)(FN(floats) v, FN(floats) bottom, FN(floats) top)
{
    return (FN(floats))_mm512_min_ps(_mm512_max_ps((__m512)v, (__m512)bottom), (__m512)top);
}

/* Entries n of a table of 32. */
INLINE FN(floats) FN(entries)(const float *table, FN(words) n)
{
    return (FN(floats))_mm512_permutex2var_ps(_mm512_loadu_ps(table), (__m512i)n, _mm512_loadu_ps(table + 16));
}

/* How many of the lower 31 bits of each word are set; `counts`: the processor has vpopcntd. */
INLINE FN(words) FN(ones)(FN(words) words, FN(words) lower, int counts)
{
    if (__builtin_expect(counts, 1)) {
        words &= lower;
        __asm__("vpopcntd %1, %0" : "=v"(words) : "v"(words));
        return words;
    }
    const __m512i nibbles = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi32(0x070f0f0f), v = (__m512i)words;
    __m512i bytes =
        _mm512_add_epi8(_mm512_shuffle_epi8(nibbles, _mm512_and_si512(v, low)),
                        _mm512_shuffle_epi8(nibbles, _mm512_and_si512(_mm512_srli_epi32(v, 4), high)));
    bytes = _mm512_maddubs_epi16(bytes, _mm512_set1_epi8(1));
    return (FN(words))_mm512_madd_epi16(bytes, _mm512_set1_epi16(1));
}

#else

typedef __m256i FN(lanes);

INLINE FN(lanes) FN(lanes_of)(uint32_t bits)
{
    const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), each), each);
}

INLINE uint32_t FN(bits_of)(FN(lanes) lanes) { return (uint32_t)_mm256_movemask_ps((__m256)lanes); }

INLINE FN(words) FN(plus)(FN(words) a, FN(lanes) lanes, FN(words) b) { return a + (b & (FN(words))lanes); }

INLINE FN(lanes) FN(have)(FN(words) v, FN(words) bits)
{
    __m256i none = _mm256_cmpeq_epi32((__m256i)(v & bits), _mm256_setzero_si256());
    return _mm256_xor_si256(none, _mm256_set1_epi32(-1));
}

INLINE FN(lanes) FN(signs)(FN(words) v) { return _mm256_srai_epi32((__m256i)v, 31); }

INLINE FN(lanes) FN(below)(FN(floats) a, FN(floats) b)
{
    return (__m256i)_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ);
}

INLINE FN(lanes) FN(differ)(FN(floats) a, FN(floats) b)
{
    return (__m256i)_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_NEQ_UQ);
}

INLINE FN(words) FN(where)(FN(lanes) lanes, FN(words) then, FN(words) other)
{
    return (FN(words))_mm256_blendv_epi8((__m256i)other, (__m256i)then, lanes);
}

INLINE FN(words) FN(take)(FN(lanes) lanes, const void *from)
{
    return (FN(words))_mm256_maskload_epi32(from, lanes);
}

INLINE void FN(put)(FN(lanes) lanes, float *to, FN(floats) v)
{
    _mm256_maskstore_ps(to, lanes, (__m256)v);
}

INLINE FN(floats) FN(deal)(FN(lanes) lanes, const float *numbers)
{
    /* A byte for each lane, 1 where it is taken; then how many are taken before it. */
    uint64_t taken = FN(bits_of)(lanes) * 0x0101010101010101u & 0x8040201008040201u;
    taken = (taken + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
    uint64_t before = taken * 0x0101010101010101u - taken;
    __m256i place = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)before));
    return (FN(floats))_mm256_permutevar8x32_ps(_mm256_loadu_ps(numbers), place);
}

INLINE FN(floats) FN(clip)(FN(floats) v, FN(floats) bottom, FN(floats) top)
{
    return (FN(floats))_mm256_min_ps(_mm256_max_ps((__m256)v, (__m256)bottom), (__m256)top);
}

INLINE FN(floats) FN(entries)(const float *table, FN(words) n)
{
    return (FN(floats))_mm256_i32gather_ps(table, (__m256i)n, 4);
}

INLINE FN(words) FN(ones)(FN(words) words, FN(words) lower, int counts)
{
    (void)lower, (void)counts;
    const __m256i low = _mm256_set1_epi8(15), high = _mm256_set1_epi32(0x070f0f0f), v = (__m256i)words;
    const __m256i nibbles =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    __m256i bytes =
        _mm256_add_epi8(_mm256_shuffle_epi8(nibbles, _mm256_and_si256(v, low)),
                        _mm256_shuffle_epi8(nibbles, _mm256_and_si256(_mm256_srli_epi32(v, 4), high)));
    bytes = _mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1));
    return (FN(words))_mm256_madd_epi16(bytes, _mm256_set1_epi16(1));
}

#endif

/* What the panels of a block share. */
struct FN(bench) {
    float *low, *weights;
    const uint16_t *steps, *slopes, *bounds;
    const float *numbers; /* of the next cell */
    int64_t counted;      /* 1, or 0 where there is no noise, and no number is used up */
    uint32_t slots;
    int steep, counts;
    FN(floats) noise, mid, sign;
    FN(words) pulses, up; /* in each lane, so far */
    FN(words) upper, uppermost, lower; /* bits: the upper half, its first one, all others */
    int64_t cells, limited;
};

INLINE struct FN(bench) FN(make_bench)(const struct pcmc_training_bank *bank, int64_t slots)
{
    const struct pcmc_law *law = &bank->law;
    const FN(floats) none = {0};
    /* From memory that may change, or else compilers make them anew for each panel, which takes longer. */
    static volatile uint32_t bits[3] = {0xffff0000u, 0x80000000u, 0x7fffffffu};
    struct FN(bench) bench = {
        .low = law->low, .weights = bank->weights, .steps = law->steps, .slopes = law->slopes,
        .bounds = law->bounds, .counted = law->noise != 0.0f, .slots = (uint32_t)slots,
        .steep = is_steep(law, slots),
        .noise = none + law->noise, .mid = none + law->low_mid, .sign = none + bank->sign,
        .upper = FN(spread)(bits[0]), .uppermost = FN(spread)(bits[1]), .lower = FN(spread)(bits[2]),
#if VL == 16
        .counts = __builtin_cpu_supports("avx512vpopcntdq") != 0,
#endif
    };
    return bench;
}

/* Asks for the cells of the next row, or of none: what is not there is not fetched. */
INLINE void FN(prefetch)(const struct FN(bench) *bench, int64_t cell)
{
    __builtin_prefetch(bench->low + cell);
    __builtin_prefetch(bench->weights + cell);
    __builtin_prefetch(bench->steps + 2 * cell);
    __builtin_prefetch(bench->slopes + 2 * cell);
    __builtin_prefetch(bench->bounds + 2 * cell);
}

/* `effect` of each. */
INLINE FN(floats) FN(effects)(const struct FN(bench) *bench, FN(words) n, FN(floats) slope)
{
    if (__builtin_expect(!bench->steep, 1))
        return __builtin_convertvector((FN(ints))n, FN(floats)) - FN(entries)(PAIRS, n) * slope;
    FN(floats) sum = __builtin_convertvector((FN(ints))(n & 1), FN(floats)), power = 1.0f - slope;
    FN(floats) block = (FN(floats)){0} + 1.0f;
    for (uint32_t bit = 2; bit <= bench->slots; bit <<= 1) {
        block = block + block * power;
        power = power * power;
        sum = (FN(floats))FN(where)(FN(have)(n, FN(spread)(bit)), (FN(words))(sum * power + block), (FN(words))sum);
    }
    return sum;
}

/* The cells `hit` of those from `cell` on, each with the pulses that `both` has lower bits; those with the
 * uppermost one go up. */
INLINE void FN(pulse_panel)(struct FN(bench) *bench, int64_t cell, FN(words) both, FN(lanes) hit)
{
    FN(lanes) ups = FN(signs)(both);
    const FN(words) upper = bench->upper, minus = bench->uppermost;
    FN(words) steps = FN(take)(hit, bench->steps + 2 * cell), slopes = FN(take)(hit, bench->slopes + 2 * cell);
    FN(words) bounds = FN(take)(hit, bench->bounds + 2 * cell), count = both & 1;
    FN(floats) low = (FN(floats))FN(take)(hit, bench->low + cell);
    FN(floats) weights = (FN(floats))FN(take)(hit, bench->weights + cell);
    FN(floats) step = (FN(floats))FN(where)(ups, steps << 16, (steps & upper) ^ minus);
    FN(floats) slope = (FN(floats))FN(where)(ups, slopes << 16, slopes & upper);
    FN(floats) noise = bench->noise * FN(deal)(hit, bench->numbers);
    if (bench->slots > 1) {
        count = FN(ones)(both, bench->lower, bench->counts);
        noise = noise * FN(entries)(ONE_OVER_ROOT, count);
    }
    FN(floats) change = step * (1.0f + noise) - slope * (low - bench->mid);
    if (bench->slots > 1)
        change = FN(effects)(bench, count, slope) * change;
    FN(floats) moved = low + change;
    FN(floats) kept = FN(clip)(moved, (FN(floats))(bounds << 16), (FN(floats))(bounds & upper));
    FN(put)(hit, bench->weights + cell, weights + bench->sign * (kept - low));
    FN(put)(hit, bench->low + cell, kept);
    int64_t cells = __builtin_popcount(FN(bits_of)(hit));
    bench->cells += cells;
    bench->numbers += cells & -bench->counted;
    bench->limited += __builtin_popcount(FN(bits_of)(hit) & FN(bits_of)(FN(differ)(kept, moved)));
    bench->pulses += count;
    bench->up = FN(plus)(bench->up, ups, count);
}

/* Lists the panels of a block in which columns fire, by their first columns; how many there are. What is `signed`
 * are the trains, with the uppermost bit where the error is below 0, and zeros behind. */
static TARGET int64_t FN(list_panels)(const uint32_t *train, const float *d, int64_t cols, uint32_t *signed_train,
                                      int32_t *panel)
{
    int64_t n = 0;
    for (int64_t j = 0; j < cols; j += VL) {
        FN(lanes) there = FN(lanes_of)((1u << min64(VL, cols - j)) - 1);
        FN(words) trains = FN(take)(there, train + j);
        FN(floats) errors = (FN(floats))FN(take)(there, d + j);
        *(FN(any_words) *)(signed_train + j) =
            FN(where)(FN(below)(errors, (FN(floats)){0}), trains | 0x80000000u, trains);
        panel[n] = (int32_t)j;
        n += FN(bits_of)(FN(have)(trains, trains)) != 0;
    }
    return n;
}

/* All coincidences of one row that fires with some panels; its first cell is `cell`, that of the next row is
 * `ahead` of it. Where the row is `turned` cells go up whose error is not below 0. */
INLINE void FN(fire_panels)(struct FN(bench) *bench, const uint32_t *signed_train, int64_t cell, int64_t ahead,
                            uint32_t train, int turned, const int32_t *panel, int64_t panels)
{
    const FN(words) flip = turned ? bench->uppermost : (FN(words)){0}, drive = bench->uppermost | train;
    for (int64_t p = 0; p < panels; p++) {
        int64_t j = panel[p];
        FN(words) both = (*(const FN(any_words) *)(signed_train + j) ^ flip) & drive;
        FN(lanes) hit = FN(have)(both, bench->lower);
        FN(prefetch)(bench, cell + ahead + j);
        if (FN(bits_of)(hit))
            FN(pulse_panel)(bench, cell + j, both, hit);
    }
}
