/* Quick passes over Arrow string buffers: texts in normal form, and marks of what single texts may hold.
 *
 * What they promise is checked against the Python steps: a text that `wuxing_normalise` writes is what the step makes of
 * it, and a text without a mark has nothing for the step that asks for it.  See wuxing/text/scan.py. */

#include <string.h>

#include "utf8.h"

/* Classes of code points for normal form; from FIRST_MARK on: combining marks by rising combining class. */
enum { PLAIN, BLANK, NEWLINE, RETURN, INVISIBLE, ODD_SPACE, LOOK, FIRST_MARK = 8 };
enum { SAME = 0, CHANGED = 1, UNKNOWN = 2 };

#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
/* Copies eight printable ASCII characters; returns how many of them reach up to the last that is no space, or -1. */
static inline int copy_eight(const unsigned char *from, unsigned char *to)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t x;
    memcpy(&x, from, 8);
    if (((x - 0x20 * ones) | x | (x + ones)) & 0x80 * ones)
        return -1;
    memcpy(to, &x, 8);
    x ^= 0x20 * ones;
    return x ? 8 - __builtin_clzll(x) / 8 : 0;
}
#else
static inline int copy_eight(const unsigned char *from, unsigned char *to)
{
    (void)from, (void)to;
    return -1;
}
#endif

/* Writes one text in normal form into `out`, which has room for it and eight bytes more; returns its end, or NULL where
 * only Unicode's full algorithm can tell. */
static unsigned char *normal_form(const unsigned char *p, const unsigned char *end, const uint8_t *classes,
                                  int max_newlines, unsigned char *out)
{
    unsigned char *start = out, *solid = out, *last = out; /* behind the last character; newline not counted in last */
    int newlines = 0, mark = 0;
    while (p < end) {
        if (last > start && end - p >= 8) {
            int kept = copy_eight(p, out);
            if (kept >= 0) {
                if (kept) {
                    solid = last = out + kept;
                    newlines = 0;
                }
                out += 8, p += 8, mark = 0;
                continue;
            }
        }
        int length = length_of(*p);
        if (end - p < length)
            return NULL;
        int class = classes[length == 1 ? *p : point_at(p, length)];
        const unsigned char *next = p + length;
        if (class >= FIRST_MARK) {
            if (class < mark)
                return NULL;
            mark = class;
            class = PLAIN;
        } else if (class != INVISIBLE) {
            mark = 0;
        }
        switch (class) {
        case PLAIN:
            for (int i = 0; i < length; i++)
                *out++ = p[i];
            solid = last = out;
            newlines = 0;
            break;
        case ODD_SPACE:
            if (last > start)
                *out++ = ' ';
            break;
        case BLANK:
            for (int i = 0; i < length && last > start; i++)
                *out++ = p[i];
            break;
        case RETURN:
            next += next < end && *next == '\n';
            /* fall through */
        case NEWLINE:
            out = solid;
            if (last > start && newlines < max_newlines) {
                *out++ = '\n';
                newlines++;
                solid = out;
            }
            break;
        case INVISIBLE:
            break;
        default:
            return NULL;
        }
        p = next;
    }
    return last;
}

/* The texts in normal form, one after the other, in `out` (eight bytes longer than the texts), and where each ends.
 * A text of status UNKNOWN is written as it was. */
void wuxing_normalise(const unsigned char *text, const int64_t *offsets, int64_t documents, const uint8_t *classes,
                      int max_newlines, unsigned char *out, int64_t *ends, uint8_t *status)
{
    unsigned char *at = out;
    for (int64_t d = 0; d < documents; d++) {
        const unsigned char *from = text + offsets[d], *to = text + offsets[d + 1];
        unsigned char *end = normal_form(from, to, classes, max_newlines, at);
        if (!end) {
            memcpy(at, from, (size_t)(to - from));
            end = at + (to - from);
            status[d] = UNKNOWN;
        } else {
            status[d] = end - at == to - from && !memcmp(at, from, (size_t)(to - from)) ? SAME : CHANGED;
        }
        at = end;
        ends[d] = at - out;
    }
}

