/* Gaussians for each instruction set; _tile_read.c chooses one. A file of its own because nothing in it may be
 * fused: a multiply-add rounds once where the numpy twin rounds twice. */
#include "_gaussian.h"

#include <math.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off", "no-math-errno")
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define FN(name) PASTE(name, SUFFIX)

#define SUFFIX plain
#define TARGET
#define VL 4
#if defined(__x86_64__)
#define SQRT(v) ((FN(floats))_mm_sqrt_ps((__m128)(v)))
#endif
#include "_gaussian_isa.h"
#undef SUFFIX
#undef TARGET
#undef VL
#undef SQRT

#if defined(__x86_64__)

#define SUFFIX avx2
#define TARGET __attribute__((target("avx2,fma")))
#define VL 8
#define SQRT(v) ((FN(floats))_mm256_sqrt_ps((__m256)(v)))
#include "_gaussian_isa.h"
#undef SUFFIX
#undef TARGET
#undef VL
#undef SQRT

#define SUFFIX avx512
#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")))
#define VL 16
#define SQRT(v) ((FN(floats))_mm512_sqrt_ps((__m512)(v)))
#include "_gaussian_isa.h"

#endif
