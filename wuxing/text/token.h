/* Tokens of UTF-8: one character of a script written without spaces, or a run of other letters and digits, ASCII
 * lower-cased.  Their slow truth is wuxing/text/shingle.py. */

#ifndef WUXING_TOKEN_H
#define WUXING_TOKEN_H

#include "utf8.h"

enum { SEPARATOR = 0, LETTER = 1, ALONE = 2 };

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

/* One token's first byte and its hash; *at moves behind it.  Returns 0 at the end of the document. */
static int next_token(const unsigned char **at, const unsigned char *end, const unsigned char **start, uint32_t *hash)
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
                *start = open ? *start : p;
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
        if (kind != SEPARATOR) {
            *start = open ? *start : p;
            for (int i = 0; i < length; i++)
                h = add_byte(h, p[i]);
        }
        p += length;
        open = open || kind != SEPARATOR;
        if (kind == ALONE)
            break;
    }
    *at = open ? p : end;
    *hash = h;
    return open;
}

#endif
