/* Dense reads for one instruction set; included by _tile_read_isa.h. */

/* A chunk of vectors on its way through the blocks, quantized if the DAC is on. */
struct FN(chunk) {
    const float *x;
    int64_t ldx, n;
    const float *drive;     /* bias drive of each vector */
    const struct pcmc_converters *conv;
    const struct adc *adc; /* of each vector */
    int64_t *clipped;      /* of each vector; NULL: not counted */
    float *out;
    int64_t ldo;
    float *sums, *variance;   /* room for sums of all vectors, ACC_LD floats each, or of one, as wide as a block */
    float *strip;             /* room for STRIP_ROWS rows of a strip of a block's columns */
    const int64_t *strip_off; /* where these rows begin */
    const int64_t *off;       /* where the rows of the block begin */
    const struct pcmc_noise *noise; /* its variance NULL: the others here are not used */
    const float *raised;            /* |x|^power, as x */
    const float *raised_drive;      /* |drive|^power, as drive */
    uint64_t v0; /* index of the first vector in the stream of noise */
};

/* The widest strip that many vectors read at once, and how much of it is copied: to half of a first-level cache
 * of 32 KB or more. */
enum { FN(STRIP) = 3 * VL, FN(STRIP_ROWS) = 128 };

/* Sums of nc vectors start with the bias row, driven for each vector, or with 0 where drive is NULL. */
static TARGET void FN(bias_lanes)(float *acc, const float *bias, int64_t nc, int64_t n, const float *drive)
{
    for (int64_t b = 0; b < nc; b++)
        if (drive)
            FN(scaled)(acc + b * ACC_LD, bias, n, drive[b]);
        else
            FN(fill)(acc + b * ACC_LD, n, 0.0f);
}

static TARGET void FN(add_vectors)(float *out, const float *acc, int64_t nc, int64_t width, int64_t ldo)
{
    for (int64_t b = 0; b < nc; b++)
        FN(add)(out + b * ldo, acc + b * ACC_LD, width);
}

static TARGET void FN(copy_strip)(float *strip, const float *w, int64_t rows, int64_t cols, int64_t nv)
{
    for (int64_t k = 0; k < rows; k++, strip += FN(STRIP), w += cols)
        for (int64_t v = 0; v < nv; v++)
            *(FN(loose) *)(strip + v * VL) = *(const FN(loose) *)(w + v * VL);
}

static TARGET void FN(widen_strip)(float *strip, const uint16_t *halves, int64_t rows, int64_t cols, int64_t nv)
{
    for (int64_t k = 0; k < rows; k++, strip += FN(STRIP), halves += cols)
        for (int64_t v = 0; v < nv; v++)
            *(FN(loose) *)(strip + v * VL) = FN(load_halves)(halves + v * VL);
}

/* Rows of a strip that are far apart compete for cache sets and pages: many vectors are worth a copy of it. */
static TARGET int FN(worth_a_copy)(const struct FN(chunk) *chunk, int64_t cols)
{
    return cols >= 128 && chunk->n >= 32;
}

/* Adds to the sums of one vector its products with n rows of nv vectors of lanes: rows as they lie in memory, at
 * the speed of memory. The sums are those of the micro-kernels to the bit. */
