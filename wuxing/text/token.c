/* Tokens with their places, over Arrow string buffers, and the choice of fingerprints among them.
 * The slow truth is in wuxing/text/token.py; the two give equal numbers. */

#include "token.h"

static uint64_t hash_of(const unsigned char *at, const unsigned char *end) /* FNV-1a, then MurmurHash3's last mix */
{
    uint64_t h = 0xCBF29CE484222325u;
    for (; at < end; at++)
        h = (h ^ (*at < 0x80 ? plain[*at] : *at)) * 0x100000001B3u;
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCDu;
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53u;
    return h ^ h >> 33;
}

/* The hash, first and last byte (counted from the document's beginning) of each token, and where each document's tokens
 * end; the arrays hold one per byte of text. */
void wuxing_tokens(const unsigned char *text, const int64_t *offsets, int64_t documents, uint64_t *hashes,
                   uint32_t *starts, uint32_t *stops, int64_t *ends)
{
    int64_t total = 0;
    for (int64_t d = 0; d < documents; d++) {
        const unsigned char *first = text + offsets[d], *at = first, *end = text + offsets[d + 1], *start;
        uint32_t ignored;
        while (next_token(&at, end, &start, &ignored)) {
            hashes[total] = hash_of(start, at);
            starts[total] = (uint32_t)(start - first);
            stops[total++] = (uint32_t)(at - first);
        }
        ends[d] = total;
    }
}

/* Winnowing (Schleimer, Wilkerson and Aiken 2003): of each `width` values in a row of one document the least, the last
 * of equals, is chosen; documents with fewer values choose none. */
void wuxing_winnow(const uint64_t *values, const int64_t *ends, int64_t documents, int64_t width, uint8_t *chosen)
{
    int64_t first = 0;
    for (int64_t d = 0; d < documents; first = ends[d++]) {
        int64_t least = -1;
        for (int64_t i = first; i < ends[d]; i++) {
            chosen[i] = 0;
            if (least < 0 || values[i] <= values[least]) {
                least = i;
            } else if (i - least >= width) {
                least = i - width + 1;
                for (int64_t j = least + 1; j <= i; j++)
                    if (values[j] <= values[least])
                        least = j;
            }
            if (i - first >= width - 1)
                chosen[least] = 1;
        }
    }
}
