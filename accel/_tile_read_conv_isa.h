/* Convolutions for one instruction set; included by _tile_read_isa.h. */

/* Rows of an image or an output below this many values are copied by masked vectors: a call or a loop of odd
 * length for each would cost more than it does. */
enum { FN(SHORT) = 2 * VL };

/* `rows` rows of n < SHORT values each, from one place to another. */
static TARGET APART void FN(copy_short_rows)(const float *restrict from, int64_t from_stride, float *restrict to,
                                             int64_t to_stride, int64_t n, int64_t rows)
{
    if (n <= VL)
        for (int64_t i = 0; i < rows; i++, from += from_stride, to += to_stride)
            FN(store_first)(to, FN(load_first)(from, n), n);
    else
        for (int64_t i = 0; i < rows; i++, from += from_stride, to += to_stride) {
            FN(vec) start = *(const FN(loose) *)from;
            FN(store_first)(to + VL, FN(load_first)(from + VL, n - VL), n - VL);
            *(FN(loose) *)to = start;
        }
}

/* The same, added to what is there. */
static TARGET APART void FN(add_short_rows)(const float *restrict from, int64_t from_stride, float *restrict to,
                                            int64_t to_stride, int64_t n, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++, from += from_stride, to += to_stride)
        if (n <= VL)
            FN(store_first)(to, FN(load_first)(to, n) + FN(load_first)(from, n), n);
        else {
            *(FN(loose) *)to += *(const FN(loose) *)from;
            FN(store_first)(to + VL, FN(load_first)(to + VL, n - VL) + FN(load_first)(from + VL, n - VL), n - VL);
        }
}

/* Every other of 2 n - 1 values, 1 <= n <= VL. */
static TARGET inline __attribute__((always_inline)) FN(vec) FN(load_every_other)(const float *from, int64_t n)
{
#if VL == 4
    FN(vec) found = {0};
    for (int64_t l = 0; l < n; l++)
        found[l] = from[2 * l];
    return found;
#else
    int64_t all = 2 * n - 1;
    FN(vec) low = FN(load_first)(from, min64(all, VL)), high = {0};
    if (all > VL)
        high = FN(load_first)(from + VL, all - VL);
#if VL == 16
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    return (FN(vec))_mm512_permutex2var_ps((__m512)low, even, (__m512)high);
#else
    __m256d pairs = (__m256d)_mm256_shuffle_ps((__m256)low, (__m256)high, _MM_SHUFFLE(2, 0, 2, 0));
    return (FN(vec))_mm256_permute4x64_pd(pairs, _MM_SHUFFLE(3, 1, 2, 0));
#endif
#endif
}

/* `rows` rows of n values, taken from every other place. */
static TARGET APART void FN(thin_rows)(const float *restrict from, int64_t from_stride, float *restrict to,
                                       int64_t to_stride, int64_t n, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++, from += from_stride, to += to_stride)
        for (int64_t j = 0; j < n; j += VL)
            FN(store_first)(to + j, FN(load_every_other)(from + 2 * j, min64(n - j, VL)), min64(n - j, VL));
}

/* Rows [first, last) of the planes of one channel at a stride of 1 or 2 in x, from its image of short rows. */
static TARGET void FN(fill_short_rows)(const struct planes *p, const struct pcmc_window *w, int64_t image_width,
                                       int64_t first, int64_t last, const float *image, float *plane)
{
    for (int64_t a = 0; a < p->phases_y; a++)
        for (int64_t b = 0; b < p->phases_x; b++, plane += p->stride) {
            const struct phase *py = &p->phase_y[a], *px = &p->phase_x[b];
            int64_t i = max64(first, py->first), rows = min64(last, py->last) - i, n = px->last - px->first;
            const float *from = image + (i * w->stride_y + py->start - w->top) * image_width
                                + px->first * w->stride_x + px->start - w->left;
            float *to = plane + i * p->width + px->first;
            if (n <= 0 || rows <= 0)
                continue;
            if (w->stride_x == 1)
                FN(copy_short_rows)(from, w->stride_y * image_width, to, p->width, n, rows);
            else
                FN(thin_rows)(from, w->stride_y * image_width, to, p->width, n, rows);
        }
}

/* Copies rows [first, last) of the planes from an image, through the DAC if it is on. Padding is not written:
 * it has been zero since the planes were allocated. `line` has room for a channel of the image. */