static TARGET void FN(multiply_rows)(const float *x, const float *lanes, int64_t cols, int64_t n, int64_t nv,
                                     float *sums)
{
    for (int64_t k = 0; k + 4 <= n; k += 4, lanes += 4 * cols, x += 4) {
        const float *row1 = lanes + cols, *row2 = row1 + cols, *row3 = row2 + cols;
        float x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
        for (int64_t j = 0; j < nv * VL; j += VL) {
            FN(vec) sum = *(FN(loose) *)(sums + j);
            /* The next four rows, which may be none: that fetches nothing. */
            __builtin_prefetch(row3 + cols + j);
            __builtin_prefetch(row3 + 2 * cols + j);
            __builtin_prefetch(row3 + 3 * cols + j);
            __builtin_prefetch(row3 + 4 * cols + j);
            sum += *(const FN(loose) *)(lanes + j) * x0;
            sum += *(const FN(loose) *)(row1 + j) * x1;
            sum += *(const FN(loose) *)(row2 + j) * x2;
            sum += *(const FN(loose) *)(row3 + j) * x3;
            *(FN(loose) *)(sums + j) = sum;
        }
    }
    for (int64_t k = 0; k < n % 4; k++)
        for (int64_t j = 0; j < nv * VL; j += VL)
            *(FN(loose) *)(sums + j) += *(const FN(loose) *)(lanes + k * cols + j) * x[k];
}

typedef uint32_t FN(bits) __attribute__((vector_size(4 * VL)));
typedef uint32_t FN(loose_bits) __attribute__((vector_size(4 * VL), aligned(2), may_alias));

/* Adds to 2 VL sums, the even ones and then the odd ones, their products with n rows of halves. In a word of two
 * halves a shift makes a float of the first and a mask one of the second: cheaper than to unpack them. */
static TARGET inline __attribute__((always_inline)) void FN(multiply_pairs)(const float *x, const uint16_t *halves,
                                                                            int64_t cols, int n, float *sums)
{
    FN(vec) even = *(FN(loose) *)sums, odd = *(FN(loose) *)(sums + VL);
    for (int k = 0; k < n; k++) {
        FN(bits) pairs = *(const FN(loose_bits) *)(halves + k * cols);
        even += (FN(vec))(pairs << 16) * x[k];
        odd += (FN(vec))(pairs & 0xffff0000) * x[k];
        __builtin_prefetch(halves + (n + k) * cols); /* the next rows, as above */
    }
    *(FN(loose) *)sums = even;
    *(FN(loose) *)(sums + VL) = odd;
}

/* The same with n rows of halves, nv even; sums are even ones and odd ones in turns. */
static TARGET void FN(multiply_half_rows)(const float *x, const uint16_t *halves, int64_t cols, int64_t n,
                                          int64_t nv, float *sums)
{
    int64_t k = 0;
    for (; k + 4 <= n; k += 4) {
        const float x4[4] = {x[k], x[k + 1], x[k + 2], x[k + 3]};
        for (int64_t j = 0; j < nv * VL; j += 2 * VL)
            FN(multiply_pairs)(x4, halves + k * cols + j, cols, 4, sums + j);
    }
    for (; k < n; k++)
        for (int64_t j = 0; j < nv * VL; j += 2 * VL)
            FN(multiply_pairs)(x + k, halves + k * cols + j, cols, 1, sums + j);
}

/* Such sums as they lie in a block. */
static TARGET void FN(untangle)(float *sums, int64_t nv)
{
    float even[VL], odd[VL];
    for (int64_t j = 0; j < nv * VL; j += 2 * VL) {
        memcpy(even, sums + j, sizeof even);
        memcpy(odd, sums + j + VL, sizeof odd);
        for (int l = 0; l < VL; l++) {
            sums[j + 2 * l] = even[l];
            sums[j + 2 * l + 1] = odd[l];
        }
    }
}

/* Adds to the sums of all vectors their products with rows of nv vectors of lanes, which lie at
 * `off` from `lanes` on. */
static TARGET void FN(multiply_vectors)(const struct FN(chunk) *chunk, const float *x, const float *lanes,
                                        const int64_t *off, int64_t rows, int64_t nv, float *sums)
{
    for (int64_t v = 0, nc; v < chunk->n; v += nc) {
        int g = FN(group)(chunk->n - v);
        nc = (int64_t)1 << g;
        FN(micros)[g][nv - 1](lanes, off, rows, x + v * chunk->ldx, 1, chunk->ldx, sums + v * ACC_LD);
    }
}

