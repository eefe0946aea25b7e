/* Shingles and MinHash over Arrow string buffers.  Its slow truth is wuxing/text/shingle.py; the two give equal bits.
 *
 * A token is one character of a script written without spaces, or a run of other letters and digits (ASCII lower-cased).
 * A shingle is the hash of `width` tokens in a row; a shorter document with any token has one shingle of all of them.
 * The input is valid UTF-8, as Arrow promises; a broken end of a document is read as separators, never past the end. */

#include "utf8.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define FAST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FAST
#endif

enum { BLOCK = 1024, MAX_WIDTH = 16, SEPARATOR = 0, LETTER = 1, ALONE = 2 };

typedef struct { uint32_t first, last; } range;

/* Scripts without spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han. */
static const range alone[] = {{0xE00, 0xEFF},   {0x1000, 0x109F}, {0x1780, 0x17FF}, {0x3040, 0x30FF},
                              {0x31F0, 0x31FF}, {0x3400, 0x4DBF}, {0x4E00, 0x9FFF}, {0xF900, 0xFAFF},
                              {0x20000, 0x323AF}};
/* Signs, spaces, arrows, pictures, private use. */
static const range separators[] = {{0x80, 0xA9},     {0xAB, 0xB4},     {0xB6, 0xB9},     {0xBB, 0xBF},
                                   {0xD7, 0xD7},     {0xF7, 0xF7},     {0x2000, 0x2BFF}, {0x3000, 0x303F},
                                   {0xE000, 0xF8FF}, {0xFE10, 0xFE1F}, {0xFE30, 0xFE4F}, {0xFF00, 0xFF0F},
                                   {0xFF1A, 0xFF20}, {0xFF3B, 0xFF40}, {0xFF5B, 0xFF65}, {0xFFF0, 0xFFFF},
                                   {0x1F000, 0x1FAFF}};

/* ASCII letters, lower-cased, and digits; 0 for separators. */
static const unsigned char plain[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 0, 0, 0, 0, 0, 0,
    0, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o',
    'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 0, 0, 0, 0, 0,
    0, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o',
    'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 0, 0, 0, 0, 0,
};

static int within(const range *ranges, int count, uint32_t point)
{
    for (int i = 0; i < count; i++)
        if (point <= ranges[i].last)
            return point >= ranges[i].first;
    return 0;
}

static int kind_of(uint32_t point)
{
    if (point < 0x250)
        return within(separators, 6, point) ? SEPARATOR : LETTER;
    if (within(alone, sizeof alone / sizeof *alone, point))
        return ALONE;
    return within(separators, sizeof separators / sizeof *separators, point) ? SEPARATOR : LETTER;
}

static uint32_t add_byte(uint32_t hash, unsigned char byte) /* FNV-1a */
{
    return (hash ^ byte) * 16777619u;
}

/* One token's hash; *at moves behind it.  Returns 0 at the end of the document. */
static int next_token(const unsigned char **at, const unsigned char *end, uint32_t *hash)
{
    const unsigned char *p = *at;
    uint32_t h = 2166136261u;
    int open = 0;
    while (p < end) {
        if (*p < 0x80) {
            unsigned char letter = plain[*p];
            if (!letter && open)
                break;
            if (letter) {
                h = add_byte(h, letter);
                open = 1;
            }
            p++;
            continue;
        }
        int length = length_of(*p);
        if (end - p < length)
            break;
        int kind = kind_of(point_at(p, length));
        if (kind != LETTER && open)
            break;
        if (kind != SEPARATOR)
            for (int i = 0; i < length; i++)
                h = add_byte(h, p[i]);
        p += length;
        open = open || kind != SEPARATOR;
        if (kind == ALONE)
            break;
    }
    *at = open ? p : end;
    *hash = h;
    return open;
}

static uint32_t shingle_of(const uint32_t *ring, int first, int count)
{
    uint32_t h = 0;
    for (int i = 0; i < count; i++) {
        h = (h << 5 | h >> 27) ^ ring[(first + i) % MAX_WIDTH];
        h *= 0x9E3779B1u;
    }
    h = (h ^ h >> 16) * 0x85EBCA6Bu; /* the last mix of MurmurHash3 */
    h = (h ^ h >> 13) * 0xC2B2AE35u;
    return h ^ h >> 16;
}

typedef struct { const unsigned char *at, *end; uint32_t ring[MAX_WIDTH]; int64_t seen; int width, over; } reader;

static void open_reader(reader *r, const unsigned char *at, const unsigned char *end, int width)
{
    r->at = at, r->end = end, r->seen = 0, r->width = width, r->over = 0;
}

/* Up to `room` shingles of the document; 0 when there are no more. */
static int64_t read_shingles(reader *r, uint32_t *out, int64_t room)
{
    int64_t count = 0;
    uint32_t hash;
    while (count < room && !r->over) {
        if (next_token(&r->at, r->end, &hash)) {
            r->ring[r->seen++ % MAX_WIDTH] = hash;
            if (r->seen >= r->width)
                out[count++] = shingle_of(r->ring, (int)((r->seen - r->width) % MAX_WIDTH), r->width);
        } else {
            r->over = 1;
            if (r->seen > 0 && r->seen < r->width)
                out[count++] = shingle_of(r->ring, 0, (int)r->seen);
        }
    }
    return count;
}

FAST static void take_minima(const uint32_t *shingles, int64_t count, const uint32_t *a, const uint32_t *b, int hashes,
                             uint32_t *minima)
{
    for (int i = 0; i < hashes; i++) {
        uint32_t least = minima[i], factor = a[i], offset = b[i];
        for (int64_t j = 0; j < count; j++) {
            uint32_t value = shingles[j] * factor + offset;
            least = value < least ? value : least;
        }
        minima[i] = least;
    }
}

/* minima[d][i] = the least a[i] * shingle + b[i] (mod 2^32) over document d's shingles; all ones when it has none. */
void wuxing_minhash(const unsigned char *text, const int64_t *offsets, int64_t documents, int width, const uint32_t *a,
                    const uint32_t *b, int hashes, uint32_t *minima)
{
    uint32_t block[BLOCK];
    for (int64_t d = 0; d < documents; d++) {
        uint32_t *row = minima + d * hashes;
        for (int i = 0; i < hashes; i++)
            row[i] = UINT32_MAX;
        reader r;
        open_reader(&r, text + offsets[d], text + offsets[d + 1], width);
        for (int64_t count; (count = read_shingles(&r, block, BLOCK)) > 0;)
            take_minima(block, count, a, b, hashes, row);
    }
}

/* All shingles of all documents, one after the other, and where each document's end; `out` holds one per byte of text. */
void wuxing_shingles(const unsigned char *text, const int64_t *offsets, int64_t documents, int width, uint32_t *out,
                     int64_t *ends)
{
    int64_t total = 0;
    for (int64_t d = 0; d < documents; d++) {
        reader r;
        open_reader(&r, text + offsets[d], text + offsets[d + 1], width);
        for (int64_t count; (count = read_shingles(&r, out + total, BLOCK)) > 0;)
            total += count;
        ends[d] = total;
    }
}