static TARGET void FN(fill_planes)(const struct planes *p, const struct pcmc_window *w,
                                   const struct pcmc_images *im, const float *image, int64_t first,
                                   int64_t last, struct step dac, float levels, float *restrict line,
                                   float *restrict planes)
{
    for (int64_t c = 0; c < im->channels; c++) {
        if (!p->used[c])
            continue;
        if (w->stride_x <= 2 && im->width < FN(SHORT)) {
            const float *from = image + c * im->height * im->width;
            if (levels > 0.0f) { /* the rows of a band at once */
                int64_t top = max64(0, first * w->stride_y - w->top) * im->width;
                int64_t bottom = min64(im->height, last * w->stride_y - w->top) * im->width;
                FN(quantize)(from + top, line + top, bottom - top, dac, levels);
                from = line;
            }
            FN(fill_short_rows)(p, w, im->width, first, last, from,
                                planes + c * p->phases_y * p->phases_x * p->stride);
            continue;
        }
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
                    else if (sx == 2)
                        FN(thin_rows)(from + px->first * 2 + shift, 0, to + px->first, 0, px->last - px->first, 1);
                    else
                        for (int64_t j = px->first; j < px->last; j++)
                            to[j] = from[j * sx + shift];
                }
            }
        }
    }
}

/* `rows` rows of n values between a plane and sums. */
static TARGET inline void FN(move_rows)(enum move move, float *plane, int64_t out_width, float *sums,
                                        int64_t width, int64_t n, int64_t rows)
{
    if (n < FN(SHORT)) {
        if (move == ADD)
            FN(add_short_rows)(sums, width, plane, out_width, n, rows);
        else if (move == STORE)
            FN(copy_short_rows)(sums, width, plane, out_width, n, rows);
        else
            FN(copy_short_rows)(plane, out_width, sums, width, n, rows);
        return;
    }
    for (int64_t i = 0; i < rows; i++, plane += out_width, sums += width)
        if (move == ADD)
            FN(add)(plane, sums, n);
        else
            memcpy(move == STORE ? plane : sums, move == STORE ? sums : plane, sizeof(float) * (size_t)n);
}

/* Positions [q, end), the first of which is (oy, ox). */
struct FN(stretch) {
    int64_t q, end, oy, ox;
};

/* The positions of a stretch of nc columns between their sums and the rows of their output planes, garbage
 * columns left out. */
static TARGET void FN(move_columns)(enum move move, float *planes, float *acc, int64_t nc, struct FN(stretch) at,
                                    int64_t width, int64_t out_width, int64_t out_size)
{
    int64_t length = at.end - at.q, head = 0;
    float *plane = planes + at.oy * out_width + at.ox;
    if (width == out_width) { /* no garbage: one row */
        for (int64_t b = 0; b < nc; b++)
            FN(move_rows)(move, plane + b * out_size, 0, acc + b * ACC_LD, 0, length, 1);
        return;
    }
    if (at.ox) { /* the rest of a row, or of its garbage */
        int64_t n = min64(out_width - at.ox, length);
        for (int64_t b = 0; n > 0 && b < nc; b++)
            FN(move_rows)(move, plane + b * out_size, 0, acc + b * ACC_LD, 0, n, 1);
        head = width - at.ox;
        plane = planes + (at.oy + 1) * out_width;
    }
    int64_t rows = 0, left = length - head;
    for (; left >= out_width; left -= width)
        rows++;
    for (int64_t b = 0; b < nc; b++) {
        float *to = plane + b * out_size, *sums = acc + b * ACC_LD + head;
        if (rows)
            FN(move_rows)(move, to, out_width, sums, width, out_width, rows);
        if (left > 0)
            FN(move_rows)(move, to + rows * out_width, 0, sums + rows * width, 0, left, 1);
    }
}

/* One image, or a band of it, on its way through the blocks. */
struct FN(scene) {
    const struct planes *p;
    const float *planes;  /* inputs behind the DAC */
    const float *raised;  /* |input|^power */
    float drive, raised_drive;
    int64_t first, end, first_row; /* positions of the band, and its first row */
    const struct pcmc_converters *conv;
    const struct pcmc_noise *noise;
    const float *variance; /* of the cells of the block, as floats; NULL: devices are quiet */
    struct adc adc;
    int64_t clipped;
    struct pcmc_place place; /* of the noise */
    float *out;
    int64_t out_width, out_size;
};

/* Adds noise to the sums of columns [j, j + nc) of a block at nv vectors of positions from q on; `at`: the
 * conversion of column j. */
static TARGET void FN(conv_noise)(const struct pcmc_block *block, struct FN(scene) *scene, int64_t q, int64_t j,
                                  int64_t nc, int64_t nv, int64_t at, float *acc)
{
    float sums[MAX_BROADCAST * ACC_LD];
    const float *variance = scene->variance, *floor = scene->noise->floor;
    int64_t inputs = block->rows - block->bias;
    for (int64_t b = 0; b < nc; b++) {
        float start = 0.0f;
        if (variance && block->bias)
            start = variance[inputs * block->cols + j + b] * scene->raised_drive;
        if (floor)
            start += floor[at + b] * (scene->adc.scale * scene->adc.scale);
        FN(fill)(sums + b * ACC_LD, nv * VL, start);
    }
    if (variance)
        FN(micros)[FN(group)(nc)][nv - 1](scene->raised + q, scene->p->row + block->row0, inputs, variance + j,
                                          block->cols, 1, sums);
    scene->place.lane = (uint32_t)q;
    scene->place.row = (uint64_t)j;
    FN(pcmc_add_noise)(acc, sums, nc, nv * VL, ACC_LD, &scene->place);
}