/* Adds to the sums of all vectors their products with n rows of a strip of nv vectors of lanes. */
static TARGET void FN(multiply_strip)(const struct FN(chunk) *chunk, const float *x, const float *lanes,
                                      int64_t cols, int64_t n, int64_t nv, float *sums)
{
    if (nv > FN(widest)[0])
        FN(multiply_rows)(x, lanes, cols, n, nv, sums);
    else if (!FN(worth_a_copy)(chunk, cols))
        FN(multiply_vectors)(chunk, x, lanes, chunk->off, n, nv, sums);
    else
        for (int64_t k = 0; k < n; k += FN(STRIP_ROWS)) {
            int64_t rows = min64(FN(STRIP_ROWS), n - k);
            FN(copy_strip)(chunk->strip, lanes + k * cols, rows, cols, nv);
            FN(multiply_vectors)(chunk, x + k, chunk->strip, chunk->strip_off, rows, nv, sums);
        }
}

/* The same with lanes of halves: the vectors share a copy as floats. */
static TARGET void FN(multiply_halves)(const struct FN(chunk) *chunk, const float *x, const uint16_t *lanes,
                                       int64_t cols, int64_t n, int64_t nv, float *sums)
{
    for (int64_t v = 0, wide; v < nv; v += wide) {
        wide = FN(portion)(nv - v, FN(STRIP) / VL);
        for (int64_t k = 0; k < n; k += FN(STRIP_ROWS)) {
            int64_t rows = min64(FN(STRIP_ROWS), n - k);
            FN(widen_strip)(chunk->strip, lanes + k * cols + v * VL, rows, cols, wide);
            FN(multiply_vectors)(chunk, x + k, chunk->strip, chunk->strip_off, rows, wide, sums + v * VL);
        }
    }
}

/* Adds to the outputs of all vectors, `width` columns from `out` on, their products with a run of n rows. */
static TARGET void FN(add_run)(const struct FN(chunk) *chunk, const float *x, const float *lanes, int64_t cols,
                               int64_t n, int64_t nv, float *out, int64_t width)
{
    float acc[MAX_BROADCAST * ACC_LD];
    int copy = FN(worth_a_copy)(chunk, cols) && n <= FN(STRIP_ROWS);
    if (copy)
        FN(copy_strip)(chunk->strip, lanes, n, cols, nv);
    for (int64_t v = 0, nc; v < chunk->n; v += nc) {
        int g = FN(group)(chunk->n - v);
        nc = (int64_t)1 << g;
        FN(bias_lanes)(acc, NULL, nc, nv * VL, NULL);
        FN(micros)[g][nv - 1](copy ? chunk->strip : lanes, copy ? chunk->strip_off : chunk->off, n,
                              x + v * chunk->ldx, 1, chunk->ldx, acc);
        FN(add_vectors)(out + v * chunk->ldo, acc, nc, width, chunk->ldo);
    }
}

/* The variances of devices for one vector, and for all vectors of a chunk; `lanes`: from a column of the block on. */
static TARGET void FN(vector_variance)(const struct pcmc_block *block, const struct FN(chunk) *chunk,
                                       const uint16_t *lanes, int64_t nv)
{
    int64_t inputs = block->rows - block->bias;
    nv += nv % 2;
    FN(fill)(chunk->variance, nv * VL, 0.0f);
    FN(multiply_half_rows)(chunk->raised_drive, lanes + inputs * block->cols, block->cols, block->bias, nv,
                           chunk->variance);
    FN(multiply_half_rows)(chunk->raised + block->row0, lanes, block->cols, inputs, nv, chunk->variance);
    FN(untangle)(chunk->variance, nv);
}

