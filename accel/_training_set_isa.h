/* SET pulses on pairs of PCM devices for one instruction set; included by _training_pulses_isa.h. The law is in
 * accel/training/set_law.py. Pulses are some ten times rarer than those of capacitors, so cells go one by one. */

/* So many pulses on G+ of a cell's pair, or on its G-. */
INLINE void FN(set_pulses)(struct pcmc_training_bank *bank, int64_t cell, int64_t pair, int times, int up,
                           struct FN(tally) *tally)
{
    const struct pcmc_set_law *law = &bank->set;
    const float *numbers = FN(next_numbers)(bank, times);
    int64_t at = pair * bank->cells + cell;
    float *g = (up ? law->plus : law->minus) + at, noise = bank->law.noise;
    float unit = widen((up ? law->step_plus : law->step_minus)[at]);
    float top = widen((up ? law->top_plus : law->top_minus)[at]), now = *g;
    for (int k = 0; k < times && unit > 0.0f; k++) {
        float step = unit * (1.0f + law->growth * exponential(-law->decay * (now / top)));
        float moved = now + (step + noise * (step + law->noise_offset + law->noise_slope * now) * numbers[k]);
        now = moved < 0.0f ? 0.0f : moved;
        now = now > top ? top : now;
        tally->limited += now != moved;
    }
    bank->weights[cell] += bank->sign * (up ? now - *g : *g - now);
    *g = now;
    bank->counts[PCMC_PULSE_NOISE] += noise == 0.0f ? 0 : times;
    tally->up += up ? times : 0;
    tally->down += up ? 0 : times;
    tally->cells++;
}

struct FN(columns) { /* the columns of a block that fire: where, their trains, and room for coincidences */
    int32_t *column, *hit;
    uint32_t *train, *both;
    int64_t n;
};

/* The columns of a block that fire; in work space of reads, of which none is under way. */
static TARGET struct FN(columns) FN(list_columns)(struct pcmc_training_bank *bank,
                                                  const struct pcmc_training_block *block)
{
    struct FN(columns) found = {(int32_t *)(void *)bank->spread, (int32_t *)(void *)bank->inputs,
                                (uint32_t *)(void *)bank->sums, (uint32_t *)(void *)bank->squares, 0};
    const uint32_t *trains = bank->col_train + block->col0;
    found.n = FN(list_nonzero)(trains, block->cols, found.column);
    for (int64_t k = 0; k < found.n; k++)
        found.train[k] = trains[found.column[k]];
    return found;
}

static TARGET void FN(coincide)(uint32_t *restrict both, const uint32_t *restrict train, int64_t n, uint32_t row)
{
    for (int64_t k = 0; k < n; k++)
        both[k] = train[k] & row;
}

/* All coincidences of a row that fires. */
static TARGET void FN(set_row)(struct pcmc_training_bank *bank, const struct pcmc_training_block *block,
                               int64_t row, int32_t fired, const struct FN(columns) *columns, const float *d,
                               struct FN(tally) *tally)
{
    int64_t cell = block->offset + row * block->cols, pair = bank->counts[PCMC_UPDATES] % bank->set.pairs;
    int opposite = (bank->active[fired] < 0.0f) == (bank->sign < 0.0f);
    FN(coincide)(columns->both, columns->train, columns->n, bank->row_train[fired]);
    int64_t n = FN(list_nonzero)(columns->both, columns->n, columns->hit);
    for (int64_t k = 0; k < n; k++) {
        int64_t j = columns->column[columns->hit[k]];
        FN(set_pulses)(bank, cell + j, pair, __builtin_popcount(columns->both[columns->hit[k]]),
                       (d[block->col0 + j] < 0.0f) == opposite, tally);
    }
}

static TARGET void FN(set_block)(struct pcmc_training_bank *bank, const struct pcmc_training_block *block,
                                 int64_t fired, const float *d, struct FN(tally) *tally)
{
    const struct FN(columns) columns = FN(list_columns)(bank, block);
    int64_t rows = block->rows - block->bias;
    for (int64_t k = 0; columns.n && k < fired; k++) {
        int32_t at = bank->fired[k];
        int64_t line = bank->line[at], row = line == bank->rows ? rows : line - block->row0;
        if (line == bank->rows ? block->bias : row >= 0 && row < rows)
            FN(set_row)(bank, block, row, at, &columns, d, tally);
    }
}