/* How many sums of nc columns at the positions of a stretch will clip, garbage columns left out. */
static TARGET int64_t FN(count_columns)(const float *acc, int64_t nc, struct FN(stretch) at, int64_t width,
                                        int64_t out_width, float div, float levels)
{
    int64_t clipped = 0, ox = at.ox;
    for (int64_t q = at.q; q < at.end; q += width - ox, ox = 0) {
        int64_t n = min64(out_width - ox, at.end - q);
        for (int64_t b = 0; n > 0 && b < nc; b++)
            clipped += FN(count_clipped)(acc + b * ACC_LD + (q - at.q), n, div, levels);
    }
    return clipped;
}

/* Sums of nc columns at the positions of a stretch, n lanes, to what the ADC makes of them; `at`: the first
 * column's conversion. */
static TARGET void FN(conv_digitize)(struct FN(scene) *scene, struct FN(stretch) stretch, int64_t nc, int64_t n,
                                     int64_t at, float *acc)
{
    const struct pcmc_converters *conv = scene->conv;
    struct adc adc = scene->adc;
    struct columns columns = columns_at(conv, at);
    int live = adc.step.mul != 0.0f, apart = live && conv->columns;
    for (int64_t b = 0; apart && b < nc; b++)
        FN(to_codes_alike)(acc + b * ACC_LD, n, adc.scale, columns.gain[b], columns.offset[b]);
    if (live && conv->saturated)
        scene->clipped += FN(count_columns)(acc, nc, stretch, scene->p->width, scene->out_width,
                                            apart ? 1.0f : adc.step.div, conv->adc_levels);
    for (int64_t b = 0; b < nc; b++)
        if (apart)
            FN(to_values_alike)(acc + b * ACC_LD, n, adc.scale, columns.step[b], columns.shift[b],
                                conv->adc_levels);
        else
            FN(quantize)(acc + b * ACC_LD, acc + b * ACC_LD, n, adc.step, conv->adc_levels);
}

/* Columns [j, j + nc) of a block at nv vectors of positions without ADC and noise, in the order of sum_run. */
static TARGET void FN(conv_sum)(const struct pcmc_block *block, const float *w, const struct FN(scene) *scene,
                                struct FN(stretch) at, int64_t j, int64_t nc, int64_t nv, int fresh, float *acc)
{
    const struct planes *p = scene->p;
    int64_t inputs = block->rows - block->bias, cols = block->cols, run = sum_run(scene->out_size, inputs);
    float *plane = scene->out + (block->col0 + j) * scene->out_size;
    if (fresh)
        for (int64_t b = 0; b < nc; b++)
            FN(fill)(acc + b * ACC_LD, nv * VL, 0.0f);
    else
        FN(move_columns)(LOAD, plane, acc, nc, at, p->width, scene->out_width, scene->out_size);
    for (int64_t k = 0; k < inputs; k += run) {
        float part[MAX_BROADCAST * ACC_LD], *sums = fresh && k == 0 ? acc : part;
        for (int64_t b = 0; sums == part && b < nc; b++)
            FN(fill)(part + b * ACC_LD, nv * VL, 0.0f);
        FN(micros)[FN(group)(nc)][nv - 1](scene->planes + at.q, p->row + block->row0 + k, min64(run, inputs - k),
                                          w + k * cols + j, cols, 1, sums);
        for (int64_t b = 0; sums == part && b < nc; b++)
            FN(add)(acc + b * ACC_LD, part + b * ACC_LD, nv * VL);
    }
    for (int64_t b = 0; block->bias && b < nc; b++)
        FN(add_value)(acc + b * ACC_LD, nv * VL, w[inputs * cols + j + b] * scene->drive);
    FN(move_columns)(STORE, plane, acc, nc, at, p->width, scene->out_width, scene->out_size);
}