static TARGET void FN(chunk_variance)(const struct pcmc_block *block, const struct FN(chunk) *chunk,
                                      const uint16_t *lanes, int64_t nv)
{
    float bias[ACC_LD];
    int64_t inputs = block->rows - block->bias;
    if (block->bias)
        FN(widen)(bias, lanes + inputs * block->cols, nv * VL);
    FN(bias_lanes)(chunk->variance, bias, chunk->n, nv * VL, block->bias ? chunk->raised_drive : NULL);
    FN(multiply_halves)(chunk, chunk->raised + block->row0, lanes, block->cols, inputs, nv, chunk->variance);
}

/* The variances of the noise of all vectors, nv vectors of lanes from column j of the block on; `at`: its first
 * conversion. */
static TARGET void FN(dense_variance)(const struct pcmc_block *block, const struct FN(chunk) *chunk, int64_t j,
                                      int64_t nv, int64_t at)
{
    const struct pcmc_noise *noise = chunk->noise;
    if (!noise->variance)
        FN(bias_lanes)(chunk->variance, NULL, chunk->n, nv * VL, NULL);
    else if (chunk->n == 1)
        FN(vector_variance)(block, chunk, noise->variance + block->offset + j, nv);
    else
        FN(chunk_variance)(block, chunk, noise->variance + block->offset + j, nv);
    for (int64_t v = 0; noise->floor && v < chunk->n; v++)
        FN(add_scaled)(chunk->variance + v * ACC_LD, noise->floor + at + j, min64(nv * VL, block->cols - j),
                       chunk->adc[v].scale * chunk->adc[v].scale);
}

/* The sums of all vectors before the ADC, with noise; nv vectors of lanes from column j of the block on. */
static TARGET void FN(dense_sums)(const struct pcmc_block *block, int64_t index, const float *w,
                                  const struct FN(chunk) *chunk, int64_t j, int64_t nv, int64_t at)
{
    const struct pcmc_noise *noise = chunk->noise;
    int64_t inputs = block->rows - block->bias;
    struct pcmc_place place = {.lane = (uint32_t)j, .block = (uint32_t)index, .row = chunk->v0};
    /* One vector after the other, each with a new step: what the last read took from memory last, this one takes
     * first, while it is still in cache. */
    int noisy = is_noisy(noise), turned = noisy && chunk->n == 1 && (noise->key[2] & 1);
    if (turned)
        FN(dense_variance)(block, chunk, j, nv, at);
    FN(bias_lanes)(chunk->sums, w + inputs * block->cols + j, chunk->n, nv * VL,
                   block->bias ? chunk->drive : NULL);
    FN(multiply_strip)(chunk, chunk->x + block->row0, w + j, block->cols, inputs, nv, chunk->sums);
    if (noisy && !turned)
        FN(dense_variance)(block, chunk, j, nv, at);
    memcpy(place.key, noise->key, sizeof place.key);
    if (noisy)
        FN(pcmc_add_noise)(chunk->sums, chunk->variance, chunk->n, nv * VL, ACC_LD, &place);
}

/* n sums of vector v to what the ADC makes of them; `at`: the first one's conversion. */
static TARGET void FN(dense_digitize)(const struct FN(chunk) *chunk, int64_t v, int64_t at, float *sums, int64_t n)
{
    const struct pcmc_converters *conv = chunk->conv;
    struct adc adc = chunk->adc[v];
    struct columns columns = columns_at(conv, at);
    int live = adc.step.mul != 0.0f, apart = live && conv->columns;
    if (apart)
        FN(to_codes)(sums, n, adc.scale, columns.gain, columns.offset);
    if (live && chunk->clipped)
        chunk->clipped[v] += FN(count_clipped)(sums, n, apart ? 1.0f : adc.step.div, conv->adc_levels);
    if (apart)
        FN(to_values)(sums, n, adc.scale, columns.step, columns.shift, conv->adc_levels);
    else
        FN(quantize)(sums, sums, n, adc.step, conv->adc_levels);
}

