/* Keys and scripts of documents over Arrow string buffers.  The slow truth is wuxing/text/key.py; equal bits.
 *
 * A key is BLAKE2b (RFC 7693) of the text without the differences that make no other content: case (Unicode case
 * folding) and space.  The tables of folding and of scripts come from the caller, so both sides know the same Unicode.
 * The input is valid UTF-8, as Arrow promises; a broken end of a document is left out, never read past. */

#include <stdint.h>
#include <string.h>

enum { BLOCK = 128, SPACE = 1, NO_LETTER = 255 };

static const uint64_t start[8] = {0x6a09e667f3bcc908ull, 0xbb67ae8584caa73bull, 0x3c6ef372fe94f82bull,
                                  0xa54ff53a5f1d36f1ull, 0x510e527fade682d1ull, 0x9b05688c2b3e6c1full,
                                  0x1f83d9abfb41bd6bull, 0x5be0cd19137e2179ull};
typedef struct { uint64_t h[8], length; unsigned char block[BLOCK]; int filled; } hash;

static uint64_t turn(uint64_t word, int bits)
{
    return word >> bits | word << (64 - bits);
}

#define MIX(a, b, c, d, x, y)                                                                                          \
    a += b + m[x], d = turn(d ^ a, 32), c += d, b = turn(b ^ c, 24);                                                   \
    a += b + m[y], d = turn(d ^ a, 16), c += d, b = turn(b ^ c, 63)
#define ROUND(a, b, c, d, e, f, g, h, i, j, k, l, n, o, p, q)                                                          \
    MIX(v[0], v[4], v[8], v[12], a, b);                                                                                \
    MIX(v[1], v[5], v[9], v[13], c, d);                                                                                \
    MIX(v[2], v[6], v[10], v[14], e, f);                                                                               \
    MIX(v[3], v[7], v[11], v[15], g, h);                                                                               \
    MIX(v[0], v[5], v[10], v[15], i, j);                                                                               \
    MIX(v[1], v[6], v[11], v[12], k, l);                                                                               \
    MIX(v[2], v[7], v[8], v[13], n, o);                                                                                \
    MIX(v[3], v[4], v[9], v[14], p, q)

/* One block; written out round by round, because a loop over the permutations runs at half the speed. */
static void compress(hash *s, int last)
{
    uint64_t m[16], v[16];
    for (int i = 0; i < 16; i++) {
        const unsigned char *at = s->block + 8 * i;
        m[i] = (uint64_t)at[0] | (uint64_t)at[1] << 8 | (uint64_t)at[2] << 16 | (uint64_t)at[3] << 24 |
               (uint64_t)at[4] << 32 | (uint64_t)at[5] << 40 | (uint64_t)at[6] << 48 | (uint64_t)at[7] << 56;
    }
    for (int i = 0; i < 8; i++)
        v[i] = s->h[i], v[i + 8] = start[i];
    v[12] ^= s->length;
    v[14] ^= last ? ~0ull : 0ull;
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
    ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
    ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
    ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
    ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
    ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
    ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
    ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    for (int i = 0; i < 8; i++)
        s->h[i] ^= v[i] ^ v[i + 8];
}

static void open_hash(hash *s, const unsigned char *person)
{
    memset(s, 0, sizeof *s);
    memcpy(s->h, start, sizeof start);
    s->h[0] ^= 0x01010000ull | 16; /* 16 bytes, no key, fanout and depth 1 */
    for (int i = 0; i < 16; i++)
        s->h[6 + i / 8] ^= (uint64_t)person[i] << 8 * (i % 8);
}

static void add(hash *s, unsigned char byte)
{
    if (s->filled == BLOCK) {
        s->length += BLOCK;
        compress(s, 0);
        s->filled = 0;
    }
    s->block[s->filled++] = byte;
}

static void close_hash(hash *s, unsigned char *out)
{
    s->length += s->filled;
    memset(s->block + s->filled, 0, BLOCK - s->filled);
    compress(s, 1);
    for (int i = 0; i < 16; i++)
        out[i] = (unsigned char)(s->h[i / 8] >> 8 * (i % 8));
}

