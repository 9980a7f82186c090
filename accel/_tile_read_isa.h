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

/* ---- dense -------------------------------------------------------------------------------------------- */

/* A chunk of vectors on its way through the blocks, quantized if the DAC is on. */
struct FN(chunk) {
    const float *x;
    int64_t ldx, n;
    const float *drive;     /* bias drive of each vector */
    const struct step *adc; /* ADC step of each vector */
    float adc_levels;
    float *out;
    int64_t ldo;
    float *strip; /* room for a strip of a block's columns */
    const int64_t *strip_off;
    const struct pcmc_noise *noise; /* its variance NULL: none, and the others here unused */
    const float *raised;            /* |x|^power, as x */
    const float *raised_drive;      /* |drive|^power, as drive */
    float *variance_strip;
    uint64_t v0; /* index of the first vector in the stream of noise */
};

/* The widest strip that many vectors read at once. */
enum { FN(STRIP) = 3 * VL };

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

/* Adds noise to the sums of nc vectors from v on, n lanes from column j on. */
static TARGET void FN(dense_noise)(const struct pcmc_block *block, int64_t index, const struct FN(chunk) *chunk,
                                   const float *lanes, const int64_t *off, int64_t v, int64_t nc, int64_t j,
                                   int64_t nv, float *acc)
{
    float variance[MAX_BROADCAST * ACC_LD];
    int64_t inputs = block->rows - block->bias;
    const float *bias = chunk->noise->variance + block->offset + inputs * block->cols;
    struct pcmc_place place = {.lane = (uint32_t)j, .block = (uint32_t)index, .row = chunk->v0 + (uint64_t)v};
    memcpy(place.key, chunk->noise->key, sizeof place.key);
    FN(bias_lanes)(variance, bias + j, nc, nv * VL, block->bias ? chunk->raised_drive + v : NULL);
    FN(micros)[FN(group)(nc)][nv - 1](lanes, off, inputs, chunk->raised + v * chunk->ldx + block->row0, 1,
                                      chunk->ldx, variance);
    FN(pcmc_add_noise)(acc, variance, nc, nv * VL, ACC_LD, &place);
}

static TARGET void FN(copy_strip)(float *strip, const float *w, int64_t rows, int64_t cols, int64_t nv)
{
    for (int64_t k = 0; k < rows; k++)
        memcpy(strip + k * FN(STRIP), w + k * cols, sizeof(float) * (size_t)(nv * VL));
}

static TARGET void FN(dense_block)(const struct pcmc_block *block, int64_t index, const float *cells,
                                   const struct FN(chunk) *chunk, const int64_t *off, float *acc)
{
    const float *w = cells + block->offset;
    const float *variance = chunk->noise->variance ? chunk->noise->variance + block->offset : NULL;
    int64_t inputs = block->rows - block->bias, left = (block->cols + VL - 1) / VL;
    const float *bias = w + inputs * block->cols;
    /* Rows a page apart compete for cache sets and pages: many vectors are worth a copy of the strip. */
    int copy = block->cols >= 1024 && chunk->n >= 32;
    /* A strip of columns stays in cache while all vectors pass. */
    for (int64_t j = 0, nv; left > 0; left -= nv, j += nv * VL) {
        nv = FN(portion)(left, FN(widest)[FN(group)(chunk->n)]);
        int64_t width = min64(nv * VL, block->cols - j);
        const float *lanes = w + j, *variance_lanes = variance ? variance + j : NULL;
        const int64_t *from = copy ? chunk->strip_off : off;
        if (copy) {
            FN(copy_strip)(chunk->strip, lanes, inputs, block->cols, nv);
            lanes = chunk->strip;
        }
        if (copy && variance) {
            FN(copy_strip)(chunk->variance_strip, variance_lanes, inputs, block->cols, nv);
            variance_lanes = chunk->variance_strip;
        }
        for (int64_t v = 0, nc; v < chunk->n; v += nc) {
            int g = FN(group)(chunk->n - v);
            nc = (int64_t)1 << g;
            const float *inputs_of_v = chunk->x + v * chunk->ldx + block->row0;
            micro_kernel *micro = FN(micros)[g][nv - 1];
            float *out = chunk->out + v * chunk->ldo + block->col0 + j;
            if (chunk->adc_levels > 0.0f || variance) {
                FN(bias_lanes)(acc, bias + j, nc, nv * VL, block->bias ? chunk->drive + v : NULL);
                micro(lanes, from, inputs, inputs_of_v, 1, chunk->ldx, acc);
                if (variance)
                    FN(dense_noise)(block, index, chunk, variance_lanes, from, v, nc, j, nv, acc);
                for (int64_t b = 0; chunk->adc_levels > 0.0f && b < nc; b++)
                    FN(quantize)(acc + b * ACC_LD, acc + b * ACC_LD, width, chunk->adc[v + b], chunk->adc_levels);
                FN(add_vectors)(out, acc, nc, width, chunk->ldo);
                continue;
            }
            for (int64_t k = 0, run = sum_run(block->cols, inputs); k < inputs; k += run) {
                FN(bias_lanes)(acc, bias + j, nc, nv * VL, NULL);
                micro(lanes, from + k, min64(run, inputs - k), inputs_of_v + k, 1, chunk->ldx, acc);
                FN(add_vectors)(out, acc, nc, width, chunk->ldo);
            }
            if (block->bias) {
                FN(bias_lanes)(acc, bias + j, nc, nv * VL, chunk->drive + v);
                FN(add_vectors)(out, acc, nc, width, chunk->ldo);
            }
        }
    }
}