/* `at`: the first conversion of the block. */
static TARGET void FN(dense_block)(const struct pcmc_block *block, int64_t index, int64_t at, const float *cells,
                                   const struct FN(chunk) *chunk)
{
    const float *w = cells + block->offset, *x = chunk->x + block->row0;
    int noisy = is_noisy(chunk->noise), digitized = chunk->conv->adc_levels > 0.0f;
    int64_t inputs = block->rows - block->bias, left = (block->cols + VL - 1) / VL;
    const float *bias = w + inputs * block->cols, *drive = block->bias ? chunk->drive : NULL;
    /* A strip of columns stays in cache while all vectors pass. */
    for (int64_t j = 0, nv; left > 0; left -= nv, j += nv * VL) {
        /* One vector's cells and variances together are often more than the second-level cache. */
        nv = chunk->n == 1 && chunk->noise->variance ? left : FN(portion)(left, FN(widest)[FN(group)(chunk->n)]);
        int64_t width = min64(nv * VL, block->cols - j);
        float *out = chunk->out + block->col0 + j;
        if (digitized || noisy) {
            FN(dense_sums)(block, index, w, chunk, j, nv, at);
            for (int64_t v = 0; digitized && v < chunk->n; v++)
                FN(dense_digitize)(chunk, v, at + j, chunk->sums + v * ACC_LD, width);
            FN(add_vectors)(out, chunk->sums, chunk->n, width, chunk->ldo);
            continue;
        }
        for (int64_t k = 0, run = sum_run(block->cols, inputs); k < inputs; k += run)
            FN(add_run)(chunk, x + k, w + k * block->cols + j, block->cols, min64(run, inputs - k), nv, out,
                        width);
        if (drive) {
            FN(bias_lanes)(chunk->sums, bias + j, chunk->n, nv * VL, drive);
            FN(add_vectors)(out, chunk->sums, chunk->n, width, chunk->ldo);
        }
    }
}

static TARGET void FN(dense_blocks)(const struct pcmc_bank *bank, const struct FN(chunk) *chunk, int64_t *off)
{
    int64_t stride = -1, filled = 0;
    for (int64_t i = 0, at = 0; i < bank->n_blocks; at += bank->blocks[i++].cols) {
        const struct pcmc_block *block = &bank->blocks[i];
        if (block->cols != stride) {
            stride = block->cols;
            filled = 0;
        }
        for (; filled < block->rows; filled++)
            off[filled] = filled * stride;
        FN(dense_block)(block, i, at, bank->cells, chunk);
    }
}

static TARGET void FN(raise_vectors)(float *to, const float *from, int64_t n, int64_t width, int64_t ld,
                                     const float *drive, float *raised_drive, int power)
{
    for (int64_t v = 0; v < n; v++)
        FN(raise)(to + v * ld, from + v * ld, width, power);
    FN(raise)(raised_drive, drive, n, power);
}

/* `at`: where these vectors begin among all outputs. */
static TARGET void FN(finish_vectors)(const struct pcmc_finish *finish, float *out, int64_t at, int64_t n,
                                      int64_t cols)
{
    for (int64_t v = 0; finish->offset && v < n; v++)
        FN(add)(out + at + v * cols, finish->offset, cols);
    if (finish->addend)
        FN(add)(out + at, finish->addend + at, n * cols);
    if (finish->relu)
        FN(rectify)(out + at, n * cols);
}