/* In the order of scan.MARKS. */
enum {
    MOJIBAKE = 1, KEY = 2, MAIL = 4, ID_CN = 8, IBAN = 16, CARD = 32, IP = 64, IPV6 = 128, SSN_US = 256, PLATE_CN = 512,
    PHONE = 1024, PHONE_CN = 2048, PHONE_US = 4096
};

static inline int digit(unsigned char b) { return b >= '0' && b <= '9'; }
static inline int upper(unsigned char b) { return b >= 'A' && b <= 'Z'; }
static inline int letter(unsigned char b) { return upper(b & 0xDF); }
static inline int hexadecimal(unsigned char b) { return digit(b) || ((b | 0x20) >= 'a' && (b | 0x20) <= 'f'); }
static inline int gap(unsigned char b) { return b == ' ' || b == '.' || b == '(' || b == ')' || b == '-'; }

static int before(const unsigned char *start, const unsigned char *p, const char *word)
{
    size_t length = strlen(word);
    return (size_t)(p - start) >= length && !memcmp(p - length, word, length);
}

static int after(const unsigned char *p, const unsigned char *end, const char *word)
{
    size_t length = strlen(word);
    return (size_t)(end - p) >= length && !memcmp(p, word, length);
}

/* A UTF-8 lead byte read as a character (U+00C2 to U+00F4), then a character that a continuation byte is read as. */
static int mark_mojibake(const unsigned char *p, const unsigned char *end)
{
    if (end - p < 4 || p[1] < 0x82 || p[1] > 0xB4)
        return 0;
    return p[2] == 0xC2 || p[2] == 0xC5 || p[2] == 0xC6 || p[2] == 0xCB || p[2] == 0xE2 ? MOJIBAKE : 0;
}

static int mark_mail(const unsigned char *start, const unsigned char *p, const unsigned char *end)
{
    if (p == start || end - p < 2)
        return 0;
    unsigned char b = p[-1], a = p[1];
    int local = b >= 0x80 || letter(b) || digit(b) || (b && strchr("_.+%'-", b));
    return local && (a >= 0x80 || letter(a) || digit(a)) ? MAIL : 0;
}

/* A group of digits and what stands before it: the sign, 0 where there is none or more than one. */
typedef struct { int64_t length; unsigned char first, sign; } group;

/* What the last of the groups makes possible, with up to three before it. */
static int mark_group(const group *g, int count)
{
    int marks = g[0].length >= 17 ? ID_CN | CARD : g[0].length >= 13 ? CARD : 0;
    int64_t digits = 0;
    for (int i = 0; i < count; i++) { /* a Chinese mobile number: 86 138 1234 5678 with single signs or none */
        digits += g[i].length;
        if ((digits == 11 && g[i].first == '1') || (digits == 13 && g[i].first == '8'))
            marks |= PHONE_CN;
        if (g[i].sign != ' ' && g[i].sign != '-')
            break;
    }
    if (count >= 2 && g[0].length >= 7 && g[0].sign == '-' && g[1].first == '0')
        marks |= PHONE_CN;
    if (count >= 3 && g[2].length == 3 && g[1].length == 2 && g[0].length == 4)
        marks |= SSN_US;
    if (count >= 3 && g[2].length == 3 && g[1].length == 3 && g[0].length == 4)
        marks |= PHONE_US;
    if (count >= 3 && g[2].length == 4 && g[1].length == 6 && g[0].length == 5)
        marks |= CARD;
    if (count >= 4 && g[3].length == 4 && g[2].length == 4 && g[1].length == 4)
        marks |= CARD;
    if (count >= 4 && g[0].sign == '.' && g[1].sign == '.' && g[2].sign == '.')
        marks |= IP;
    return marks;
}

/* Whether 13 or more capital letters and digits follow, with single spaces between them at most. */
static int is_account(const unsigned char *p, const unsigned char *end)
{
    int count = 0;
    for (; p < end && count < 13 && (digit(*p) || upper(*p) || *p == ' '); p++)
        count += *p != ' ';
    return count == 13;
}