static TARGET void FN(dense_blocks)(const struct pcmc_bank *bank, const struct FN(chunk) *chunk,
                                    int64_t *off)
{
    float acc[MAX_BROADCAST * ACC_LD];
    int64_t stride = -1, filled = 0;
    for (int64_t i = 0; i < bank->n_blocks; i++) {
        const struct pcmc_block *block = &bank->blocks[i];
        if (block->cols != stride) {
            stride = block->cols;
            filled = 0;
        }
        for (; filled < block->rows; filled++)
            off[filled] = filled * stride;
        FN(dense_block)(block, i, bank->cells, chunk, off, acc);
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
    /* As many vectors at once as keep their inputs in the second-level cache. */
    int64_t most = min64(max64(65536 / (bank->rows + 1), 64) / 8 * 8, max64(last - first, 1));
    int64_t ldx = (bank->rows / 16 | 1) * 16 + 16;
    int dac = conv->dac_levels > 0.0f, noisy = noise->variance != NULL;
    int64_t *off = malloc(sizeof(int64_t) * (size_t)(bank->rows + 1));
    float *drive = malloc(sizeof(float) * (size_t)most);
    struct step *adc = malloc(sizeof(struct step) * (size_t)most);
    int64_t *strip_off = malloc(sizeof(int64_t) * (size_t)(bank->rows + 1));
    float *strip = malloc(sizeof(float) * (size_t)((bank->rows + 1) * FN(STRIP)));
    float *variance_strip = noisy ? malloc(sizeof(float) * (size_t)((bank->rows + 1) * FN(STRIP))) : NULL;
    float *quantized = dac ? malloc(sizeof(float) * (size_t)(most * ldx)) : NULL;
    float *raised = noisy ? malloc(sizeof(float) * (size_t)(most * (ldx + 1))) : NULL;
    int failed = !off || !drive || !adc || !strip || !strip_off || (dac && !quantized)
                 || (noisy && (!raised || !variance_strip));
    for (int64_t k = 0; !failed && k < bank->rows; k++)
        strip_off[k] = k * FN(STRIP);
    for (int64_t v0 = first, n; !failed && v0 < last; v0 += n) {
        n = min64(most, last - v0);
        const float *from = x + v0 * bank->rows;
        for (int64_t v = 0; v < n; v++) {
            struct step step = dac_step(conv, v0 + v);
            adc[v] = adc_step(conv, v0 + v);
            drive[v] = quantize_one(bias_drive, step, conv->dac_levels);
            if (dac)
                FN(quantize)(from + v * bank->rows, quantized + v * ldx, bank->rows, step, conv->dac_levels);
        }
        if (noisy)
            FN(raise_vectors)(raised, dac ? quantized : from, n, bank->rows, dac ? ldx : bank->rows, drive,
                              raised + most * ldx, noise->power);
        struct FN(chunk) chunk = {
            .x = dac ? quantized : from,
            .ldx = dac ? ldx : bank->rows,
            .n = n,
            .drive = drive,
            .adc = adc,
            .adc_levels = conv->adc_levels,
            .out = out + v0 * bank->cols,
            .ldo = bank->cols,
            .strip = strip,
            .strip_off = strip_off,
            .noise = noise,
            .raised = raised,
            .raised_drive = noisy ? raised + most * ldx : NULL,
            .variance_strip = variance_strip,
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
    free(strip);
    free(variance_strip);
    free(strip_off);
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

/* ---- convolution -------------------------------------------------------------------------------------- */

/* Copies rows [first, last) of the planes from an image, through the DAC if it is on. Padding is not written:
 * it has been zero since the planes were allocated. `line` holds one row of the image. */
static TARGET void FN(fill_planes)(const struct planes *p, const struct pcmc_window *w,
                                   const struct pcmc_images *im, const float *image, int64_t first,
                                   int64_t last, struct step dac, float levels, float *restrict line,
                                   float *restrict planes)
{
    for (int64_t c = 0; c < im->channels; c++) {
        if (!p->used[c])
            continue;
        for (int64_t a = 0; a < p->phases_y; a++) {
            const struct phase *py = &p->phase_y[a];
            for (int64_t i = max64(first, py->first); i < min64(last, py->last); i++) {
                const float *from =
                    image + (c * im->height + i * w->stride_y + py->start - w->top) * im->width;
                if (levels > 0.0f) {
                    FN(quantize)(from, line, im->width, dac, levels);
                    from = line;
                }
                for (int64_t b = 0; b < p->phases_x; b++) {
                    const struct phase *px = &p->phase_x[b];
                    float *to = planes + ((c * p->phases_y + a) * p->phases_x + b) * p->stride + i * p->width;
                    int64_t shift = px->start - w->left, sx = w->stride_x;
                    if (sx == 1)
                        memcpy(to + px->first, from + px->first + shift,
                               sizeof(float) * (size_t)(px->last - px->first));
                    else if (sx == 2) /* a loop of its own, of which the compiler makes vectors */
                        for (int64_t j = px->first; j < px->last; j++)
                            to[j] = from[j * 2 + shift];
                    else
                        for (int64_t j = px->first; j < px->last; j++)
                            to[j] = from[j * sx + shift];
                }
            }
        }
    }
}

/* Positions [q, end) of nc columns between their sums and the rows of their output planes, garbage columns left out. */
static TARGET void FN(move_columns)(enum move move, float *planes, float *acc, int64_t nc, int64_t q, int64_t end,
                                    int64_t width, int64_t out_width, int64_t out_size)
{
    int64_t oy = q / width, ox = q - oy * width;
    for (int64_t at = q; at < end; at += width - ox, ox = 0, oy++) {
        int64_t n = min64(out_width - ox, end - at);
        for (int64_t b = 0; n > 0 && b < nc; b++) {
            float *plane = planes + b * out_size + oy * out_width + ox, *sums = acc + b * ACC_LD + (at - q);
            if (move == ADD)
                FN(add)(plane, sums, n);
            else
                memcpy(move == STORE ? plane : sums, move == STORE ? sums : plane, sizeof(float) * (size_t)n);
        }
    }
}

/* What a convolution's noise needs of one image; variance NULL: none. */
struct FN(haze) {
    const float *variance; /* as the cells */
    const float *planes;   /* |input|^power */
    float drive;           /* |drive|^power */
    struct pcmc_place place;
};

/* Adds noise to the sums of columns [j, j + nc) of a block at nv vectors of positions from q on. */
static TARGET void FN(conv_noise)(const struct pcmc_block *block, const struct planes *p, struct FN(haze) *haze,
                                  int64_t q, int64_t j, int64_t nc, int64_t nv, float *acc)
{
    float sums[MAX_BROADCAST * ACC_LD];
    int64_t inputs = block->rows - block->bias;
    const float *variance = haze->variance + block->offset, *bias = variance + inputs * block->cols;
    for (int64_t b = 0; b < nc; b++)
        FN(fill)(sums + b * ACC_LD, nv * VL, block->bias ? bias[j + b] * haze->drive : 0.0f);
    FN(micros)[FN(group)(nc)][nv - 1](haze->planes + q, p->row + block->row0, inputs, variance + j, block->cols, 1,
                                      sums);
    haze->place.lane = (uint32_t)q;
    haze->place.row = (uint64_t)j;
    FN(pcmc_add_noise)(acc, sums, nc, nv * VL, ACC_LD, &haze->place);
}

static TARGET void FN(conv_block)(const struct pcmc_block *block, const float *w, const struct planes *p,
                                  const float *planes, int64_t q, int64_t end, float drive, struct FN(haze) *haze,
                                  struct step adc, float adc_levels, int fresh, float *out, int64_t out_width,
                                  int64_t out_size)
{
    float acc[MAX_BROADCAST * ACC_LD];
    int digitized = adc_levels > 0.0f || haze->variance;
    int64_t run = sum_run(out_size, block->rows - block->bias);
    int64_t inputs = block->rows - block->bias, cols = block->cols, left = (end - q + VL - 1) / VL;
    const float *bias = w + inputs * cols;
    int most = FN(widest)[FN(group)(cols)];
    for (int64_t nv; left > 0; left -= nv, q += nv * VL) {
        nv = FN(portion)(left, most);
        for (int64_t j = 0, nc; j < cols; j += nc) {
            int g = FN(group)(cols - j);
            nc = (int64_t)1 << g;
            float *plane = out + (block->col0 + j) * out_size;
            int64_t to = min64(q + nv * VL, end);
            for (int64_t b = 0; b < nc; b++)
                FN(fill)(acc + b * ACC_LD, nv * VL, digitized && block->bias ? bias[j + b] * drive : 0.0f);
            if (digitized) {
                FN(micros)[g][nv - 1](planes + q, p->row + block->row0, inputs, w + j, cols, 1, acc);
                if (haze->variance)
                    FN(conv_noise)(block, p, haze, q, j, nc, nv, acc);
                for (int64_t b = 0; adc_levels > 0.0f && b < nc; b++)
                    FN(quantize)(acc + b * ACC_LD, acc + b * ACC_LD, nv * VL, adc, adc_levels);
                FN(move_columns)(ADD, plane, acc, nc, q, to, p->width, out_width, out_size);
                continue;
            }
            if (!fresh)
                FN(move_columns)(LOAD, plane, acc, nc, q, to, p->width, out_width, out_size);
            for (int64_t k = 0; k < inputs; k += run) {
                float part[MAX_BROADCAST * ACC_LD], *sums = fresh && k == 0 ? acc : part;
                for (int64_t b = 0; sums == part && b < nc; b++)
                    FN(fill)(part + b * ACC_LD, nv * VL, 0.0f);
                FN(micros)[g][nv - 1](planes + q, p->row + block->row0 + k, min64(run, inputs - k),
                                      w + k * cols + j, cols, 1, sums);
                for (int64_t b = 0; sums == part && b < nc; b++)
                    FN(add)(acc + b * ACC_LD, part + b * ACC_LD, nv * VL);
            }
            for (int64_t b = 0; block->bias && b < nc; b++)
                FN(add_value)(acc + b * ACC_LD, nv * VL, bias[j + b] * drive);
            FN(move_columns)(STORE, plane, acc, nc, q, to, p->width, out_width, out_size);
        }
    }
}

/* Rows [first, last) of the planes to |input|^power. */
static TARGET void FN(raise_planes)(const struct planes *p, int64_t channels, const float *planes, float *raised,
                                    int64_t first, int64_t last, int power)
{
    for (int64_t i = 0, phases = p->phases_y * p->phases_x; i < channels * phases; i++)
        if (p->used[i / phases]) {
            int64_t at = i * p->stride + first * p->width;
            FN(raise)(raised + at, planes + at, (last - first) * p->width, power);
        }
}

/* n positions from `at` on of each plane of an image; `first` plane among all. */
static TARGET void FN(finish_planes)(const struct pcmc_finish *finish, float *out, int64_t first, int64_t cols,
                                     int64_t out_size, int64_t at, int64_t n)
{
    for (int64_t j = 0; j < cols; j++) {
        int64_t begin = (first + j) * out_size + at;
        if (finish->offset)
            FN(add_value)(out + begin, n, finish->offset[j]);
        if (finish->addend)
            FN(add)(out + begin, finish->addend + begin, n);
        if (finish->relu)
            FN(rectify)(out + begin, n);
    }
}

static TARGET int FN(conv_read)(const struct pcmc_bank *bank, const struct pcmc_converters *conv,
                                const struct pcmc_noise *noise, const struct pcmc_finish *finish,
                                const struct pcmc_window *w, const struct pcmc_images *im, const float *x, float bias_drive, float *out,
                                int64_t chunks, int64_t first, int64_t last)
{
    struct planes p;
    struct FN(haze) haze = {.variance = noise->variance};
    memcpy(haze.place.key, noise->key, sizeof noise->key);
    int failed = make_planes(&p, bank, w, im);
    float *planes = failed ? NULL : calloc((size_t)p.size, sizeof(float));
    float *raised = failed || !noise->variance ? NULL : calloc((size_t)p.size, sizeof(float));
    float *line = failed ? NULL : malloc(sizeof(float) * (size_t)(im->width + 1));
    int64_t out_size = im->out_height * im->out_width;
    failed = failed || !planes || !line || (noise->variance && !raised);
    for (int64_t item = first; !failed && item < last; item++) {
        int64_t image = item / chunks, chunk = item % chunks;
        int64_t top = im->out_height * chunk / chunks, bottom = im->out_height * (chunk + 1) / chunks;
        struct step dac = dac_step(conv, image), adc = adc_step(conv, image);
        float drive = quantize_one(bias_drive, dac, conv->dac_levels);
        if (top == bottom)
            continue;
        for (int64_t j = 0; j < bank->cols; j++)
            memset(out + (image * bank->cols + j) * out_size + top * im->out_width, 0,
                   sizeof(float) * (size_t)((bottom - top) * im->out_width));
        FN(fill_planes)(&p, w, im, x + image * im->channels * im->height * im->width, top, bottom + p.reach,
                        dac, conv->dac_levels, line, planes);
        if (noise->variance) {
            FN(raise_planes)(&p, im->channels, planes, raised, top, bottom + p.reach, noise->power);
            haze.planes = raised;
            haze.drive = raise_one(drive, noise->power);
            haze.place.item = noise->first + (uint32_t)image;
        }
        for (int64_t i = 0, reach = 0; i < bank->n_blocks; i++) {
            int fresh = is_fresh(&bank->blocks[i], &reach);
            haze.place.block = (uint32_t)i;
            FN(conv_block)(&bank->blocks[i], bank->cells + bank->blocks[i].offset, &p, planes, top * p.width,
                           (bottom - 1) * p.width + im->out_width, drive, &haze, adc, conv->adc_levels, fresh,
                           out + image * bank->cols * out_size, im->out_width, out_size);
        }
        FN(finish_planes)(finish, out, image * bank->cols, bank->cols, out_size, top * im->out_width,
                          (bottom - top) * im->out_width);
    }
    free(line);
    free(planes);
    free(raised);
    free_planes(&p);
    return failed ? -1 : 0;
}

/* Output errors d [cols, stride] by position -> planes, each matrix row's values added where its inputs came
 * from. */
static TARGET void FN(conv_block_transposed)(const struct pcmc_block *block, const float *w,
                                             const struct planes *p, const float *d, const int64_t *off,
                                             int64_t end, struct step adc, float adc_levels, float *planes)
{
    float acc[MAX_BROADCAST * ACC_LD];
    int64_t inputs = block->rows - block->bias, cols = block->cols, left = (end + VL - 1) / VL;
    if (inputs == 0)
        return;
    int most = FN(widest)[FN(group)(inputs)];
    for (int64_t q = 0, nv; left > 0; left -= nv, q += nv * VL) {
        nv = FN(portion)(left, most);
        for (int64_t i = 0, nc; i < inputs; i += nc) {
            int g = FN(group)(inputs - i);
            nc = (int64_t)1 << g;
            for (int64_t b = 0; b < nc; b++)
                FN(fill)(acc + b * ACC_LD, nv * VL, 0.0f);
            FN(micros)[g][nv - 1](d + q, off + block->col0, cols, w + i * cols, 1, cols, acc);
            for (int64_t b = 0; b < nc; b++) {
                float *sums = acc + b * ACC_LD;
                if (adc_levels > 0.0f)
                    FN(quantize)(sums, sums, nv * VL, adc, adc_levels);
                FN(add)(planes + p->row[block->row0 + i + b] + q, sums, min64(nv * VL, end - q));
            }
        }
    }
}

static TARGET void FN(add_planes)(const struct planes *p, const struct pcmc_window *w,
                                  const struct pcmc_images *im, const float *planes, float *image)
{
    for (int64_t c = 0; c < im->channels; c++)
        for (int64_t a = 0; a < p->phases_y && p->used[c]; a++) {
            const struct phase *py = &p->phase_y[a];
            for (int64_t i = py->first; i < py->last; i++) {
                float *to = image + (c * im->height + i * w->stride_y + py->start - w->top) * im->width;
                for (int64_t b = 0; b < p->phases_x; b++) {
                    const struct phase *px = &p->phase_x[b];
                    const float *from =
                        planes + ((c * p->phases_y + a) * p->phases_x + b) * p->stride + i * p->width;
                    int64_t shift = px->start - w->left, sx = w->stride_x;
                    if (sx == 1)
                        FN(add)(to + px->first + shift, from + px->first, px->last - px->first);
                    else
                        for (int64_t j = px->first; j < px->last; j++)
                            to[j * sx + shift] += from[j];
                }
            }
        }
}

/* The output errors of one image, laid out by position: [cols, stride], garbage columns zero. */
static TARGET void FN(lay_out)(const struct pcmc_images *im, const float *from, int64_t cols, int64_t width,
                               int64_t stride, struct step dac, float levels, float *to)
{
    for (int64_t j = 0; j < cols; j++)
        for (int64_t y = 0; y < im->out_height; y++, from += im->out_width)
            if (levels > 0.0f)
                FN(quantize)(from, to + j * stride + y * width, im->out_width, dac, levels);
            else
                memcpy(to + j * stride + y * width, from, sizeof(float) * (size_t)im->out_width);
}

static TARGET int FN(conv_read_transposed)(const struct pcmc_bank *bank, const struct pcmc_converters *conv,
                                           const struct pcmc_window *w, const struct pcmc_images *im,
                                           const float *d, float *out, int64_t first, int64_t last)
{
    struct planes p;
    int failed = make_planes(&p, bank, w, im);
    int64_t size = im->channels * im->height * im->width,
            end = (im->out_height - 1) * p.width + im->out_width;
    int64_t stride = ((im->out_height * p.width + 15) / 16 | 1) * 16;
    float *planes = failed ? NULL : malloc(sizeof(float) * (size_t)p.size);
    float *errors = failed ? NULL : calloc((size_t)(bank->cols * stride + ACC_LD), sizeof(float));
    int64_t *off = failed ? NULL : malloc(sizeof(int64_t) * (size_t)(bank->cols + 1));
    failed = failed || !planes || !errors || !off;
    for (int64_t j = 0; !failed && j < bank->cols; j++)
        off[j] = j * stride;
    for (int64_t image = first; !failed && image < last; image++) {
        FN(lay_out)(im, d + image * bank->cols * im->out_height * im->out_width, bank->cols, p.width, stride,
                    dac_step(conv, image), conv->dac_levels, errors);
        memset(planes, 0, sizeof(float) * (size_t)p.size);
        for (int64_t i = 0; i < bank->n_blocks; i++)
            FN(conv_block_transposed)(&bank->blocks[i], bank->cells + bank->blocks[i].offset, &p, errors, off,
                                      end, adc_step(conv, image), conv->adc_levels, planes);
        memset(out + image * size, 0, sizeof(float) * (size_t)size);
        FN(add_planes)(&p, w, im, planes, out + image * size);
    }
    free(planes);
    free(errors);
    free(off);
    free_planes(&p);
    return failed ? -1 : 0;
}

static const struct pcmc_kernels FN(kernels) = {
    .simd = STRING(SUFFIX),
    .dense_read = FN(dense_read),
    .dense_read_transposed = FN(dense_read_transposed),
    .conv_read = FN(conv_read),
    .conv_read_transposed = FN(conv_read_transposed),
    .input_range = FN(input_range),
    .fill_gaussian = FN(pcmc_fill_gaussian),
};
