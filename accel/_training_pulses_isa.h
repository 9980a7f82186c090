/* Updates of a training bank for one instruction set; included by _training_isa.h. */

/* ---- exact changes ------------------------------------------------------------------------------------ */

/* w -= lr * (x * d), of one row. */
static TARGET void FN(descend)(float *restrict w, const float *restrict d, int64_t n, float x, float lr)
{
    for (int64_t j = 0; j < n; j++)
        w[j] -= lr * (x * d[j]);
}

/* The same of what the low tier holds, as far as its bounds go; how many of n cells it stopped. */
static TARGET int64_t FN(descend_low)(float *restrict w, float *restrict low, const uint16_t *restrict bounds,
                                      const float *restrict d, int64_t n, float x, float lr, float sign)
{
    int32_t limited = 0;
    for (int64_t j = 0; j < n; j++) {
        float moved = low[j] - sign * (lr * (x * d[j])), bottom = widen(bounds[2 * j]);
        float kept = moved < bottom ? bottom : moved, top = widen(bounds[2 * j + 1]);
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
            FN(descend_low)(bank->weights + cell, law->low + cell, law->bounds + 2 * cell, d, n, x, lr,
                            bank->sign);
}

static TARGET void FN(change)(struct pcmc_training_bank *bank, const float *x, const float *d, float lr)
{
    for (int64_t i = 0; i < bank->n_blocks; i++) {
        const struct pcmc_training_block *block = &bank->blocks[i];
        int64_t rows = block->rows - block->bias, cell = block->offset;
        for (int64_t r = 0; r < rows; r++, cell += block->cols)
            FN(change_row)(bank, cell, d + block->col0, block->cols, x[block->row0 + r], lr);
        if (block->bias)
            FN(change_row)(bank, cell, d + block->col0, block->cols, bias_update(bank), lr);
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

/* Trains of all lines, of so many slots: columns in col_train, rows that are driven (`line`, `active`) in
 * row_train; how many rows there are, or 0 where nothing fires. */
static TARGET int64_t FN(make_trains)(struct pcmc_training_bank *bank, const float *x, const float *d, float lr,
                                      int64_t *used)
{
    int64_t most = bank->pulses < 0 ? -bank->pulses : bank->pulses, n, clipped;
    double dx = FN(largest)(x, bank->rows, bank->has_bias ? fabsf(bias_update(bank)) : 0.0f);
    double dd = FN(largest)(d, bank->cols, 0.0f), step = bank->law.step;
    double wanted = (double)lr * dx * dd / step;
    if (!(wanted > 0.0))
        return 0;
    int64_t slots = bank->pulses < 0 || wanted > (double)most ? most : (int64_t)ceil(wanted);
    float row_factor = (float)(65536.0 * sqrt((double)lr * dd / (step * (double)slots * dx)));
    float col_factor = (float)(65536.0 * sqrt((double)lr * dx / (step * (double)slots * dd)));
    uint64_t update = (uint64_t)bank->counts[PCMC_UPDATES];
    *used = slots;
    n = FN(list_active)(bank, x);
    if (bank->has_bias) {
        bank->line[n] = (int32_t)bank->rows;
        bank->active[n++] = bias_update(bank);
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

#if VL >= 8

#include "_training_cells_isa.h"

/* All coincidences of one row that fires; its first cell is `cell`, that of the next row is `ahead` of it. */
INLINE void FN(fire_row)(struct pcmc_training_bank *bank, struct FN(bench) *bench, const uint32_t *signed_train,
                         int64_t cell, int64_t ahead, int32_t at, const int32_t *panel, int64_t panels)
{
    /* The weight goes against the product of the signs, the low tier as the polarity says. */
    int turned = (bank->active[at] < 0.0f) != (bank->sign < 0.0f);
    for (int64_t p = 0; p < panels; p += 1024 / VL) {
        const float *numbers = bench->numbers = FN(next_numbers)(bank, 1024);
        FN(fire_panels)(bench, signed_train, cell, ahead, bank->row_train[at], turned, panel + p,
                        min64(panels - p, 1024 / VL));
        bank->counts[PCMC_PULSE_NOISE] += bench->numbers - numbers;
    }
}

static TARGET void FN(fire_block)(struct pcmc_training_bank *bank, const struct pcmc_training_block *block,
                                  int64_t fired, int64_t slots, const float *d, struct FN(tally) *tally)
{
    /* No read is under way. */
    int32_t *panel = (int32_t *)(void *)bank->spread;
    uint32_t *signed_train = (uint32_t *)(void *)bank->sums;
    int64_t rows = block->rows - block->bias;
    int64_t panels = FN(list_panels)(bank->col_train + block->col0, d + block->col0, block->cols, signed_train, panel);
    struct FN(bench) bench = FN(make_bench)(bank, slots);
    for (int64_t k = 0; panels && k < fired; k++) {
        int32_t at = bank->fired[k];
        int64_t line = bank->line[at], row = line == bank->rows ? rows : line - block->row0;
        int64_t ahead = k + 1 < fired ? (bank->line[bank->fired[k + 1]] - line) * block->cols : 0;
        if (line == bank->rows ? block->bias : row >= 0 && row < rows)
            FN(fire_row)(bank, &bench, signed_train, block->offset + row * block->cols, ahead, at, panel, panels);
    }
    tally->cells += bench.cells;
    tally->limited += bench.limited;
    for (int l = 0; l < VL; l++) {
        tally->up += bench.up[l];
        tally->down += bench.pulses[l] - bench.up[l];
    }
}

#else

/* So many pulses on one cell, up or down. */
INLINE void FN(pulse)(struct pcmc_training_bank *bank, int64_t cell, int times, int up, int steep,
                      struct FN(tally) *tally)
{
    const struct pcmc_law *law = &bank->law;
    float noise = law->noise * *FN(next_numbers)(bank, 1) * ONE_OVER_ROOT[times];
    float step = up ? widen(law->steps[2 * cell]) : -widen(law->steps[2 * cell + 1]);
    float slope = widen(law->slopes[2 * cell + !up]), low = law->low[cell];
    float bottom = widen(law->bounds[2 * cell]), top = widen(law->bounds[2 * cell + 1]);
    float change = step * (1.0f + noise) - slope * (low - law->low_mid);
    float moved = low + effect((uint32_t)times, slope, steep) * change;
    float kept = moved < bottom ? bottom : moved;
    kept = kept > top ? top : kept;
    law->low[cell] = kept;
    bank->weights[cell] += bank->sign * (kept - low);
    bank->counts[PCMC_PULSE_NOISE] += law->noise != 0.0f;
    tally->limited += kept != moved;
    tally->up += up ? times : 0;
    tally->down += up ? 0 : times;
    tally->cells++;
}

static TARGET void FN(fire_block)(struct pcmc_training_bank *bank, const struct pcmc_training_block *block,
                                  int64_t fired, int64_t slots, const float *d, struct FN(tally) *tally)
{
    int32_t *column = (int32_t *)(void *)bank->spread; /* no read is under way */
    const uint32_t *trains = bank->col_train + block->col0;
    int64_t rows = block->rows - block->bias, n = FN(list_nonzero)(trains, block->cols, column);
    for (int64_t k = 0; n && k < fired; k++) {
        int32_t at = bank->fired[k];
        int64_t line = bank->line[at], row = line == bank->rows ? rows : line - block->row0;
        int opposite = (bank->active[at] < 0.0f) == (bank->sign < 0.0f);
        if (!(line == bank->rows ? block->bias : row >= 0 && row < rows))
            continue;
        for (int64_t c = 0; c < n; c++) {
            int64_t j = column[c];
            uint32_t both = trains[j] & bank->row_train[at];
            if (both)
                FN(pulse)(bank, block->offset + row * block->cols + j, __builtin_popcount(both),
                          (d[block->col0 + j] < 0.0f) == opposite, is_steep(&bank->law, slots), tally);
        }
    }
}

#endif

#include "_training_set_isa.h"

static TARGET void FN(update)(struct pcmc_training_bank *bank, const float *x, const float *d, float lr)
{
    struct FN(tally) tally = {0, 0, 0, 0};
    if (!(bank->has_law || bank->set.pairs) || !bank->pulses)
        FN(change)(bank, x, d, lr);
    else {
        int64_t slots, n = FN(make_trains)(bank, x, d, lr, &slots);
        int64_t fired = n ? FN(list_nonzero)(bank->row_train, n, bank->fired) : 0, columns = 0;
        for (int64_t j = 0; n && j < bank->cols; j++)
            columns += bank->col_train[j] != 0;
        for (int64_t i = 0; fired && columns && i < bank->n_blocks; i++)
            if (bank->set.pairs)
                FN(set_block)(bank, &bank->blocks[i], fired, d, &tally);
            else
                FN(fire_block)(bank, &bank->blocks[i], fired, slots, d, &tally);
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
