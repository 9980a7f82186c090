/* Updates of a training bank for one instruction set; included by _training_isa.h. */

/* ---- exact changes ------------------------------------------------------------------------------------ */

/* w -= lr * (x * d), of one row. */
static TARGET void FN(descend)(float *restrict w, const float *restrict d, int64_t n, float x, float lr)
{
    for (int64_t j = 0; j < n; j++)
        w[j] -= lr * (x * d[j]);
}

/* The same of what the low tier holds, as far as its bounds go; how many of n cells it stopped. */
static TARGET int64_t FN(descend_low)(float *restrict w, float *restrict low, const uint16_t *restrict low_min,
                                      const uint16_t *restrict low_max, const float *restrict d, int64_t n,
                                      float x, float lr, float sign)
{
    int32_t limited = 0;
    for (int64_t j = 0; j < n; j++) {
        float moved = low[j] - sign * (lr * (x * d[j])), bottom = widen(low_min[j]), top = widen(low_max[j]);
        float kept = moved < bottom ? bottom : moved;
        kept = kept > top ? top : kept;
        limited += kept != moved;
        w[j] += sign * (kept - low[j]);
        low[j] = kept;
    }
    return limited;
}

static TARGET void FN(change_row)(struct pcmc_training_bank *bank, int64_t cell, const float *d, int64_t n,
                                  float x, float lr)
{
    const struct pcmc_law *law = &bank->law;
    if (x == 0.0f)
        return;
    if (!bank->has_law)
        FN(descend)(bank->weights + cell, d, n, x, lr);
    else
        bank->counts[PCMC_PULSES_LIMITED] +=
            FN(descend_low)(bank->weights + cell, law->low + cell, law->low_min + cell, law->low_max + cell, d, n,
                            x, lr, bank->sign);
}

static TARGET void FN(change)(struct pcmc_training_bank *bank, const float *x, const float *d, float lr)
{
    for (int64_t i = 0; i < bank->n_blocks; i++) {
        const struct pcmc_training_block *block = &bank->blocks[i];
        int64_t rows = block->rows - block->bias, cell = block->offset;
        for (int64_t r = 0; r < rows; r++, cell += block->cols)
            FN(change_row)(bank, cell, d + block->col0, block->cols, x[block->row0 + r], lr);
        if (block->bias)
            FN(change_row)(bank, cell, d + block->col0, block->cols, bank->bias_drive, lr);
    }
}

/* ---- pulse trains ------------------------------------------------------------------------------------- */

/* chance[k] = 65536 times the probability that a line fires in a slot, at most 65536; zeros up to a whole vector
 * behind. How many were more than 1. */
static TARGET int64_t FN(chances)(const float *line, int64_t n, float factor, float *chance)
{
    int32_t clipped = 0;
    for (int64_t k = 0; k < n; k++) {
        float wanted = fabsf(line[k]) * factor, most = 65536.0f;
        float found = wanted < most ? wanted : most;
        clipped += (line[k] != 0.0f) & !(wanted <= most);
        chance[k] = line[k] != 0.0f ? found : 0.0f;
    }
    memset(chance + n, 0, sizeof(float) * VL);
    return clipped;
}

/* Trains of n lines, in whole vectors; `line` numbers them, NULL: from 0 on. */
static TARGET void FN(draw_trains)(const uint32_t key[4], const int32_t *line, const float *chance, int64_t n,
                                   int64_t slots, uint64_t update, uint32_t *train)
{
    for (int64_t k = 0; k < n; k += VL) {
        FN(words) id = FN(from)((uint32_t)k), bits = {0}, threshold = {0};
        if (line)
            id = *(const FN(any_words) *)(line + k);
        for (uint32_t group = 0; group * 8 < slots + 1; group++) {
            FN(words) x[4] = {id, FN(spread)((uint32_t)update), FN(spread)((uint32_t)(update >> 32)),
                              FN(spread)(group)};
            FN(threefry)(key, x);
            for (uint32_t half = 0; half < 8 && group * 8 + half < slots + 1; half++) {
                FN(words) number = half % 2 ? x[half / 2] >> 16 : x[half / 2] & 0xffff;
                if (group * 8 + half > 0) {
                    bits |= (FN(words))(number < threshold) & 1u << (group * 8 + half - 1);
                    continue;
                }
                FN(floats) v = __builtin_convertvector((FN(ints))number, FN(floats)) * 0x1p-16f + 0x1p-17f;
                threshold =
                    (FN(words))__builtin_convertvector(*(const FN(any) *)(chance + k) + v, FN(ints));
            }
        }
        *(FN(any_words) *)(train + k) = bits;
    }
}