/* Groups of digits with at most three signs or spaces between them, from the first on; *next moves behind them. */
static int mark_digits(const unsigned char *start, const unsigned char *p, const unsigned char *end,
                       const unsigned char **next)
{
    const unsigned char *first = p;
    int64_t digits = 0;
    int marks = 0, count = 0;
    group last[4] = {{0, 0, 0}};
    for (;;) {
        const unsigned char *from = p;
        while (p < end && digit(*p))
            p++;
        memmove(last + 1, last, 3 * sizeof *last);
        last[0].length = p - from, last[0].first = *from;
        last[0].sign = from - first >= 2 && digit(from[-2]) ? from[-1] : 0;
        count += count < 4;
        digits += p - from;
        marks |= mark_group(last, count);
        *next = p;
        for (from = p; p < end && p - from <= 3 && gap(*p);)
            p++;
        if (p == end || !digit(*p))
            break;
    }
    if (digits >= 8 && first > start && first[-1] == '+')
        marks |= PHONE;
    if (first - start >= 2 && upper(first[-1]) && upper(first[-2]) && is_account(first, end))
        marks |= IBAN;
    return marks;
}

/* An IPv6 address of eight groups has seven colons, a shorter one two colons in a row.  *behind: where the run ends. */
static int mark_colons(const unsigned char *p, const unsigned char *end, const unsigned char **behind)
{
    int colons = 0, doubled = 0;
    const unsigned char *from = p;
    for (; p < end && (*p == ':' || hexadecimal(*p)); p++) {
        colons += *p == ':';
        doubled |= *p == ':' && p > from && p[-1] == ':';
    }
    *behind = p;
    return doubled || colons >= 7 ? IPV6 : 0;
}

/* A car's plate: a character of its province, a letter, then five or six letters and digits. */
static int mark_plate(const unsigned char *p, const unsigned char *end)
{
    p++;
    if (after(p, end, "\xC2\xB7"))
        p += 2;
    else if (after(p, end, "\xE2\x80\xA2"))
        p += 3;
    int count = 0;
    while (p + count < end && (upper(p[count]) || digit(p[count])) && count < 5)
        count++;
    return count == 5 ? PLATE_CN : 0;
}

static int mark_key(const unsigned char *start, const unsigned char *p, const unsigned char *end)
{
    switch (*p) {
    case 'A': return after(p, end, "AKIA") || after(p, end, "ASIA") || after(p, end, "AIza") ? KEY : 0;
    case '.': return after(p, end, ".eyJ") ? KEY : 0;
    case '-':
        if (after(p, end, "-BEGIN ") || (p > start && before(start, p - 1, "xox")))
            return KEY;
        return p - start >= 2 && p[-1] == 'k' && (p[-2] == 's' || p[-2] == 'p' || p[-2] == 'r') ? KEY : 0;
    default: /* _ */
        if (p - start < 2)
            return 0;
        return (p[-1] == 'k' && (p[-2] == 's' || p[-2] == 'p' || p[-2] == 'r')) || before(start, p, "hf") ||
               before(start, p, "github_pat") || (p - start >= 3 && before(start, p - 1, "gh"))
            ? KEY : 0;
    }
}

/* For each text which of the marks it has; bytes that begin no mark are 0 in `interesting`. */
void wuxing_marks(const unsigned char *text, const int64_t *offsets, int64_t documents, const uint8_t *interesting,
                  uint32_t *marks)
{
    for (int64_t d = 0; d < documents; d++) {
        const unsigned char *start = text + offsets[d], *end = text + offsets[d + 1], *next;
        const unsigned char *colons = start;
        uint32_t found = 0;
        for (const unsigned char *p = start; p < end; p = next) {
            next = p + 1;
            if (!interesting[*p])
                continue;
            if (digit(*p))
                found |= (uint32_t)mark_digits(start, p, end, &next);
            else if (*p == 0xC3)
                found |= (uint32_t)mark_mojibake(p, end);
            else if (*p == '@')
                found |= (uint32_t)mark_mail(start, p, end);
            else if (*p == ':')
                found |= p < colons ? 0 : (uint32_t)mark_colons(p, end, &colons);
            else {
                if (upper(*p) && p > start && p[-1] >= 0x80)
                    found |= (uint32_t)mark_plate(p, end);
                if (!upper(*p) || *p == 'A')
                    found |= (uint32_t)mark_key(start, p, end);
            }
        }
        marks[d] = found;
    }
}
