/* Reads of a training bank for one instruction set; included by _training_isa.h. */

#define EACH(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < n; i++)

/* Adds to nv vectors of sums the products of n values with rows that begin at offset[k]. Few vectors are summed
 * in several chains, since each sum has to wait for the one before. */
INLINE void FN(panel)(const int nv, const int halves, const void *from, int64_t first, const int64_t *offset,
                      const float *value, int64_t n, float *sums)
{
    const int chains = nv == 1 ? 8 : nv == 2 ? 4 : nv <= 4 ? 2 : 1;
    FN(floats) sum[8];
    EACH(v, nv)
        sum[v] = *(FN(any) *)(sums + v * VL);
    EACH(v, chains * nv - nv)
        sum[nv + v] = (FN(floats)){0};
    int64_t k = 0;
    for (; k + chains <= n; k += chains)
        EACH(c, chains) {
            FN(floats) drive = (FN(floats)){0} + value[k + c];
            EACH(v, nv)
                sum[c * nv + v] =
                    FUSED(FN(load)(from, first + offset[k + c] + v * VL, halves), drive, sum[c * nv + v]);
        }
    for (; k < n; k++)
        EACH(v, nv)
            sum[v] = FUSED(FN(load)(from, first + offset[k] + v * VL, halves), (FN(floats)){0} + value[k], sum[v]);
    EACH(v, chains * nv - nv)
        sum[v % nv] += sum[nv + v];
    EACH(v, nv)
        *(FN(any) *)(sums + v * VL) = sum[v];
}

/* Adds to the sums of a block's columns, rounded up to whole vectors, the products of n values with its rows. */
INLINE void FN(add_rows)(const int halves, const void *from, int64_t first, int64_t cols, const int64_t *offset,
                         const float *value, int64_t n, float *sums)
{
    for (int64_t left = (cols + VL - 1) / VL, nv; left > 0; left -= nv, first += nv * VL, sums += nv * VL) {
        int64_t turns = (left + 6) / 7;
        nv = (left + turns - 1) / turns;
        switch (nv) {
        case 1: FN(panel)(1, halves, from, first, offset, value, n, sums); break;
        case 2: FN(panel)(2, halves, from, first, offset, value, n, sums); break;
        case 3: FN(panel)(3, halves, from, first, offset, value, n, sums); break;
        case 4: FN(panel)(4, halves, from, first, offset, value, n, sums); break;
        case 5: FN(panel)(5, halves, from, first, offset, value, n, sums); break;
        case 6: FN(panel)(6, halves, from, first, offset, value, n, sums); break;
        default: FN(panel)(7, halves, from, first, offset, value, n, sums);
        }
    }
}

static TARGET void FN(add_weights)(const float *from, int64_t first, int64_t cols, const int64_t *offset,
                                   const float *value, int64_t n, float *sums)
{
    FN(add_rows)(0, from, first, cols, offset, value, n, sums);
}

static TARGET void FN(add_variances)(const uint16_t *from, int64_t first, int64_t cols, const int64_t *offset,
                                     const float *value, int64_t n, float *sums)
{
    FN(add_rows)(1, from, first, cols, offset, value, n, sums);
}

/* Sums begin with the bias row, driven, or with 0. */
static TARGET void FN(start_sums)(const void *from, int64_t first, int halves, int64_t cols, float drive,
                                  float *sums)
{
    for (int64_t j = 0; j < cols; j += VL)
        *(FN(any) *)(sums + j) =
            drive != 0.0f ? FN(load)(from, first + j, halves) * drive : (FN(floats)){0};
}

/* The numbers of the conversions of the next read of a stream; it is counted even if reads are quiet. */
static TARGET void FN(draw_noise)(struct pcmc_training_bank *bank, int stream, int64_t conversions)
{
    uint64_t read = (uint64_t)bank->counts[stream]++;
    if (bank->variances)
        FN(pcmc_fill_gaussian)(bank->numbers, conversions, bank->keys[stream], read * (uint64_t)conversions);
}

/* Sums of one block to what leaves the tile: noise, then the converters from `at` on. */
static TARGET void FN(finish_sums)(struct pcmc_training_bank *bank, int way, int64_t at, int64_t n, float scale)
{
    const struct pcmc_port *port = &bank->ports[way];
    if (bank->variances)
        FN(add_noise)(bank->sums, bank->spread, bank->numbers + at, n);
    if (port->adc_levels > 0.0f)
        bank->counts[PCMC_CLIPPED_FORWARD + way] +=
            FN(digitize)(bank->sums, n, port, at, port->adc_full * scale / port->adc_levels);
}

/* What drives a bank: the range of the input, then the input as the DAC gives it, which may be x itself. */
static TARGET const float *FN(drive_lines)(struct pcmc_training_bank *bank, int way, const float *x, int64_t n,
                                           float least, float *scale)
{
    const struct pcmc_port *port = &bank->ports[way];
    *scale = port->dac_levels > 0.0f || port->adc_levels > 0.0f ? FN(largest)(x, n, least) : 0.0f;
    if (!(port->dac_levels > 0.0f))
        return x;
    FN(to_codes)(x, bank->inputs, n, *scale / port->dac_levels, port->dac_levels);
    return bank->inputs;
}

/* Lists the rows that are driven at all; how many there are. */
static TARGET int64_t FN(list_active)(struct pcmc_training_bank *bank, const float *x)
{
    int64_t n = FN(list_nonzero)(x, bank->rows, bank->line);
    for (int64_t k = 0; k < n; k++)
        bank->active[k] = x[bank->line[k]];
    return n;
}