/* Trains without chance: the nearest number of slots, the first ones or spread over all by bit reversal. */
static TARGET void FN(spread_trains)(const float *chance, int64_t n, int64_t slots, int spread, uint32_t *train)
{
    uint32_t first[33] = {0};
    int64_t count = 0;
    for (uint32_t k = 0; k < 32; k++) {
        uint32_t turned = (k & 1) << 4 | (k & 2) << 2 | (k & 4) | (k & 8) >> 2 | (k & 16) >> 4;
        uint32_t slot = spread ? turned : k;
        if (slot < slots) {
            first[count + 1] = first[count] | 1u << slot;
            count++;
        }
    }
    for (int64_t k = 0; k < n; k++)
        train[k] = first[(int64_t)((chance[k] * 0x1p-16f * (float)slots + ROUNDER) - ROUNDER)];
}

/* Trains of all lines: columns in col_train, rows that are driven (`line`, `active`) in row_train; how many rows
 * there are, or 0 where nothing fires. */
static TARGET int64_t FN(make_trains)(struct pcmc_training_bank *bank, const float *x, const float *d, float lr)
{
    int64_t most = bank->pulses < 0 ? -bank->pulses : bank->pulses, n, clipped;
    double dx = FN(largest)(x, bank->rows, bank->has_bias ? fabsf(bank->bias_drive) : 0.0f);
    double dd = FN(largest)(d, bank->cols, 0.0f), step = bank->law.step;
    double wanted = (double)lr * dx * dd / step;
    if (!(wanted > 0.0))
        return 0;
    int64_t slots = bank->pulses < 0 || wanted > (double)most ? most : (int64_t)ceil(wanted);
    float row_factor = (float)(65536.0 * sqrt((double)lr * dd / (step * (double)slots * dx)));
    float col_factor = (float)(65536.0 * sqrt((double)lr * dx / (step * (double)slots * dd)));
    uint64_t update = (uint64_t)bank->counts[PCMC_UPDATES];
    n = FN(list_active)(bank, x);
    if (bank->has_bias) {
        bank->line[n] = (int32_t)bank->rows;
        bank->active[n++] = bank->bias_drive;
    }
    clipped = FN(chances)(bank->active, n, row_factor, bank->chance);
    if (bank->pulses > 0)
        FN(draw_trains)(bank->keys[PCMC_ROW_PULSES], bank->line, bank->chance, n, slots, update, bank->row_train);
    else
        FN(spread_trains)(bank->chance, n, slots, 0, bank->row_train);
    clipped += FN(chances)(d, bank->cols, col_factor, bank->chance);
    if (bank->pulses > 0)
        FN(draw_trains)(bank->keys[PCMC_COLUMN_PULSES], NULL, bank->chance, bank->cols, slots, update,
                        bank->col_train);
    else
        FN(spread_trains)(bank->chance, bank->cols, slots, 1, bank->col_train);
    if (wanted > (double)most)
        bank->counts[PCMC_LINES_CLIPPED] += clipped;
    return n;
}

/* ---- pulses ------------------------------------------------------------------------------------------- */

struct FN(tally) { /* what one update did */
    int64_t up, down, cells, limited;
};

/* The normal numbers of the next pulses, at least `n` <= 1024 of them. */
static TARGET const float *FN(next_numbers)(struct pcmc_training_bank *bank, int64_t n)
{
    struct pcmc_pulse_numbers *have = &bank->pulse_numbers;
    int64_t at = bank->counts[PCMC_PULSE_NOISE], end = have->first + PCMC_PULSE_NUMBERS;
    if (bank->law.noise == 0.0f)
        return have->numbers; /* zeros */
    if (at < have->first || at + n > end) {
        int64_t first = at / 64 * 64, kept = at >= have->first && end > first ? end - first : 0;
        memmove(have->numbers, have->numbers + PCMC_PULSE_NUMBERS - kept, sizeof(float) * (size_t)kept);
        FN(pcmc_fill_gaussian)(have->numbers + kept, PCMC_PULSE_NUMBERS - kept, bank->keys[PCMC_NOISE_OF_PULSES],
                               (uint64_t)(first + kept));
        have->first = first;
    }
    return have->numbers + (at - have->first);
}

