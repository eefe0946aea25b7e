/* What the counting kernels share: the bits of `classes`, one byte per code point (statistics.py makes the table from the
 * same Python patterns that the slow truth uses), and the hash by which they tell tokens apart. */

#include "utf8.h"

enum { SPACE = 1, LETTER = 2, ALONE = 4, SIGN = 8, SEPARATOR = 16, END = 32, CLOSING = 64, STOP = 128 };

static const uint64_t ODD = 0x9E3779B97F4A7C15u;

static inline uint64_t add_byte(uint64_t hash, unsigned char byte) /* FNV-1a, ASCII letters lower-cased */
{
    byte |= (byte >= 'A' && byte <= 'Z') ? 0x20 : 0;
    return (hash ^ byte) * 0x100000001B3u;
}

static const uint64_t EMPTY_TOKEN = 0xCBF29CE484222325u;

/* How many ASCII letters and digits begin here. */
static inline int64_t plain_run(const unsigned char *p, const unsigned char *end)
{
    const unsigned char *from = p;
    while (p < end && ((unsigned char)((*p | 0x20) - 'a') < 26 || (unsigned char)(*p - '0') < 10))
        p++;
    return p - from;
}
