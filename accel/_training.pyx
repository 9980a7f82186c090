# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: freethreading_compatible=True
"""Training in place as Python sees it; its work is in _training_kernels.c, its meaning in training.reference.

Only `pcmc.accel.training` calls this: nothing is checked here. Names and signatures are those of the twin.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t


cdef extern from "_training_kernels.h" nogil:
    enum:
        PCMC_TRAINING_PADDING
        PCMC_FORWARD_NOISE
        PCMC_EVALUATION_NOISE
        PCMC_STREAMS

    struct pcmc_training_block:
        pass

    struct pcmc_port:
        float dac_levels
        float adc_levels
        float adc_full
        const float *offset
        int64_t conversions

    struct pcmc_law:
        float *low
        const uint16_t *steps
        const uint16_t *slopes
        const uint16_t *bounds
        const uint16_t *leak
        float low_mid
        float noise
        float step
        float leak_mean
        float steepest

    struct pcmc_set_law:
        float *plus
        float *minus
        const uint16_t *step_plus
        const uint16_t *step_minus
        const uint16_t *top_plus
        const uint16_t *top_minus
        float growth
        float decay
        float noise_offset
        float noise_slope
        int64_t pairs

    struct pcmc_training_bank:
        float *weights
        int64_t cells
        const pcmc_training_block *blocks
        int64_t n_blocks
        int64_t rows
        int64_t cols
        int64_t has_bias
        float bias_drive
        float sign
        pcmc_port ports[2]
        uint32_t keys[6][4]
        int64_t *counts
        const uint16_t *variances
        int has_law
        pcmc_law law
        pcmc_set_law set
        int64_t pulses
        void *memory

    int pcmc_training_reserve(pcmc_training_bank *)
    void pcmc_training_release(pcmc_training_bank *)

    struct pcmc_targets:
        const int64_t *labels
        const float *wanted
        int64_t cols

    struct pcmc_training_kernels:
        const char *simd
        void forward(pcmc_training_bank *, const float *, float *, int) noexcept nogil
        void backward(pcmc_training_bank *, const float *, float *) noexcept nogil
        void update(pcmc_training_bank *, const float *, const float *, float) noexcept nogil
        void leak(pcmc_training_bank *, float, float) noexcept nogil
        void activate(int, const float *, float *, int64_t) noexcept nogil
        void activate_backward(int, const float *, const float *, float *, int64_t) noexcept nogil
        float loss_and_grad(
            int, const float *, const pcmc_targets *, int64_t, float *, int64_t *
        ) noexcept nogil

    struct pcmc_chain:
        pcmc_training_bank **banks
        const int64_t *activations
        const int64_t *trainable
        int64_t n
        int loss
        const float *x
        pcmc_targets targets
        const int64_t *order
        int64_t examples
        int64_t first_example
        float lr
        double *pulls

    int pcmc_train_chain(const pcmc_chain *, double *, int64_t *)

    # Named apart from the struct: in C tags and functions have name spaces of their own, in Cython not.
    const pcmc_training_kernels *choose_kernels "pcmc_training_kernels"()

from libc.stdlib cimport free, malloc

cdef const pcmc_training_kernels *KERNELS = choose_kernels()

SIMD = KERNELS.simd.decode()
PADDING = PCMC_TRAINING_PADDING

cdef dict ACTIVATIONS = {"none": 0, "relu": 1, "tanh": 2, "sigmoid": 3}
cdef dict LOSSES = {"cross_entropy": 0, "mse": 1, "bce": 2}


cdef const uint16_t *halves_or_none(const uint16_t[::1] values) noexcept:
    return &values[0] if values.shape[0] else NULL


cdef const uint16_t *pairs_or_none(const uint16_t[:, ::1] values) noexcept:
    return &values[0, 0] if values.shape[0] else NULL


cdef class Bank:
    """See `reference.Bank`; the weights and the variances are followed by PADDING readable values."""

    cdef pcmc_training_bank bank
    cdef tuple kept  # what the pointers point into
    cdef object _variances
    cdef readonly tuple shape
    cdef object __weakref__

    def __init__(
        self, float[::1] weights, const int64_t[:, ::1] blocks, tuple shape, float bias_drive, tuple ports,
        const uint64_t[:, ::1] keys, int64_t[::1] counts, tuple law, int64_t pulses,
        tuple set_law=None,
    ):
        cdef const float[::1] offset
        cdef int64_t i, way
        pcmc_training_release(&self.bank)
        self.kept, self.shape = (weights, blocks, counts, law, ports, set_law), shape
        self.bank.weights, self.bank.cells = &weights[0], weights.shape[0]
        self.bank.blocks = <const pcmc_training_block *> &blocks[0, 0]
        self.bank.n_blocks, self.bank.rows, self.bank.cols = blocks.shape[0], shape[0], shape[1]
        self.bank.bias_drive, self.bank.sign, self.bank.has_bias = bias_drive, 1, 0
        self.bank.ports[0].conversions = self.bank.ports[1].conversions = 0
        for i in range(blocks.shape[0]):
            self.bank.has_bias |= blocks[i, 4]
            self.bank.ports[0].conversions += blocks[i, 3]
            self.bank.ports[1].conversions += blocks[i, 2] - blocks[i, 4]
        for way in range(2):
            self.bank.ports[way].dac_levels = ports[way][0]
            self.bank.ports[way].adc_levels = ports[way][1]
            self.bank.ports[way].adc_full = ports[way][2]
            offset = ports[way][3]
            self.bank.ports[way].offset = &offset[0] if offset.shape[0] else NULL
        for i in range(PCMC_STREAMS):
            for way in range(2):
                self.bank.keys[i][2 * way] = <uint32_t> keys[i, way]
                self.bank.keys[i][2 * way + 1] = <uint32_t> (keys[i, way] >> 32)
        self.bank.counts, self.bank.pulses = &counts[0], pulses
        self.bank.variances, self._variances = NULL, None
        self.bank.has_law = law is not None
        if law is not None:
            self.take_law(law)
        self.bank.set.pairs = 0
        if set_law is not None:
            self.take_set_law(set_law)
        if pcmc_training_reserve(&self.bank):
            raise MemoryError("no memory for the work space of a bank")

    def __dealloc__(self):
        pcmc_training_release(&self.bank)

    cdef int take_law(self, tuple law) except -1:
        cdef float[::1] low = law[0]
        self.bank.law.low = &low[0]
        self.bank.law.steps, self.bank.law.slopes = pairs_or_none(law[1]), pairs_or_none(law[2])
        self.bank.law.bounds, self.bank.law.leak = pairs_or_none(law[3]), halves_or_none(law[4])
        self.bank.law.low_mid, self.bank.law.noise = law[5], law[6]
        self.bank.law.step, self.bank.law.leak_mean, self.bank.law.steepest = law[7], law[8], law[9]
        return 0

    cdef int take_set_law(self, tuple law) except -1:
        cdef float[::1] plus = law[0], minus = law[1]
        self.bank.set.plus, self.bank.set.minus = &plus[0], &minus[0]
        self.bank.set.step_plus, self.bank.set.step_minus = halves_or_none(law[2]), halves_or_none(law[3])
        self.bank.set.top_plus, self.bank.set.top_minus = halves_or_none(law[4]), halves_or_none(law[5])
        self.bank.set.growth, self.bank.set.decay, self.bank.law.noise = law[6], law[7], law[8]
        self.bank.set.noise_offset, self.bank.set.noise_slope = law[9], law[10]
        self.bank.law.step, self.bank.set.pairs = law[11], law[12]
        return 0

    @property
    def sign(self):
        """Polarity, 1 or -1."""
        return int(self.bank.sign)

    @sign.setter
    def sign(self, sign):
        self.bank.sign = sign

    @property
    def variances(self):
        """Of the noise of each cell, bfloat16, or empty."""
        return self._variances

    @variances.setter
    def variances(self, const uint16_t[::1] variances):
        self.bank.variances, self._variances = halves_or_none(variances), variances

    def forward(self, const float[:, ::1] x, float[:, ::1] out, bint evaluating):
        """See `reference.Bank.forward`."""
        cdef int64_t v
        with nogil:
            for v in range(x.shape[0]):
                KERNELS.forward(
                    &self.bank, &x[v, 0], &out[v, 0],
                    PCMC_EVALUATION_NOISE if evaluating else PCMC_FORWARD_NOISE,
                )

    def backward(self, const float[:, ::1] d, float[:, ::1] out):
        """See `reference.Bank.backward`."""
        cdef int64_t v
        with nogil:
            for v in range(d.shape[0]):
                KERNELS.backward(&self.bank, &d[v, 0], &out[v, 0])

    def update(self, const float[:, ::1] x, const float[:, ::1] d, float lr):
        """See `reference.Bank.update`."""
        cdef int64_t v
        with nogil:
            for v in range(x.shape[0]):
                KERNELS.update(&self.bank, &x[v, 0], &d[v, 0], lr)

    def leak(self, float part, float pull):
        """See `reference.Bank.leak`."""
        with nogil:
            KERNELS.leak(&self.bank, part, pull)


def activate(str kind, const float[::1] x, float[::1] out):
    """See `reference.activate`."""
    cdef int which = ACTIVATIONS[kind]
    if x.shape[0]:
        with nogil:
            KERNELS.activate(which, &x[0], &out[0], x.shape[0])


def activate_backward(str kind, const float[::1] y, const float[::1] dy, float[::1] out):
    """See `reference.activate_backward`."""
    cdef int which = ACTIVATIONS[kind]
    if y.shape[0]:
        with nogil:
            KERNELS.activate_backward(which, &y[0], &dy[0], &out[0], y.shape[0])


cdef pcmc_targets make_targets(
    const int64_t[::1] labels, const float[:, ::1] wanted, int64_t cols
) noexcept nogil:
    cdef pcmc_targets targets
    targets.labels = &labels[0] if labels.shape[0] else NULL
    targets.wanted = &wanted[0, 0] if wanted.shape[0] else NULL
    targets.cols = cols
    return targets


def loss_and_grad(
    str kind, const float[:, ::1] z, const int64_t[::1] labels, const float[:, ::1] wanted, float[::1] loss,
    float[:, ::1] grad,
):
    """See `reference.loss_and_grad`."""
    cdef int which = LOSSES[kind]
    cdef int64_t v, right = 0
    cdef pcmc_targets targets = make_targets(labels, wanted, z.shape[1])
    with nogil:
        for v in range(z.shape[0]):
            loss[v] = KERNELS.loss_and_grad(which, &z[v, 0], &targets, v, &grad[v, 0], &right)
    return right


def train(
    banks, activations, str loss, trainable, const float[:, ::1] x, const int64_t[::1] labels,
    const float[:, ::1] wanted, const int64_t[::1] order, float lr, int64_t first_example,
    double[:, ::1] pulls,
):
    """See `reference.train`."""
    cdef int64_t k, n = len(banks), right = 0
    cdef double total = 0
    cdef int failed
    cdef pcmc_chain chain
    cdef Bank bank
    if not order.shape[0]:
        return 0.0, 0
    cdef pcmc_training_bank **pointers = <pcmc_training_bank **> malloc(n * sizeof(void *))
    cdef int64_t *flags = <int64_t *> malloc(2 * n * sizeof(int64_t))
    try:
        if pointers == NULL or flags == NULL:
            raise MemoryError("no memory for a chain of banks")
        for k in range(n):
            bank = banks[k]
            pointers[k] = &bank.bank
            flags[k], flags[n + k] = ACTIVATIONS[activations[k]], trainable[k]
        chain.banks, chain.activations, chain.trainable, chain.n = pointers, flags, flags + n, n
        chain.loss, chain.lr, chain.first_example = LOSSES[loss], lr, first_example
        chain.x, chain.order, chain.examples = &x[0, 0], &order[0], order.shape[0]
        chain.targets = make_targets(labels, wanted, banks[n - 1].shape[1])
        chain.pulls = &pulls[0, 0]
        with nogil:
            failed = pcmc_train_chain(&chain, &total, &right)
        if failed:
            raise MemoryError("no memory for the values of a chain of banks")
    finally:
        free(pointers)
        free(flags)
    return total, right