/* So many pulses on one cell, up or down. */
INLINE void FN(pulse)(struct pcmc_training_bank *bank, int64_t cell, int times, int up, struct FN(tally) *tally)
{
    const struct pcmc_law *law = &bank->law;
    const float *numbers = FN(next_numbers)(bank, times);
    float step = up ? widen(law->up[cell]) : -widen(law->down[cell]);
    float slope = up ? widen(law->slope_up[cell]) : widen(law->slope_down[cell]);
    float bottom = widen(law->low_min[cell]), top = widen(law->low_max[cell]);
    float before = law->low[cell], low = before;
    for (int k = 0; k < times; k++) {
        float moved = low + step * (1.0f + law->noise * numbers[k]) - slope * (low - law->low_mid);
        low = moved < bottom ? bottom : moved;
        low = low > top ? top : low;
        tally->limited += low != moved;
    }
    law->low[cell] = low;
    bank->weights[cell] += bank->sign * (low - before);
    bank->counts[PCMC_PULSE_NOISE] += law->noise == 0.0f ? 0 : times;
    tally->up += up ? times : 0;
    tally->down += up ? 0 : times;
    tally->cells++;
}

#if VL == 16

INLINE __m512 FN(widened)(__m256i halves)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

/* For cells that go up from `up`, for those that go down from `down`. */
INLINE __m512 FN(either)(const uint16_t *up, const uint16_t *down, __mmask16 ups, __mmask16 downs)
{
    return FN(widened)(_mm256_mask_loadu_epi16(_mm256_maskz_loadu_epi16(ups, up), downs, down));
}

/* How many bits of each word are set. */
INLINE __m512i FN(ones)(__m512i words)
{
    const __m512i nibbles = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i low = _mm512_set1_epi8(15);
    __m512i bytes = _mm512_add_epi8(
        _mm512_shuffle_epi8(nibbles, _mm512_and_si512(words, low)),
        _mm512_shuffle_epi8(nibbles, _mm512_and_si512(_mm512_srli_epi32(words, 4), low)));
    return _mm512_madd_epi16(_mm512_maddubs_epi16(bytes, _mm512_set1_epi8(1)), _mm512_set1_epi16(1));
}

/* Sums of all lanes up to each one, itself included. */
INLINE __m512i FN(running)(__m512i n)
{
    const __m512i none = _mm512_setzero_si512();
    n = _mm512_add_epi32(n, _mm512_alignr_epi32(n, none, 15));
    n = _mm512_add_epi32(n, _mm512_alignr_epi32(n, none, 14));
    n = _mm512_add_epi32(n, _mm512_alignr_epi32(n, none, 12));
    return _mm512_add_epi32(n, _mm512_alignr_epi32(n, none, 8));
}

/* What the panels of a row share, in registers. */
struct FN(row) {
    float *low, *weights;
    const uint16_t *up, *down, *slope_up, *slope_down, *low_min, *low_max;
    const float *numbers; /* of the next pulse */
    int64_t taken;
    __m512 noise, mid, sign;
};

/* Asks for the cells of the next row, or of none: what is not there is not fetched. */
INLINE void FN(prefetch)(const struct FN(row) *row, int64_t cell)
{
    __builtin_prefetch(row->low + cell);
    __builtin_prefetch(row->weights + cell);
    __builtin_prefetch(row->up + cell);
    __builtin_prefetch(row->down + cell);
    __builtin_prefetch(row->slope_up + cell);
    __builtin_prefetch(row->slope_down + cell);
    __builtin_prefetch(row->low_min + cell);
    __builtin_prefetch(row->low_max + cell);
}

