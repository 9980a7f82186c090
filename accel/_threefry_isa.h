/* Random words for one instruction set: Threefry-4x32-12 (Salmon et al., SC 2011), a lane for each counter.
 *
 *   SUFFIX   ends every name
 *   TARGET   attribute that every function carries itself
 *   VL       words in a vector: 4, 8 or 16
 *
 * Defines INLINE, which who includes this may use, and takes back.
 */

typedef uint32_t FN(words) __attribute__((vector_size(4 * VL)));

#define INLINE TARGET static inline __attribute__((always_inline))

INLINE FN(words) FN(spread)(uint32_t value)
{
    return (FN(words)){0} + value;
}

/* first, first + 1, ... */
INLINE FN(words) FN(from)(uint32_t first)
{
    FN(words) count;
    for (uint32_t l = 0; l < VL; l++)
        count[l] = l;
    return count + first;
}

#define MIX(a, b, r) (a += b, b = (b << r | b >> (32 - r)) ^ a)
#define INJECT(n)                                                                                           \
    (x[0] += ks[n % 5], x[1] += ks[(n + 1) % 5], x[2] += ks[(n + 2) % 5], x[3] += ks[(n + 3) % 5] + n)

/* Threefry-4x32-12: x is the counter, then four random words. */
INLINE void FN(threefry)(const uint32_t key[4], FN(words) x[4])
{
    uint32_t ks[5] = {key[0], key[1], key[2], key[3], 0x1BD11BDA ^ key[0] ^ key[1] ^ key[2] ^ key[3]};
    INJECT(0);
    MIX(x[0], x[1], 10), MIX(x[2], x[3], 26), MIX(x[0], x[3], 11), MIX(x[2], x[1], 21);
    MIX(x[0], x[1], 13), MIX(x[2], x[3], 27), MIX(x[0], x[3], 23), MIX(x[2], x[1], 5);
    INJECT(1);
    MIX(x[0], x[1], 6), MIX(x[2], x[3], 20), MIX(x[0], x[3], 17), MIX(x[2], x[1], 11);
    MIX(x[0], x[1], 25), MIX(x[2], x[3], 10), MIX(x[0], x[3], 18), MIX(x[2], x[1], 20);
    INJECT(2);
    MIX(x[0], x[1], 10), MIX(x[2], x[3], 26), MIX(x[0], x[3], 11), MIX(x[2], x[1], 21);
    MIX(x[0], x[1], 13), MIX(x[2], x[3], 27), MIX(x[0], x[3], 23), MIX(x[2], x[1], 5);
    INJECT(3);
}

#undef MIX
#undef INJECT
