/* Quality counts of documents in Arrow string buffers.  Their slow truth is wuxing/text/statistics.py. */

#include <string.h>

#include "classes.h"

/* The words that hardly any text of a language does without: open addressing, key 0 is empty. */
typedef struct { const uint64_t *keys; const uint8_t *bits; uint64_t mask; int64_t longest; } stop_words;

static inline uint64_t stop_bit(const stop_words *stops, uint64_t hash, int language)
{
    uint64_t key = hash ^ (uint64_t)(language + 1) * ODD;
    for (uint64_t i = key & stops->mask; stops->keys[i]; i = (i + 1) & stops->mask)
        if (stops->keys[i] == key)
            return (uint64_t)1 << stops->bits[i];
    return 0;
}

static inline int is_bullet(uint32_t point)
{
    return point == '*' || point == '-' || point == 0xB7 || point == 0x2022 || point == 0x2023 || point == 0x25CF ||
           point == 0x25E6 || point == 0x2043;
}

/* In the order of statistics.QUALITY. */
typedef struct {
    int64_t characters, words, word_characters, alone, letter_words, symbols, stop_words, lines, bullet_lines,
        ellipsis_lines, ended_lines, short_lines, line_characters, newlines;
} quality;

typedef struct { int64_t first, last, alone; uint32_t opening, closing; int dots, after_dot; } line;

static void end_line(quality *q, line *l, const uint8_t *classes, int64_t short_line)
{
    if (l->first >= 0) {
        int64_t length = l->last - l->first + 1;
        q->lines++;
        q->line_characters += length;
        q->bullet_lines += is_bullet(l->opening);
        q->ellipsis_lines += l->closing == 0x2026 || l->dots >= 3;
        q->ended_lines += (classes[l->closing] & END) != 0;
        q->short_lines += length + 2 * l->alone <= short_line;
    }
    memset(l, 0, sizeof *l);
    l->first = -1;
}

static void count_quality(const unsigned char *p, const unsigned char *end, const uint8_t *classes,
                          const stop_words *stops, int language, int64_t short_line, quality *q)
{
    enum { OUTSIDE, RUN, TAIL } state = OUTSIDE;
    int letter = 0, dots = 0, open = 0, list = language < 0 ? 0 : language;
    uint64_t hash = EMPTY_TOKEN, found = 0;
    line l = {.first = -1};
    memset(q, 0, sizeof *q);
    while (p < end) {
        int64_t run = plain_run(p, end);
        if (run) {
            if (state != RUN) {
                q->letter_words += letter;
                letter = 0;
                q->words++;
                state = RUN;
            }
            for (int64_t i = 0; i < run && !letter; i++)
                letter = p[i] > '9';
            if (run <= stops->longest)
                for (int64_t i = 0; i < run; i++)
                    hash = add_byte(hash, p[i]);
            else
                hash = 1; /* no stop word is so long */
            open = 1;
            if (l.first < 0)
                l.first = q->characters, l.opening = *p;
            q->word_characters += run, q->characters += run;
            l.last = q->characters - 1, l.closing = p[run - 1];
            l.dots = l.after_dot = dots = 0;
            p += run;
            continue;
        }
        int length = length_of(*p);
        if (end - p < length)
            break;
        uint32_t point = length == 1 ? *p : point_at(p, length);
        int c = classes[point];
        /* words */
        if (c & ALONE) {
            q->letter_words += letter;
            letter = (c & LETTER) != 0;
            q->words++, q->word_characters++, q->alone++;
            state = TAIL;
        } else if (c & SPACE) {
            state = OUTSIDE;
        } else if (state == TAIL && c & SIGN) {
            q->word_characters++;
            letter |= (c & LETTER) != 0;
        } else {
            if (state != RUN) {
                q->letter_words += letter;
                letter = 0;
                q->words++;
                state = RUN;
            }
            q->word_characters++;
            letter |= (c & LETTER) != 0;
        }
        /* tokens, for stop words */
        if (c & (ALONE | SEPARATOR)) {
            if (open)
                found |= stop_bit(stops, hash, list);
            open = 0, hash = EMPTY_TOKEN;
        }
        if (!(c & SEPARATOR)) {
            for (int i = 0; i < length; i++)
                hash = add_byte(hash, p[i]);
            open = 1;
            if (c & ALONE) {
                found |= stop_bit(stops, hash, list);
                open = 0, hash = EMPTY_TOKEN;
            }
        }
        /* symbols */
        dots = point == '.' ? dots + 1 : 0;
        q->symbols += point == '#' || point == 0x2026 || dots == 3;
        dots = dots == 3 ? 0 : dots;
        /* lines */
        if (point == '\n') {
            q->newlines++;
            end_line(q, &l, classes, short_line);
        } else if (!(c & SPACE)) {
            if (l.first < 0)
                l.first = q->characters, l.opening = point;
            l.last = q->characters, l.closing = point;
            l.dots = point != '.' ? 0 : l.after_dot ? l.dots + 1 : 1;
            l.alone += (c & ALONE) != 0;
        }
        l.after_dot = point == '.';
        q->characters++;
        p += length;
    }
    if (open)
        found |= stop_bit(stops, hash, list);
    q->letter_words += letter;
    end_line(q, &l, classes, short_line);
    for (; found; found &= found - 1)
        q->stop_words++;
    if (language == -2 || (language == -1 && 2 * q->alone < q->words))
        q->stop_words = -1;
}

/* languages: a number of a list of stop words; -1: unknown, list 0 if the script has no spaces; -2: has no list. */
void wuxing_quality(const unsigned char *text, const int64_t *offsets, int64_t documents, const uint8_t *classes,
                    const uint64_t *keys, const uint8_t *bits, int64_t slots, int64_t longest, const int32_t *languages,
                    int64_t short_line, int64_t *out)
{
    stop_words stops = {keys, bits, (uint64_t)slots - 1, longest};
    for (int64_t d = 0; d < documents; d++)
        count_quality(text + offsets[d], text + offsets[d + 1], classes, &stops, languages[d], short_line,
                      (quality *)(out + d * (int64_t)(sizeof(quality) / sizeof(int64_t))));
}