/* The cells `hit` of 16 from `cell` on, each with the pulses that `both` has bits; `ups` of them go up. */
INLINE void FN(pulse_panel)(struct FN(row) *row, int64_t cell, __m512i both, __mmask16 hit, __mmask16 ups,
                            struct FN(tally) *tally)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    __mmask16 downs = hit & (__mmask16)~ups, on = hit;
    ups &= hit;
    __m512 step = FN(either)(row->up + cell, row->down + cell, ups, downs);
    __m512 slope = FN(either)(row->slope_up + cell, row->slope_down + cell, ups, downs);
    __m512 bottom = FN(widened)(_mm256_maskz_loadu_epi16(hit, row->low_min + cell));
    __m512 top = FN(widened)(_mm256_maskz_loadu_epi16(hit, row->low_max + cell));
    __m512 before = _mm512_maskz_loadu_ps(hit, row->low + cell), low = before;
    __mmask16 several = _mm512_mask_test_epi32_mask(hit, both, _mm512_sub_epi32(both, _mm512_set1_epi32(1)));
    int64_t pulses = __builtin_popcount(hit), up = __builtin_popcount(ups);
    __m512i count = _mm512_setzero_si512(), at = count;
    step = _mm512_castsi512_ps(_mm512_mask_xor_epi32(_mm512_castps_si512(step), downs, _mm512_castps_si512(step),
                                                     _mm512_set1_epi32((int)0x80000000)));
    tally->cells += pulses;
    __m512 number = _mm512_maskz_expand_ps(hit, _mm512_loadu_ps(row->numbers));
    if (__builtin_expect(several, 0)) {
        count = _mm512_maskz_mov_epi32(hit, FN(ones)(both));
        at = FN(running)(count);
        pulses = _mm_extract_epi32(_mm512_extracti32x4_epi32(at, 3), 3);
        up = _mm512_mask_reduce_add_epi32(ups, count);
        at = _mm512_sub_epi32(at, count);
        number = _mm512_mask_i32gather_ps(one, on, at, row->numbers, 4);
    }
    for (int k = 1;; k++) {
        __m512 size = _mm512_add_ps(one, _mm512_mul_ps(row->noise, number));
        __m512 moved = _mm512_add_ps(low, _mm512_mul_ps(step, size));
        moved = _mm512_sub_ps(moved, _mm512_mul_ps(slope, _mm512_sub_ps(low, row->mid)));
        __m512 kept = _mm512_min_ps(_mm512_max_ps(moved, bottom), top);
        __mmask16 limited = _mm512_mask_cmp_ps_mask(on, kept, moved, _CMP_NEQ_UQ);
        if (__builtin_expect(limited, 0))
            tally->limited += __builtin_popcount(limited);
        low = _mm512_mask_mov_ps(low, on, kept);
        if (__builtin_expect(!several, 1))
            break;
        on = _mm512_cmpgt_epi32_mask(count, _mm512_set1_epi32(k));
        if (!on)
            break;
        number = _mm512_mask_i32gather_ps(one, on, at, row->numbers + k, 4);
    }
    __m512 change = _mm512_mul_ps(row->sign, _mm512_sub_ps(low, before));
    __m512 weights = _mm512_maskz_loadu_ps(hit, row->weights + cell);
    _mm512_mask_storeu_ps(row->low + cell, hit, low);
    _mm512_mask_storeu_ps(row->weights + cell, hit, _mm512_add_ps(weights, change));
    row->taken += pulses;
    tally->up += up;
    tally->down += pulses - up;
}

#endif

/* Lists the panels of a block; how many there are. */
static TARGET int64_t FN(list_panels)(const uint32_t *train, const float *d, int64_t cols, struct pcmc_panel *panel)
{
    int64_t n = 0;
    for (int64_t j = 0; j < cols; j += VL) {
        uint32_t any = 0, negative = 0;
        for (int64_t l = 0; l < min64(VL, cols - j); l++) {
            any |= train[j + l];
            negative |= (uint32_t)(d[j + l] < 0.0f) << l;
        }
        panel[n].first = (int32_t)j;
        panel[n].negative = negative;
        n += any != 0;
    }
    return n;
}

/* All coincidences of one row that fires; its first cell is `cell`, that of the next row is `ahead` of it. */
static TARGET void FN(fire_row)(struct pcmc_training_bank *bank, const struct pcmc_training_block *block,
                                int64_t cell, int64_t ahead, uint32_t train, float x,
                                const struct pcmc_panel *panel, int64_t panels, struct FN(tally) *total)
{
    const uint32_t *trains = bank->col_train + block->col0;
    struct FN(tally) tally = *total;
    /* The weight goes against the product of the signs, the low tier as the polarity says. */
    uint32_t turned = (x < 0.0f) == (bank->sign < 0.0f) ? 0 : ~0u;
#if VL == 16
    const struct pcmc_law *law = &bank->law;
    const int64_t counted = law->noise == 0.0f ? 0 : -1; /* numbers are taken at all */
    const __m512i drive = _mm512_set1_epi32((int)train);
    struct FN(row) row = {
        law->low, bank->weights, law->up, law->down, law->slope_up, law->slope_down, law->low_min, law->low_max,
        FN(next_numbers)(bank, 1024), 0, _mm512_set1_ps(law->noise), _mm512_set1_ps(law->low_mid),
        _mm512_set1_ps(bank->sign),
    };
    const float *numbers = row.numbers;
    for (int64_t p = 0; p < panels; p++) {
        int64_t j = panel[p].first, n = min64(16, block->cols - j);
        __m512i both = _mm512_and_si512(_mm512_loadu_si512(trains + j), drive);
        __mmask16 hit = _mm512_mask_test_epi32_mask((__mmask16)((1u << n) - 1), both, both);
        FN(prefetch)(&row, cell + ahead + j);
        if (!hit)
            continue;
        FN(pulse_panel)(&row, cell + j, both, hit, (__mmask16)(panel[p].negative ^ turned), &tally);
        row.taken &= counted;
        if (__builtin_expect(row.taken > 1024 - 16 * 31, 0)) {
            bank->counts[PCMC_PULSE_NOISE] += row.taken;
            numbers = FN(next_numbers)(bank, 1024);
            row.taken = 0;
        }
        row.numbers = numbers + row.taken;
    }
    bank->counts[PCMC_PULSE_NOISE] += row.taken;
#else
    (void)ahead;
    for (int64_t p = 0; p < panels; p++) {
        int64_t j = panel[p].first, n = min64(VL, block->cols - j);
        for (int64_t l = 0; l < n; l++) {
            uint32_t both = trains[j + l] & train;
            if (both)
                FN(pulse)(bank, cell + j + l, __builtin_popcount(both),
                          (panel[p].negative ^ turned) >> l & 1, &tally);
        }
    }
#endif
    *total = tally;
}