static TARGET int FN(dense_read)(const struct pcmc_bank *bank, const struct pcmc_converters *conv,
                                 const struct pcmc_noise *noise, const struct pcmc_finish *finish,
                                 const float *x, float bias_drive, float *out, int64_t first, int64_t last)
{
    /* As many vectors at once as keep their inputs and sums in the second-level cache, in even portions. */
    int64_t all = max64(last - first, 1), most = min64(max64(65536 / max64(bank->rows, 1), 64), 256);
    int64_t portions = (all + most - 1) / most;
    most = min64(((all + portions - 1) / portions + 7) / 8 * 8, all);
    int64_t ldx = (bank->rows / 16 | 1) * 16 + 16;
    int dac = conv->dac_levels > 0.0f, noisy = is_noisy(noise), devices = noise->variance != NULL;
    int64_t *off = malloc(sizeof(int64_t) * (size_t)(bank->rows + 1));
    int64_t strip_off[FN(STRIP_ROWS)];
    float *drive = malloc(sizeof(float) * (size_t)most);
    struct adc *adc = malloc(sizeof(struct adc) * (size_t)most);
    int64_t room = max64(most * ACC_LD, bank->cols + 2 * VL);
    float *sums = malloc(sizeof(float) * (size_t)room);
    float *variance = noisy ? malloc(sizeof(float) * (size_t)room) : NULL;
    float *strip = aligned_alloc(64, sizeof(float) * FN(STRIP_ROWS) * FN(STRIP));
    float *quantized = dac ? malloc(sizeof(float) * (size_t)(most * ldx)) : NULL;
    float *raised = devices ? malloc(sizeof(float) * (size_t)(most * (ldx + 1))) : NULL;
    int failed = !off || !drive || !adc || !sums || !strip || (noisy && !variance) || (dac && !quantized)
                 || (devices && !raised);
    for (int64_t k = 0; k < FN(STRIP_ROWS); k++)
        strip_off[k] = k * FN(STRIP);
    for (int64_t v0 = first, n; !failed && v0 < last; v0 += n) {
        n = min64(most, last - v0);
        const float *from = x + v0 * bank->rows;
        for (int64_t v = 0; v < n; v++) {
            struct step step = dac_step(conv, v0 + v);
            adc[v] = adc_of(conv, noise, v0 + v);
            drive[v] = quantize_one(bias_drive, step, conv->dac_levels);
            if (dac)
                FN(quantize)(from + v * bank->rows, quantized + v * ldx, bank->rows, step, conv->dac_levels);
        }
        if (devices)
            FN(raise_vectors)(raised, dac ? quantized : from, n, bank->rows, dac ? ldx : bank->rows, drive,
                              raised + most * ldx, noise->power);
        struct FN(chunk) chunk = {
            .x = dac ? quantized : from,
            .ldx = dac ? ldx : bank->rows,
            .n = n,
            .drive = drive,
            .adc = adc,
            .conv = conv,
            .clipped = conv->saturated ? conv->saturated + v0 : NULL,
            .out = out + v0 * bank->cols,
            .ldo = bank->cols,
            .sums = sums,
            .variance = variance,
            .strip = strip,
            .strip_off = strip_off,
            .off = off,
            .noise = noise,
            .raised = raised,
            .raised_drive = devices ? raised + most * ldx : NULL,
            .v0 = (uint64_t)noise->first + (uint64_t)v0,
        };
        memset(chunk.out, 0, sizeof(float) * (size_t)(n * bank->cols));
        FN(dense_blocks)(bank, &chunk, off);
        FN(finish_vectors)(finish, out, v0 * bank->cols, n, bank->cols);
    }
    free(off);
    free(drive);
    free(adc);
    free(quantized);
    free(raised);
    free(sums);
    free(variance);
    free(strip);
    return failed ? -1 : 0;
}

/* Vectors [n, width] to lanes [width, ld] and back, a few values at a time so that the lanes stay in cache.
 */
static TARGET void FN(to_lanes)(const float *vectors, int64_t n, int64_t width, float *lanes, int64_t ld)
{
    for (int64_t k0 = 0; k0 < width; k0 += 16)
        for (int64_t v = 0, end = min64(k0 + 16, width); v < n; v++)
            for (int64_t k = k0; k < end; k++)
                lanes[k * ld + v] = vectors[v * width + k];
}

static TARGET void FN(from_lanes)(const float *lanes, int64_t ld, float *vectors, int64_t n, int64_t width)
{
    for (int64_t k0 = 0; k0 < width; k0 += 16)
        for (int64_t v = 0, end = min64(k0 + 16, width); v < n; v++)
            for (int64_t k = k0; k < end; k++)
                vectors[v * width + k] = lanes[k * ld + v];
}

