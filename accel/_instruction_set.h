/* Which of the instruction sets that kernels are compiled for is the best one here. */
#ifndef PCMC_INSTRUCTION_SET_H
#define PCMC_INSTRUCTION_SET_H

enum pcmc_instruction_set { PCMC_PLAIN, PCMC_AVX2, PCMC_AVX512 };

#if defined(__x86_64__)

#include <stdlib.h>
#include <string.h>

/* A cap allows itself and what is below; the best is asked first, so only avx512 allows another. */
static int pcmc_allowed(const char *cap, const char *name)
{
    return !cap || !*cap || !strcmp(cap, "avx512") || !strcmp(cap, name);
}

/* PCMC_SIMD=plain|avx2|avx512 in the environment caps it. */
static enum pcmc_instruction_set pcmc_instruction_set(void)
{
    const char *cap = getenv("PCMC_SIMD");
    __builtin_cpu_init();
    if (pcmc_allowed(cap, "avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return PCMC_AVX512;
    if (pcmc_allowed(cap, "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
        && __builtin_cpu_supports("popcnt"))
        return PCMC_AVX2;
    return PCMC_PLAIN;
}

#else

static enum pcmc_instruction_set pcmc_instruction_set(void) { return PCMC_PLAIN; }

#endif

#endif