static TARGET void FN(fire_block)(struct pcmc_training_bank *bank, const struct pcmc_training_block *block,
                                  int64_t fired, const float *d, struct FN(tally) *tally)
{
    struct pcmc_panel *panel = (struct pcmc_panel *)(void *)bank->spread; /* no read is under way */
    int64_t rows = block->rows - block->bias, k = 0;
    int64_t panels = FN(list_panels)(bank->col_train + block->col0, d + block->col0, block->cols, panel);
    if (!panels)
        return;
    while (k < fired && bank->line[bank->fired[k]] < block->row0)
        k++;
    for (; k < fired; k++) {
        int32_t at = bank->fired[k];
        int64_t row = bank->line[at] - block->row0;
        if (bank->line[at] == bank->rows || row >= rows)
            break;
        int64_t ahead = k + 1 < fired ? (bank->line[bank->fired[k + 1]] - bank->line[at]) * block->cols : 0;
        FN(fire_row)(bank, block, block->offset + row * block->cols, ahead, bank->row_train[at],
                     bank->active[at], panel, panels, tally);
    }
    int32_t at = bank->fired[fired - 1];
    if (block->bias && bank->line[at] == bank->rows)
        FN(fire_row)(bank, block, block->offset + rows * block->cols, 0, bank->row_train[at], bank->active[at], panel,
                     panels, tally);
}

#include "_training_set_isa.h"

static TARGET void FN(update)(struct pcmc_training_bank *bank, const float *x, const float *d, float lr)
{
    struct FN(tally) tally = {0, 0, 0, 0};
    if (!(bank->has_law || bank->set.pairs) || !bank->pulses)
        FN(change)(bank, x, d, lr);
    else {
        int64_t n = FN(make_trains)(bank, x, d, lr);
        int64_t fired = n ? FN(list_nonzero)(bank->row_train, n, bank->fired) : 0, columns = 0;
        for (int64_t j = 0; n && j < bank->cols; j++)
            columns += bank->col_train[j] != 0;
        for (int64_t i = 0; fired && columns && i < bank->n_blocks; i++)
            (bank->set.pairs ? FN(set_block) : FN(fire_block))(bank, &bank->blocks[i], fired, d, &tally);
        bank->counts[PCMC_ROWS_FIRED] += fired;
        bank->counts[PCMC_COLS_FIRED] += columns;
    }
    bank->counts[PCMC_UPDATES]++;
    bank->counts[PCMC_PULSES_UP] += tally.up;
    bank->counts[PCMC_PULSES_DOWN] += tally.down;
    bank->counts[PCMC_COINCIDENCES] += tally.cells;
    bank->counts[PCMC_PULSES_LIMITED] += tally.limited;
}

/* ---- the leak ----------------------------------------------------------------------------------------- */

static TARGET void FN(leak)(struct pcmc_training_bank *bank, float part, float pull)
{
    float *restrict low = bank->law.low, *restrict w = bank->weights;
    const uint16_t *restrict leak = bank->law.leak;
    float sign = bank->sign, mean = 1.0f - bank->law.leak_mean * part, back = pull * mean;
    if (leak)
        for (int64_t i = 0; i < bank->cells; i++) {
            float moved = (low[i] + pull) * (1.0f - widen(leak[i]) * part) - back;
            w[i] += sign * (moved - low[i]);
            low[i] = moved;
        }
    else
        for (int64_t i = 0; i < bank->cells; i++) {
            float moved = low[i] * mean;
            w[i] += sign * (moved - low[i]);
            low[i] = moved;
        }
}