static TARGET void FN(forward)(struct pcmc_training_bank *bank, const float *x, float *y, int stream)
{
    float scale, drive = bank->bias_drive, levels = bank->ports[0].dac_levels;
    const float *inputs =
        FN(drive_lines)(bank, 0, x, bank->rows, bank->has_bias ? fabsf(drive) : 0.0f, &scale);
    if (levels > 0.0f)
        FN(to_codes)(&drive, &drive, 1, scale / levels, levels);
    int64_t n = FN(list_active)(bank, inputs), at = 0;
    if (bank->variances)
        FN(square)(bank->squares, bank->active, n);
    FN(draw_noise)(bank, stream, bank->ports[0].conversions);
    memset(y, 0, sizeof(float) * (size_t)bank->cols);
    for (int64_t i = 0; i < bank->n_blocks; at += bank->blocks[i++].cols) {
        const struct pcmc_training_block *block = &bank->blocks[i];
        int64_t rows = block->rows - block->bias, cols = block->cols, first = 0, last;
        int64_t bias = block->offset + rows * cols;
        while (first < n && bank->line[first] < block->row0)
            first++;
        for (last = first; last < n && bank->line[last] < block->row0 + rows; last++)
            bank->offset[last - first] = (bank->line[last] - block->row0) * cols;
        FN(start_sums)(bank->weights, bias, 0, cols, block->bias ? drive : 0.0f, bank->sums);
        FN(add_weights)(bank->weights, block->offset, cols, bank->offset, bank->active + first, last - first,
                        bank->sums);
        if (bank->variances) {
            FN(start_sums)(bank->variances, bias, 1, cols, block->bias ? drive * drive : 0.0f, bank->spread);
            FN(add_variances)(bank->variances, block->offset, cols, bank->offset, bank->squares + first,
                              last - first, bank->spread);
        }
        FN(finish_sums)(bank, 0, at, cols, scale);
        FN(add)(y + block->col0, bank->sums, cols);
    }
}

/* ---- backward ----------------------------------------------------------------------------------------- */

/* The sums of eight vectors, one after the other. */
INLINE void FN(reduce)(const FN(floats) sum[8], float *to)
{
#if VL == 4
    for (int r = 0; r < 8; r++)
        to[r] = (sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3]);
#else
    __m256 half[8];
    for (int r = 0; r < 8; r++)
#if VL == 16
        half[r] = _mm256_add_ps(_mm512_castps512_ps256((__m512)sum[r]), _mm512_extractf32x8_ps((__m512)sum[r], 1));
#else
        half[r] = (__m256)sum[r];
#endif
    __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
    __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(half[4], half[5]), _mm256_hadd_ps(half[6], half[7]));
    _mm256_storeu_ps(to, _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                                       _mm256_permute2f128_ps(low, high, 0x31)));
#endif
}

/* Products of n rows, `cols` apart, with d, which is followed by zeros up to a whole vector. What lies behind a
 * row is read with them. */
INLINE void FN(dot_rows)(const int halves, const void *from, int64_t first, int64_t cols, int64_t n,
                         const float *d, float *sums)
{
    for (int64_t i = 0; i < n; i += 8) {
        FN(floats) sum[8];
        int64_t at[8];
        EACH(r, 8) {
            sum[r] = (FN(floats)){0};
            at[r] = first + min64(i + r, n - 1) * cols;
        }
        for (int64_t j = 0; j < cols; j += VL) {
            FN(floats) error = *(const FN(any) *)(d + j);
            EACH(r, 8)
                sum[r] = FUSED(FN(load)(from, at[r] + j, halves), error, sum[r]);
        }
        FN(reduce)(sum, sums + i);
    }
}

static TARGET void FN(dot_weights)(const float *from, int64_t first, int64_t cols, int64_t n, const float *d,
                                   float *sums)
{
    FN(dot_rows)(0, from, first, cols, n, d, sums);
}

static TARGET void FN(dot_variances)(const uint16_t *from, int64_t first, int64_t cols, int64_t n, const float *d,
                                     float *sums)
{
    FN(dot_rows)(1, from, first, cols, n, d, sums);
}

/* The errors of a block's columns, with zeros behind. */
static TARGET void FN(take_errors)(float *restrict to, const float *restrict d, int64_t cols)
{
    memcpy(to, d, sizeof(float) * (size_t)cols);
    memset(to + cols, 0, sizeof(float) * VL);
}

static TARGET void FN(backward)(struct pcmc_training_bank *bank, const float *d, float *e)
{
    float scale;
    int64_t at = 0;
    const float *errors = FN(drive_lines)(bank, 1, d, bank->cols, 0.0f, &scale);
    FN(draw_noise)(bank, PCMC_BACKWARD_NOISE, bank->ports[1].conversions);
    memset(e, 0, sizeof(float) * (size_t)bank->rows);
    for (int64_t i = 0; i < bank->n_blocks; i++) {
        const struct pcmc_training_block *block = &bank->blocks[i];
        int64_t rows = block->rows - block->bias;
        FN(take_errors)(bank->active, errors + block->col0, block->cols);
        FN(dot_weights)(bank->weights, block->offset, block->cols, rows, bank->active, bank->sums);
        if (bank->variances) {
            FN(square)(bank->squares, bank->active, block->cols + VL);
            FN(dot_variances)(bank->variances, block->offset, block->cols, rows, bank->squares, bank->spread);
        }
        FN(finish_sums)(bank, 1, at, rows, scale);
        FN(add)(e + block->row0, bank->sums, rows);
        at += rows;
    }
}

#undef EACH