/* A chunk of vectors, transposed: d [cols, ld], out [rows, ld], a lane for each vector. */
struct FN(panel) {
    float *d, *out;
    int64_t ld;
    float div[ACC_LD], mul[ACC_LD]; /* ADC steps of the lanes */
};

static TARGET void FN(transposed_block)(const struct pcmc_block *block, const float *w,
                                        struct FN(panel) *panel, const int64_t *off, float adc_levels,
                                        float *acc)
{
    int64_t ld = panel->ld, inputs = block->rows - block->bias;
    for (int64_t i = 0, nc; i < inputs; i += nc) {
        int g = FN(group)(inputs - i);
        nc = (int64_t)1 << g;
        for (int64_t b = 0; b < nc; b++)
            FN(fill)(acc + b * ACC_LD, ld, 0.0f);
        micro_kernel *micro = FN(micros)[g][ld / VL - 1];
        micro(panel->d + block->col0 * ld, off, block->cols, w + i * block->cols, 1, block->cols, acc);
        for (int64_t b = 0; b < nc; b++) {
            if (adc_levels > 0.0f)
                FN(quantize_lanes)(acc + b * ACC_LD, ld, panel->div, panel->mul, adc_levels);
            FN(add)(panel->out + (block->row0 + i + b) * ld, acc + b * ACC_LD, ld);
        }
    }
}

static TARGET int FN(dense_read_transposed)(const struct pcmc_bank *bank, const struct pcmc_converters *conv,
                                            const float *d, float *out, int64_t first, int64_t last)
{
    float acc[MAX_BROADCAST * ACC_LD];
    int most = FN(widest)[sizeof FN(widest) / sizeof *FN(widest) - 1];
    struct FN(panel) panel;
    panel.ld = min64(most, (max64(last - first, 1) + VL - 1) / VL) * VL;
    panel.d = calloc((size_t)(bank->cols * panel.ld + 1), sizeof(float));
    panel.out = malloc(sizeof(float) * (size_t)(bank->rows * panel.ld + 1));
    int64_t *off = malloc(sizeof(int64_t) * (size_t)(bank->cols + 1));
    float *quantized = malloc(sizeof(float) * (size_t)(bank->cols * panel.ld + 1));
    int failed = !panel.d || !panel.out || !off || !quantized;
    for (int64_t k = 0; !failed && k < bank->cols; k++)
        off[k] = k * panel.ld;
    for (int64_t v0 = first, n; !failed && v0 < last; v0 += n) {
        const float *from = d + v0 * bank->cols;
        n = min64(panel.ld, last - v0);
        for (int64_t v = 0; v < panel.ld;
             v++) { /* lanes past the last vector: whatever they hold, 0 comes out */
            struct step adc = v < n ? adc_step(conv, v0 + v) : make_step(0.0f);
            panel.div[v] = adc.div;
            panel.mul[v] = adc.mul;
            if (v < n && conv->dac_levels > 0.0f)
                FN(quantize)(from + v * bank->cols, quantized + v * bank->cols, bank->cols,
                             dac_step(conv, v0 + v), conv->dac_levels);
        }
        FN(to_lanes)(conv->dac_levels > 0.0f ? quantized : from, n, bank->cols, panel.d, panel.ld);
        memset(panel.out, 0, sizeof(float) * (size_t)(bank->rows * panel.ld));
        for (int64_t i = 0; i < bank->n_blocks; i++)
            FN(transposed_block)(&bank->blocks[i], bank->cells + bank->blocks[i].offset, &panel, off,
                                 conv->adc_levels, acc);
        FN(from_lanes)(panel.out, panel.ld, out + v0 * bank->rows, n, bank->rows);
    }
    free(panel.d);
    free(panel.out);
    free(off);
    free(quantized);
    return failed ? -1 : 0;
}

