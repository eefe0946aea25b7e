/* Shingles and MinHash over Arrow string buffers.  Its slow truth is wuxing/text/shingle.py; the two give equal bits.
 *
 * A token is one character of a script written without spaces, or a run of other letters and digits (ASCII lower-cased).
 * A shingle is the hash of `width` tokens in a row; a shorter document with any token has one shingle of all of them.
 * The input is valid UTF-8, as Arrow promises; a broken end of a document is read as separators, never past the end. */

#include "token.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define FAST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FAST
#endif

enum { BLOCK = 1024, MAX_WIDTH = 16 };

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
    const unsigned char *start;
    while (count < room && !r->over) {
        if (next_token(&r->at, r->end, &start, &hash)) {
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
