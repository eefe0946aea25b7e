/* C4's filter of lines over Arrow string buffers.  Its slow truth is wuxing/text/c4.py.
 *
 * `classes` is the table of statistics.py: one byte of bits per code point. */

#include <string.h>

#include "utf8.h"

enum { SPACE = 1, ALONE = 4, SIGN = 8, CLOSING = 64, STOP = 128 };

/* Phrases, ASCII letters lower-cased, one after the other in `text`; `first` marks the bytes they begin with. */
typedef struct { const unsigned char *text; const int64_t *offsets; int count; unsigned char first[256]; } phrases;

typedef struct { int64_t min_words, max_word; int terminal; phrases of_line, of_document; } rules;

static inline unsigned char lower(unsigned char byte)
{
    return byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte;
}

static void open_phrases(phrases *p, const unsigned char *text, const int64_t *offsets, int count)
{
    p->text = text, p->offsets = offsets, p->count = count;
    memset(p->first, 0, sizeof p->first);
    for (int i = 0; i < count; i++)
        p->first[text[offsets[i]]] = 1;
}

static int holds(const phrases *p, const unsigned char *from, const unsigned char *to)
{
    for (const unsigned char *at = from; at < to; at++) {
        if (!p->first[lower(*at)])
            continue;
        for (int i = 0; i < p->count; i++) {
            const unsigned char *phrase = p->text + p->offsets[i];
            int64_t length = p->offsets[i + 1] - p->offsets[i], same = 0;
            if (to - at < length)
                continue;
            while (same < length && lower(at[same]) == phrase[same])
                same++;
            if (same == length)
                return 1;
        }
    }
    return 0;
}

static int is_quotation_mark(uint32_t point)
{
    return point == '"' || point == '\'' || point == 0x2019 || point == 0x201D || point == 0xBB || point == 0x203A ||
           point == 0x300B || point == 0x300D || point == 0x300F;
}

typedef struct { const unsigned char *from, *to; int64_t words, longest, sentences; uint32_t closing; int dots; } line;

/* Reads the line at `p` up to its end, without the space around it; returns where the next one begins. */
static const unsigned char *read_line(const unsigned char *p, const unsigned char *end, const uint8_t *classes, line *l)
{
    enum { OUTSIDE, RUN, TAIL } state = OUTSIDE;
    int stop = 0, wide = 0;
    int64_t word = 0;
    memset(l, 0, sizeof *l);
    for (; p < end && *p != '\n';) {
        int length = length_of(*p);
        if (end - p < length)
            return end;
        uint32_t point = length == 1 ? *p : point_at(p, length);
        int c = classes[point];
        if (c & ALONE || (!(c & SPACE) && state != RUN && !(state == TAIL && c & SIGN))) {
            l->words++;
            word = 0;
            state = c & ALONE ? TAIL : RUN;
        } else if (c & SPACE) {
            state = OUTSIDE;
        }
        word += state != OUTSIDE;
        l->longest = word > l->longest ? word : l->longest;
        /* a sentence ends at signs that close nothing else, or at any sign of a script without spaces */
        if (stop && !(c & CLOSING) && !(stop == 1 && c & STOP)) {
            l->sentences += wide || c & SPACE;
            stop = wide = 0;
        }
        if (c & STOP) {
            stop = 1;
            wide |= point >= 0x80 && point != 0x2026;
        } else if (stop && c & CLOSING) {
            stop = 2;
        }
        if (!(c & SPACE)) {
            l->from = l->from ? l->from : p;
            l->dots = point != '.' ? 0 : l->to == p ? l->dots + 1 : 1;
            l->to = p + length;
            l->closing = point;
        }
        p += length;
    }
    l->sentences += stop != 0;
    return p < end ? p + 1 : end;
}

static int is_kept(const line *l, const rules *r, const uint8_t *classes)
{
    if (l->words < r->min_words || l->longest > r->max_word)
        return 0;
    int ended = l->from && ((classes[l->closing] & STOP && l->closing != 0x2026) || is_quotation_mark(l->closing));
    if (r->terminal && (!ended || l->dots >= 3))
        return 0;
    return !l->from || !holds(&r->of_line, l->from, l->to);
}

/* Writes the lines that stay, stripped, into `out`, which has the size of the text, and where each document ends.
 * sentences[d]: those of the lines that stay; removed[d]: lines that went; bad[d]: whether a phrase forbids it. */
void wuxing_c4(const unsigned char *text, const int64_t *offsets, int64_t documents, const uint8_t *classes,
               const unsigned char *line_text, const int64_t *line_offsets, int line_count,
               const unsigned char *document_text, const int64_t *document_offsets, int document_count,
               int64_t min_words, int64_t max_word, int terminal, unsigned char *out, int64_t *ends, int64_t *sentences,
               int64_t *removed, unsigned char *bad)
{
    rules r = {.min_words = min_words, .max_word = max_word, .terminal = terminal};
    int64_t written = 0;
    open_phrases(&r.of_line, line_text, line_offsets, line_count);
    open_phrases(&r.of_document, document_text, document_offsets, document_count);
    for (int64_t d = 0; d < documents; d++) {
        const unsigned char *p = text + offsets[d], *end = text + offsets[d + 1];
        int64_t first = written, kept = 0;
        sentences[d] = removed[d] = 0;
        bad[d] = (unsigned char)holds(&r.of_document, p, end);
        int more = 1;
        while (more) {
            line l;
            const unsigned char *next = read_line(p, end, classes, &l);
            more = next > p && next[-1] == '\n' && next > text + offsets[d];
            p = next;
            if (!is_kept(&l, &r, classes)) {
                removed[d] += l.from != 0;
                continue;
            }
            if (kept++)
                out[written++] = '\n';
            if (l.from) {
                memcpy(out + written, l.from, (size_t)(l.to - l.from));
                written += l.to - l.from;
            }
            sentences[d] += l.sentences;
        }
        ends[d] = written > first ? written : first;
    }
}