static int length_of(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

static uint32_t point_at(const unsigned char *at, int length)
{
    switch (length) {
    case 1: return at[0];
    case 2: return (at[0] & 0x1Fu) << 6 | (at[1] & 0x3Fu);
    case 3: return (at[0] & 0x0Fu) << 12 | (at[1] & 0x3Fu) << 6 | (at[2] & 0x3Fu);
    default: return (at[0] & 0x07u) << 18 | (at[1] & 0x3Fu) << 12 | (at[2] & 0x3Fu) << 6 | (at[3] & 0x3Fu);
    }
}

/* 16 bytes for each document.  pages[point >> 8] is the row of `folds` for 256 code points; a fold of 0 is the point
 * itself, SPACE is space, anything else is the place in `letters` << 4 | its length in bytes. */
void wuxing_keys(const unsigned char *text, const int64_t *offsets, int64_t documents, const unsigned char *person,
                 const uint16_t *pages, const uint32_t *folds, const unsigned char *letters, unsigned char *out)
{
    unsigned char ascii[256] = {0}; /* what a byte folds to; 0: look into the tables */
    for (int i = 0; i < 128; i++) {
        uint32_t fold = folds[(uint32_t)pages[0] << 8 | (uint32_t)i];
        ascii[i] = (unsigned char)(!fold ? i : fold != SPACE && (fold & 15) == 1 ? letters[fold >> 4] : 0);
    }
    for (int64_t d = 0; d < documents; d++) {
        const unsigned char *p = text + offsets[d], *end = text + offsets[d + 1];
        int waiting = 0, begun = 0;
        hash s;
        open_hash(&s, person);
        while (p < end) {
            if (!waiting && ascii[*p]) { /* the common case: plain letters, and single spaces between them */
                begun = 1;
                int filled = s.filled;
                while (p < end && filled < BLOCK) {
                    unsigned char letter = ascii[*p];
                    if (!letter && !(*p == ' ' && end - p > 1 && ascii[p[1]]))
                        break;
                    s.block[filled++] = letter ? letter : ' ';
                    p++;
                }
                s.filled = filled;
                if (filled == BLOCK && p < end && ascii[*p])
                    add(&s, ascii[*p++]);
                continue;
            }
            int length = length_of(*p);
            if (end - p < length)
                break;
            uint32_t point = point_at(p, length) & 0x1FFFFF;
            uint32_t fold = point < 0x110000 ? folds[(uint32_t)pages[point >> 8] << 8 | (point & 0xFF)] : 0;
            if (fold == SPACE) {
                waiting = begun;
            } else {
                if (waiting)
                    add(&s, ' ');
                waiting = 0, begun = 1;
                if (!fold && s.filled + length <= BLOCK) {
                    memcpy(s.block + s.filled, p, 4 <= end - p && s.filled + 4 <= BLOCK ? 4 : (size_t)length);
                    s.filled += length;
                    p += length;
                    continue;
                }
                const unsigned char *from = fold ? letters + (fold >> 4) : p;
                for (int i = 0, count = fold ? (int)(fold & 15) : length; i < count; i++)
                    add(&s, from[i]);
            }
            p += length;
        }
        close_hash(&s, out + 16 * d);
    }
}

/* The script of most of the first `most` letters and signs of each document: the first one met where two have as many;
 * -1 for a document without letters.  scripts[pages[point >> 8] << 8 | point & 255] is a script, or NO_LETTER. */
void wuxing_scripts(const unsigned char *text, const int64_t *offsets, int64_t documents, int64_t most,
                    const uint16_t *pages, const unsigned char *scripts, int8_t *out)
{
    for (int64_t d = 0; d < documents; d++) {
        const unsigned char *p = text + offsets[d], *end = text + offsets[d + 1];
        int64_t counts[64] = {0};
        int met[64], known = 0;
        for (int64_t i = 0; i < most && p < end; i++) {
            int length = length_of(*p);
            if (end - p < length)
                break;
            uint32_t point = point_at(p, length) & 0x1FFFFF;
            int script = point < 0x110000 ? scripts[(uint32_t)pages[point >> 8] << 8 | (point & 0xFF)] : NO_LETTER;
            if (script < 64 && !counts[script]++)
                met[known++] = script;
            p += length;
        }
        int best = -1;
        for (int i = 0; i < known; i++)
            if (best < 0 || counts[met[i]] > counts[best])
                best = met[i];
        out[d] = (int8_t)best;
    }
}