/* `at`: the first conversion of the block. */
static TARGET void FN(conv_block)(const struct pcmc_block *block, const float *w, struct FN(scene) *scene,
                                  int64_t at, int fresh)
{
    float acc[MAX_BROADCAST * ACC_LD];
    const struct planes *p = scene->p;
    int noisy = is_noisy(scene->noise), digitized = scene->conv->adc_levels > 0.0f;
    int64_t inputs = block->rows - block->bias, cols = block->cols;
    const float *bias = w + inputs * cols;
    int most = FN(widest)[FN(group)(cols)];
    struct FN(stretch) s = {.q = scene->first, .oy = scene->first_row};
    for (int64_t nv, left = (scene->end - s.q + VL - 1) / VL; left > 0; left -= nv) {
        nv = FN(portion)(left, most);
        s.end = min64(s.q + nv * VL, scene->end);
        for (int64_t j = 0, nc; j < cols; j += nc) {
            int g = FN(group)(cols - j);
            nc = (int64_t)1 << g;
            if (!digitized && !noisy) {
                FN(conv_sum)(block, w, scene, s, j, nc, nv, fresh, acc);
                continue;
            }
            for (int64_t b = 0; b < nc; b++)
                FN(fill)(acc + b * ACC_LD, nv * VL, block->bias ? bias[j + b] * scene->drive : 0.0f);
            FN(micros)[g][nv - 1](scene->planes + s.q, p->row + block->row0, inputs, w + j, cols, 1, acc);
            if (noisy)
                FN(conv_noise)(block, scene, s.q, j, nc, nv, at + j, acc);
            if (digitized)
                FN(conv_digitize)(scene, s, nc, nv * VL, at + j, acc);
            FN(move_columns)(ADD, scene->out + (block->col0 + j) * scene->out_size, acc, nc, s, p->width,
                             scene->out_width, scene->out_size);
        }
        for (s.q += nv * VL, s.ox += nv * VL; s.ox >= p->width; s.ox -= p->width)
            s.oy++;
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
                                const struct pcmc_window *w, const struct pcmc_images *im, const float *x,
                                float bias_drive, float *out, int64_t chunks, int64_t first, int64_t last)
{
    struct planes p;
    int failed = make_planes(&p, bank, w, im);
    float *planes = failed ? NULL : calloc((size_t)p.size, sizeof(float));
    float *raised = failed || !noise->variance ? NULL : calloc((size_t)p.size, sizeof(float));
    float *variance = noise->variance ? malloc(sizeof(float) * (size_t)largest_block(bank)) : NULL;
    float *line = failed ? NULL : malloc(sizeof(float) * (size_t)(im->height * im->width + 1));
    int64_t out_size = im->out_height * im->out_width, widened = -1; /* the block whose variances are floats */
    failed = failed || !planes || !line || (noise->variance && (!raised || !variance));
    for (int64_t item = first; !failed && item < last; item++) {
        int64_t image = item / chunks, chunk = item % chunks;
        int64_t top = im->out_height * chunk / chunks, bottom = im->out_height * (chunk + 1) / chunks;
        struct step dac = dac_step(conv, image);
        struct FN(scene) scene = {
            .p = &p,
            .planes = planes,
            .raised = raised,
            .drive = quantize_one(bias_drive, dac, conv->dac_levels),
            .first = top * p.width,
            .first_row = top,
            .end = (bottom - 1) * p.width + im->out_width,
            .conv = conv,
            .noise = noise,
            .variance = variance,
            .adc = adc_of(conv, noise, image),
            .place = {.item = noise->first + (uint32_t)image},
            .out = out + image * bank->cols * out_size,
            .out_width = im->out_width,
            .out_size = out_size,
        };
        if (top == bottom)
            continue;
        scene.raised_drive = raise_one(scene.drive, noise->power);
        memcpy(scene.place.key, noise->key, sizeof noise->key);
        if (chunks == 1)
            memset(scene.out, 0, sizeof(float) * (size_t)(bank->cols * out_size));
        for (int64_t j = 0; chunks > 1 && j < bank->cols; j++)
            memset(scene.out + j * out_size + top * im->out_width, 0,
                   sizeof(float) * (size_t)((bottom - top) * im->out_width));
        FN(fill_planes)(&p, w, im, x + image * im->channels * im->height * im->width, top, bottom + p.reach,
                        dac, conv->dac_levels, line, planes);
        if (noise->variance)
            FN(raise_planes)(&p, im->channels, planes, raised, top, bottom + p.reach, noise->power);
        for (int64_t i = 0, reach = 0, at = 0; i < bank->n_blocks; at += bank->blocks[i++].cols) {
            const struct pcmc_block *block = &bank->blocks[i];
            int fresh = is_fresh(block, &reach);
            if (variance && widened != i)
                FN(widen)(variance, noise->variance + block->offset, block->rows * block->cols);
            widened = i;
            scene.place.block = (uint32_t)i;
            FN(conv_block)(block, bank->cells + block->offset, &scene, at, fresh);
        }
        if (conv->saturated)
            conv->saturated[item] += scene.clipped;
        FN(finish_planes)(finish, out, image * bank->cols, bank->cols, out_size, top * im->out_width,
                          (bottom - top) * im->out_width);
    }
    free(line);
    free(planes);
    free(raised);
    free(variance);
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

