/* Repetition counts of documents in Arrow string buffers.  Their slow truth is wuxing/text/statistics.py.
 *
 * Lines and tokens are told apart by 64-bit hashes: among the 2^20 that are judged of one document two different ones
 * share a hash with probability below 2^-24; runs of tokens are then told apart exactly, by the numbers of their parts. */

#include <stdlib.h>
#include <string.h>

#include "classes.h"

/* Numbers things by their key, in the order of their first appearance; `open_table` forgets all of them at once. */
typedef struct { uint64_t key; uint32_t epoch, number; } entry;
typedef struct { entry *entries; uint32_t epoch, used; int shift; uint64_t mask; } table;

static void open_table(table *t, int64_t expected)
{
    int bits = 4;
    while ((int64_t)1 << bits < 2 * expected)
        bits++;
    t->epoch++, t->used = 0, t->shift = 64 - bits, t->mask = ((uint64_t)1 << bits) - 1;
}

static inline uint32_t number_of(table *t, uint64_t key)
{
    uint64_t i = ((key ^ key >> 32) * ODD) >> t->shift;
    for (; t->entries[i].epoch == t->epoch; i = (i + 1) & t->mask)
        if (t->entries[i].key == key)
            return t->entries[i].number;
    t->entries[i] = (entry){key, t->epoch, t->used};
    return t->used++;
}

/* In the order of statistics.REPETITION; top[w - 2], repeated[w - 5] for runs of w tokens. */
typedef struct {
    int64_t lines, duplicate_lines, line_characters, duplicate_line_characters, paragraphs, duplicate_paragraphs,
        duplicate_paragraph_characters, tokens, token_characters, top[3], repeated[6];
} repetition;

typedef struct { uint64_t *keys; uint32_t *ends, *numbers, *places, *counts; table table; } scratch;

static uint64_t hash_of(const unsigned char *at, int64_t length)
{
    uint64_t h = (uint64_t)length * ODD, word;
    for (; length >= 8; at += 8, length -= 8) {
        memcpy(&word, at, 8);
        h = (h ^ word) * ODD;
        h ^= h >> 29;
    }
    word = 0;
    memcpy(&word, at, (size_t)length);
    h = (h ^ word) * ODD;
    return h ^ h >> 32;
}

/* A line without the space around it, in place; returns its length in code points. */
static int64_t strip(const unsigned char **from, const unsigned char **to, const uint8_t *classes)
{
    const unsigned char *p = *from, *end = *to;
    while (p < end && classes[point_at(p, length_of(*p))] & SPACE)
        p += length_of(*p);
    while (end > p) {
        const unsigned char *last = end - 1;
        while (last > p && (*last & 0xC0) == 0x80)
            last--;
        if (!(classes[point_at(last, length_of(*last))] & SPACE))
            break;
        end = last;
    }
    int64_t count = 0;
    for (const unsigned char *at = p; at < end; at++)
        count += (*at & 0xC0) != 0x80;
    *from = p, *to = end;
    return count;
}

static void count_paragraph(repetition *r, table *t, uint64_t *hash, int64_t *characters)
{
    if (!*characters)
        return;
    r->paragraphs++;
    uint32_t before = t->used;
    if (number_of(t, *hash) < before) {
        r->duplicate_paragraphs++;
        r->duplicate_paragraph_characters += *characters;
    }
    *hash = 1, *characters = 0;
}

/* Lines, and paragraphs: lines without an empty one between them.  One table for both: their hashes never meet. */
static void count_lines(const unsigned char *p, const unsigned char *end, const uint8_t *classes, int64_t most,
                        repetition *r, scratch *s)
{
    uint64_t paragraph = 1;
    int64_t characters = 0, expected = 1;
    for (const unsigned char *at = p; (at = memchr(at, '\n', (size_t)(end - at))) && expected < most; at++)
        expected++;
    open_table(&s->table, 2 * expected + 2);
    while (p < end && r->lines < most) {
        const unsigned char *newline = memchr(p, '\n', (size_t)(end - p)), *from = p, *to = newline ? newline : end;
        p = newline ? newline + 1 : end;
        int64_t length = strip(&from, &to, classes);
        if (!length) {
            count_paragraph(r, &s->table, &paragraph, &characters);
            continue;
        }
        uint64_t hash = hash_of(from, to - from);
        uint32_t before = s->table.used;
        r->lines++;
        r->line_characters += length;
        if (number_of(&s->table, hash) < before) {
            r->duplicate_lines++;
            r->duplicate_line_characters += length;
        }
        paragraph = (paragraph ^ hash) * ODD;
        paragraph ^= paragraph >> 29;
        characters += length;
    }
    count_paragraph(r, &s->table, &paragraph, &characters);
}

/* ASCII letters and digits into a token's hash, lower-cased, eight at a time. */
static inline uint64_t add_plain(uint64_t hash, const unsigned char *p, int64_t length)
{
    const uint64_t small = 0x2020202020202020u;
    uint64_t word;
    for (; length > 8; p += 8, length -= 8) {
        memcpy(&word, p, 8);
        hash = (hash ^ (word | small)) * ODD;
        hash ^= hash >> 29;
    }
    word = 0;
    for (int64_t i = 0; i < length; i++)
        word = word << 8 | p[i];
    hash = (hash ^ (word | small) ^ (uint64_t)length << 60) * ODD;
    return hash ^ hash >> 29;
}

