/* Counter-based Gaussians: a number is a function of its key and its place, whoever asks, in whatever order.
 *
 * The bits are Threefry-4x32-12 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), the
 * numbers Box and Muller's (Ann. Math. Stat. 29, 1958): a word gives L = -2 ln(u), the next one the sine and
 * the cosine t of an angle, and sqrt(L) * t is normal. reference.py has the same in numpy, with the same bits:
 * no operation here is fused or reordered, so every instruction set gives them.
 */
#ifndef PCMC_GAUSSIAN_H
#define PCMC_GAUSSIAN_H

#include <stdint.h>

/* Noise that a read adds to sums: the number of sum b, lane l has the counter {lane + l, item, (row + b) / 4,
 * block} and is of the four that this gives number (row + b) % 4. */
struct pcmc_place {
    uint32_t key[4], lane, item, block;
    uint64_t row;
};

/* sums[b][l] += sqrt(variance[b][l]) * normal for b < nc, l < n; rows are `ld` floats apart, and n is rounded up
 * to a multiple of the vector length (4, 8, 16). */
typedef void pcmc_add_noise(float *sums, const float *variance, int64_t nc, int64_t n, int64_t ld,
                            const struct pcmc_place *place);

/* out[i] = number counter0 + i of the stream `key`, for i < n; the stream has 2^64 numbers. */
typedef void pcmc_fill_gaussian(float *out, int64_t n, const uint32_t key[4], uint64_t counter0);

pcmc_add_noise pcmc_add_noise_plain, pcmc_add_noise_avx2, pcmc_add_noise_avx512;
pcmc_fill_gaussian pcmc_fill_gaussian_plain, pcmc_fill_gaussian_avx2, pcmc_fill_gaussian_avx512;

#endif
