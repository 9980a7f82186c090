# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True
"""The tile reads as Python sees them: the work is in _tile_read.c, the meaning in reference.py.

Only `pcmc.accel.tile` calls these: nothing is checked here. Arrays are C-contiguous; `cells` is followed by
`CELL_PADDING` floats that may be read, `variances` by as many halves, or they are empty; `scale` holds a
range for each item (convolutions: image), or nothing with converters off and no floor. Each call overwrites
`out` for the items [first, last) only, without the GIL, in so many threads.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t


cdef extern from "_tile_read.h" nogil:
    enum:
        PCMC_CELL_PADDING

    struct pcmc_block:
        pass

    struct pcmc_bank:
        const float *cells
        const pcmc_block *blocks
        int64_t n_blocks
        int64_t rows
        int64_t cols

    struct pcmc_converters:
        float dac_levels
        float adc_levels
        float adc_full
        const float *scale
        const float *columns
        int64_t conversions
        int64_t *saturated

    struct pcmc_noise:
        const uint16_t *variance
        const float *floor
        uint32_t key[4]
        uint32_t first
        int power

    struct pcmc_finish:
        const float *offset
        const float *addend
        int relu

    struct pcmc_window:
        pass

    struct pcmc_images:
        int64_t channels
        int64_t height
        int64_t width
        int64_t out_height
        int64_t out_width

    struct pcmc_kernels:
        const char *simd
        int dense_read(const pcmc_bank *, const pcmc_converters *, const pcmc_noise *, const pcmc_finish *,
                       const float *, float, float *, int64_t, int64_t) noexcept nogil
        int dense_read_transposed(const pcmc_bank *, const pcmc_converters *, const float *, float *,
                                  int64_t, int64_t) noexcept nogil
        int conv_read(const pcmc_bank *, const pcmc_converters *, const pcmc_noise *, const pcmc_finish *,
                      const pcmc_window *, const pcmc_images *, const float *, float, float *,
                      int64_t, int64_t, int64_t) noexcept nogil
        int conv_read_transposed(const pcmc_bank *, const pcmc_converters *, const pcmc_window *,
                                 const pcmc_images *, const float *, float *, int64_t, int64_t) noexcept nogil
        void input_range(const float *, int64_t, float, float *, int64_t, int64_t) noexcept nogil
        void fill_gaussian(float *, int64_t, const uint32_t *, uint64_t) noexcept nogil

    ctypedef int pcmc_part(void *, int64_t, int64_t) noexcept nogil
    int pcmc_share(pcmc_part *, void *, int64_t, int64_t, int64_t) noexcept nogil

    # Named apart from the struct: in C tags and functions have name spaces of their own, in Cython not.
    const pcmc_kernels *choose_kernels "pcmc_kernels"()


cdef const pcmc_kernels *KERNELS = choose_kernels()

SIMD = KERNELS.simd.decode()
CELL_PADDING = PCMC_CELL_PADDING


cdef inline pcmc_bank make_bank(
    const float[::1] cells, const int64_t[:, ::1] blocks, int64_t rows, int64_t cols
) noexcept nogil:
    cdef pcmc_bank bank
    bank.cells = &cells[0]
    bank.blocks = <const pcmc_block *> &blocks[0, 0]
    bank.n_blocks = blocks.shape[0]
    bank.rows = rows
    bank.cols = cols
    return bank


cdef inline pcmc_converters make_converters(
    const float[::1] scale, float dac_levels, float adc_levels, float adc_full
) noexcept nogil:
    cdef pcmc_converters converters
    converters.dac_levels = dac_levels
    converters.adc_levels = adc_levels
    converters.adc_full = adc_full
    converters.scale = &scale[0]
    converters.columns = NULL
    converters.conversions = 0
    converters.saturated = NULL
    return converters


cdef inline void refine(
    pcmc_converters *converters, const float[:, ::1] columns, int64_t[::1] saturated
) noexcept nogil:
    """What only forward reads have."""
    if columns.shape[1]:
        converters.columns = &columns[0, 0]
        converters.conversions = columns.shape[1]
    if saturated.shape[0]:
        converters.saturated = &saturated[0]


cdef inline void split_key(const uint64_t[::1] key, uint32_t *words) noexcept nogil:
    words[0] = <uint32_t> key[0]
    words[1] = <uint32_t> (key[0] >> 32)
    words[2] = <uint32_t> key[1]
    words[3] = <uint32_t> (key[1] >> 32)


cdef inline pcmc_noise make_noise(
    const uint16_t[::1] variances, const float[::1] floor, const uint64_t[::1] noise
) noexcept nogil:
    cdef pcmc_noise made
    made.variance = &variances[0] if variances.shape[0] else NULL
    made.floor = &floor[0] if floor.shape[0] else NULL
    split_key(noise, made.key)
    made.first = <uint32_t> noise[2]
    made.power = <int> noise[3]
    return made


cdef inline pcmc_finish make_finish(
    const float[::1] offset, const float[::1] addend, int relu
) noexcept nogil:
    cdef pcmc_finish finish
    finish.offset = &offset[0] if offset.shape[0] else NULL
    finish.addend = &addend[0] if addend.shape[0] else NULL
    finish.relu = relu
    return finish


cdef inline pcmc_images make_images(
    const float[:, :, :, ::1] inputs, const float[:, :, :, ::1] outputs
) noexcept nogil:
    cdef pcmc_images images
    images.channels = inputs.shape[1]
    images.height = inputs.shape[2]
    images.width = inputs.shape[3]
    images.out_height = outputs.shape[2]
    images.out_width = outputs.shape[3]
    return images


cdef struct call:
    # A call of one kernel; each uses a part of this.
    pcmc_bank bank
    pcmc_converters converters
    pcmc_noise noise
    pcmc_finish finish
    pcmc_images images
    const pcmc_window *window
    const float *x
    float *out
    float bias_drive
    int64_t chunks
    int64_t n
    uint32_t key[4]
    uint64_t counter0


cdef int dense_part(void *context, int64_t first, int64_t last) noexcept nogil:
    cdef call *c = <call *> context
    return KERNELS.dense_read(
        &c.bank, &c.converters, &c.noise, &c.finish, c.x, c.bias_drive, c.out, first, last
    )


cdef int dense_transposed_part(void *context, int64_t first, int64_t last) noexcept nogil:
    cdef call *c = <call *> context
    return KERNELS.dense_read_transposed(&c.bank, &c.converters, c.x, c.out, first, last)


cdef int conv_part(void *context, int64_t first, int64_t last) noexcept nogil:
    cdef call *c = <call *> context
    return KERNELS.conv_read(
        &c.bank, &c.converters, &c.noise, &c.finish, c.window, &c.images, c.x, c.bias_drive, c.out, c.chunks,
        first, last
    )


cdef int conv_transposed_part(void *context, int64_t first, int64_t last) noexcept nogil:
    cdef call *c = <call *> context
    return KERNELS.conv_read_transposed(
        &c.bank, &c.converters, c.window, &c.images, c.x, c.out, first, last
    )


cdef int range_part(void *context, int64_t first, int64_t last) noexcept nogil:
    cdef call *c = <call *> context
    KERNELS.input_range(c.x, c.n, c.bias_drive, c.out, first, last)
    return 0


cdef int gaussian_part(void *context, int64_t first, int64_t last) noexcept nogil:
    cdef call *c = <call *> context
    KERNELS.fill_gaussian(c.out + first, last - first, c.key, c.counter0 + <uint64_t> first)
    return 0


def dense_read(
    const float[:, ::1] x, const float[::1] cells, const int64_t[:, ::1] blocks, float[:, ::1] out,
    const float[::1] scale, float bias_drive, float dac_levels, float adc_levels, float adc_full,
    const float[:, ::1] columns, const uint16_t[::1] variances, const float[::1] floor,
    const uint64_t[::1] noise, const float[::1] offset, const float[::1] addend, int relu,
    int64_t[::1] saturated, int64_t first, int64_t last, int64_t threads=1,
):
    """See `reference.dense_read`."""
    cdef call c
    cdef int failed = 0
    if first >= last:
        return
    with nogil:
        c.bank = make_bank(cells, blocks, x.shape[1], out.shape[1])
        c.converters = make_converters(scale, dac_levels, adc_levels, adc_full)
        refine(&c.converters, columns, saturated)
        c.noise = make_noise(variances, floor, noise)
        c.finish = make_finish(offset, addend, relu)
        c.x, c.out, c.bias_drive = &x[0, 0], &out[0, 0], bias_drive
        failed = pcmc_share(dense_part, &c, first, last, threads)
    if failed:
        raise MemoryError("no memory for the work space of a tile read")


def dense_read_transposed(
    const float[:, ::1] d, const float[::1] cells, const int64_t[:, ::1] blocks, float[:, ::1] out,
    const float[::1] scale, float dac_levels, float adc_levels, float adc_full, int64_t first, int64_t last,
    int64_t threads=1,
):
    """See `reference.dense_read_transposed`."""
    cdef call c
    cdef int failed = 0
    if first >= last:
        return
    with nogil:
        c.bank = make_bank(cells, blocks, out.shape[1], d.shape[1])
        c.converters = make_converters(scale, dac_levels, adc_levels, adc_full)
        c.x, c.out = &d[0, 0], &out[0, 0]
        failed = pcmc_share(dense_transposed_part, &c, first, last, threads)
    if failed:
        raise MemoryError("no memory for the work space of a transposed tile read")


def conv_read(
    const float[:, :, :, ::1] x, const float[::1] cells, const int64_t[:, ::1] blocks,
    float[:, :, :, ::1] out, const float[::1] scale, float bias_drive,
    float dac_levels, float adc_levels, float adc_full,
    const float[:, ::1] columns, const uint16_t[::1] variances, const float[::1] floor,
    const uint64_t[::1] noise, const float[::1] offset, const float[::1] addend, int relu,
    int64_t[::1] saturated, const int64_t[::1] window, int64_t chunks, int64_t first, int64_t last,
    int64_t threads=1,
):
    """See `reference.conv_read`."""
    cdef call c
    cdef int failed = 0
    if first >= last:
        return
    with nogil:
        c.bank = make_bank(cells, blocks, x.shape[1] * window[0] * window[1], out.shape[1])
        c.converters = make_converters(scale, dac_levels, adc_levels, adc_full)
        refine(&c.converters, columns, saturated)
        c.images = make_images(x, out)
        c.noise = make_noise(variances, floor, noise)
        c.finish = make_finish(offset, addend, relu)
        c.window = <const pcmc_window *> &window[0]
        c.x, c.out, c.bias_drive = &x[0, 0, 0, 0], &out[0, 0, 0, 0], bias_drive
        c.chunks = chunks
        failed = pcmc_share(conv_part, &c, first, last, threads)
    if failed:
        raise MemoryError("no memory for the work space of a tile read")


def conv_read_transposed(
    const float[:, :, :, ::1] d, const float[::1] cells, const int64_t[:, ::1] blocks,
    float[:, :, :, ::1] out, const float[::1] scale, float dac_levels, float adc_levels, float adc_full,
    const int64_t[::1] window, int64_t first, int64_t last, int64_t threads=1,
):
    """See `reference.conv_read_transposed`."""
    cdef call c
    cdef int failed = 0
    if first >= last:
        return
    with nogil:
        c.bank = make_bank(cells, blocks, out.shape[1] * window[0] * window[1], d.shape[1])
        c.converters = make_converters(scale, dac_levels, adc_levels, adc_full)
        c.images = make_images(out, d)
        c.window = <const pcmc_window *> &window[0]
        c.x, c.out = &d[0, 0, 0, 0], &out[0, 0, 0, 0]
        failed = pcmc_share(conv_transposed_part, &c, first, last, threads)
    if failed:
        raise MemoryError("no memory for the work space of a transposed tile read")


def input_range(
    const float[:, ::1] x, float floor, float[::1] scale, int64_t first, int64_t last, int64_t threads=1
):
    """See `reference.input_range`."""
    cdef call c
    if first >= last:
        return
    with nogil:
        c.x, c.n, c.bias_drive, c.out = &x[0, 0], x.shape[1], floor, &scale[0]
        pcmc_share(range_part, &c, first, last, threads)


def fill_gaussian(
    float[::1] out, const uint64_t[::1] key, uint64_t counter0, int64_t first, int64_t last,
    int64_t threads=1,
):
    """See `reference.fill_gaussian`."""
    cdef call c
    if first >= last:
        return
    with nogil:
        split_key(key, c.key)
        c.out, c.counter0 = &out[0], counter0
        pcmc_share(gaussian_part, &c, first, last, threads)