static uint32_t read_tokens(const unsigned char *p, const unsigned char *end, const uint8_t *classes, int64_t most,
                            scratch *s)
{
    uint32_t tokens = 0, characters = 0;
    uint64_t hash = EMPTY_TOKEN;
    int open = 0;
    while (p < end && tokens < most) {
        int64_t run = plain_run(p, end);
        if (run) {
            hash = add_plain(hash, p, run);
            characters += (uint32_t)run, open = 1, p += run;
            continue;
        }
        int length = length_of(*p);
        if (end - p < length)
            break;
        int c = classes[length == 1 ? *p : point_at(p, length)];
        if (c & (ALONE | SEPARATOR) && open) {
            s->keys[tokens] = hash, s->ends[tokens++] = characters;
            open = 0, hash = EMPTY_TOKEN;
            continue;
        }
        if (!(c & SEPARATOR)) {
            for (int i = 0; i < length; i++)
                hash = add_byte(hash, p[i]);
            characters++;
            open = 1;
            if (c & ALONE) {
                s->keys[tokens] = hash, s->ends[tokens++] = characters;
                open = 0, hash = EMPTY_TOKEN;
            }
        }
        p += length;
    }
    if (open && tokens < most)
        s->keys[tokens] = hash, s->ends[tokens++] = characters;
    return tokens;
}

static inline int64_t characters_of(const scratch *s, uint32_t place, uint32_t width)
{
    return (int64_t)s->ends[place + width - 1] - (place ? s->ends[place - 1] : 0);
}

/* The runs of `width` tokens that begin at `places`; leaves the places of those that occur more than once.  A run is
 * known by the numbers of the runs of width - 1 at its place and the next: both must occur more than once as well. */
static uint32_t count_runs(scratch *s, uint32_t count, uint32_t width, repetition *r)
{
    uint32_t left = 0, most = 0, covered_to = 0;
    int64_t covered = 0, longest = 0;
    open_table(&s->table, count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t place = s->places[i];
        uint64_t key = s->keys[place];
        if (width > 1) {
            if (i + 1 == count || s->places[i + 1] != place + 1)
                continue;
            key = (uint64_t)s->numbers[place] << 32 | s->numbers[place + 1];
        }
        uint32_t before = s->table.used, number = number_of(&s->table, key);
        s->numbers[place] = number;
        s->places[left++] = place;
        if (number == before)
            s->counts[number] = 0;
        else if (width >= 5) {
            uint32_t from = place > covered_to ? place : covered_to;
            covered += characters_of(s, from, place + width - from);
            covered_to = place + width;
        }
        s->counts[number]++;
        most = s->counts[number] > most ? s->counts[number] : most;
    }
    count = left, left = 0;
    for (uint32_t i = 0; i < count && most > 1; i++) {
        uint32_t place = s->places[i], times = s->counts[s->numbers[place]];
        if (times == most && width >= 2 && width <= 4) {
            int64_t characters = characters_of(s, place, width);
            longest = characters > longest ? characters : longest;
        }
        if (times > 1)
            s->places[left++] = place;
    }
    if (width >= 2 && width <= 4)
        r->top[width - 2] = most * longest;
    if (width >= 5)
        r->repeated[width - 5] = covered;
    return left;
}

static int make_scratch(scratch *s, int64_t longest, int64_t most)
{
    size_t count = (size_t)(longest < most ? longest : most) + 2, slots = 16;
    while (slots < 4 * count)
        slots *= 2;
    s->keys = malloc(count * sizeof *s->keys);
    s->ends = malloc(count * sizeof *s->ends);
    s->numbers = malloc(count * sizeof *s->numbers);
    s->places = malloc(count * sizeof *s->places);
    s->counts = malloc(count * sizeof *s->counts);
    s->table = (table){.entries = calloc(slots, sizeof(entry))};
    return s->keys && s->ends && s->numbers && s->places && s->counts && s->table.entries;
}

/* Of each document the first `most` lines and the first `most` tokens are judged.  Returns 0 when memory is short. */
int wuxing_repetition(const unsigned char *text, const int64_t *offsets, int64_t documents, const uint8_t *classes,
                      int64_t most, int runs, int64_t *out)
{
    scratch s;
    int64_t longest = 0;
    for (int64_t d = 0; d < documents; d++)
        longest = offsets[d + 1] - offsets[d] > longest ? offsets[d + 1] - offsets[d] : longest;
    int made = make_scratch(&s, longest, most);
    for (int64_t d = 0; d < documents && made; d++) {
        const unsigned char *from = text + offsets[d], *to = text + offsets[d + 1];
        repetition *r = (repetition *)(out + d * (int64_t)(sizeof(repetition) / sizeof(int64_t)));
        memset(r, 0, sizeof *r);
        count_lines(from, to, classes, most, r, &s);
        uint32_t count = read_tokens(from, to, classes, runs ? most : 0, &s);
        r->tokens = count;
        r->token_characters = count ? s.ends[count - 1] : 0;
        for (uint32_t i = 0; i < count; i++)
            s.places[i] = i;
        for (uint32_t width = 1; width <= 10 && count; width++)
            count = count_runs(&s, count, width, r);
    }
    free(s.keys), free(s.ends), free(s.numbers), free(s.places), free(s.counts), free(s.table.entries);
    return made;
}
