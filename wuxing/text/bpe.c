/* Byte-level BPE over Arrow string buffers: splitting text into words, counting them, learning merges, encoding.
 * Its slow truths are wuxing/text/reference.py (encoding) and the trainer of the library `tokenizers` (learning).
 *
 * The input is valid UTF-8, as Arrow promises; a broken character is read as a sign, never past the end.
 * Functions that allocate return NULL or -1 when memory has run out. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define FAST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FAST
#endif

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)(address))
#endif

enum { SIGN = 0, LETTER = 1, NUMBER = 2, SPACE = 3, NEWLINE = 4 };
enum { CLASSES = 0x40000, SHORT = 64, CACHED = 64, WORD_BYTES = 1024 };
#define NONE UINT32_MAX

typedef uint8_t byte;

/* ------------------------------------------------------------------------------------------------ splitting */

/* classes[c]: what character c is; digits: how many digits make one word, 0 for any number. */
typedef struct { const byte *classes; int digits; } Rules;

static inline int read_character(const byte *text, int64_t left, uint32_t *character)
{
    byte first = text[0];
    if (first < 0x80) { *character = first; return 1; }
    if (first >= 0xF0 && left >= 4) {
        *character = (uint32_t)(first & 7) << 18 | (text[1] & 63) << 12 | (text[2] & 63) << 6 | (text[3] & 63);
        return 4;
    }
    if (first >= 0xE0 && first < 0xF0 && left >= 3) {
        *character = (uint32_t)(first & 15) << 12 | (text[1] & 63) << 6 | (text[2] & 63);
        return 3;
    }
    if (first >= 0xC0 && first < 0xE0 && left >= 2) { *character = (first & 31) << 6 | (text[1] & 63); return 2; }
    *character = 0xFFFD;
    return 1;
}

/* The class of the character at `at` and its size; NEWLINE + 1 behind the end, which is nothing of all that. */
static inline int class_at(const Rules *rules, const byte *text, int64_t at, int64_t end, int *size)
{
    uint32_t character;
    if (at >= end) { *size = 0; return NEWLINE + 1; }
    *size = read_character(text + at, end - at, &character);
    return character < CLASSES ? rules->classes[character] : SIGN;
}

static inline int64_t run_of(const Rules *rules, const byte *text, int64_t at, int64_t end, int wanted)
{
    int size;
    while (class_at(rules, text, at, end, &size) == wanted) at += size;
    return at;
}

/* 's 't 'm 'd 're 've 'll in either case, and with the long s (U+017F), whose capital is S: bytes, 0 for none. */
static int contraction(const byte *text, int64_t at, int64_t end)
{
    if (at + 1 >= end) return 0;
    byte one = text[at + 1] | 32, two = at + 2 < end ? text[at + 2] | 32 : 0;
    if (text[at + 1] < 0x80) {
        if (one == 's' || one == 't' || one == 'm' || one == 'd') return 2;
        if (at + 2 < end && text[at + 2] < 0x80 && (((one == 'r' || one == 'v') && two == 'e') || (one == 'l' && two == 'l')))
            return 3;
    }
    return text[at + 1] == 0xC5 && at + 2 < end && text[at + 2] == 0xBF ? 3 : 0;
}

/* \s*[\r\n]+ | \s+(?!\S) | \s+ from a run of space. */
static int64_t space_end(const Rules *rules, const byte *text, int64_t at, int64_t end)
{
    int size, class;
    int64_t here = at, last = at, line = 0;
    while ((class = class_at(rules, text, here, end, &size)) == SPACE || class == NEWLINE) {
        last = here;
        here += size;
        if (class == NEWLINE) line = here;
    }
    if (line) return line;
    return here == end || last == at ? here : last;
}

/* Where the word that begins at `at` ends:
 * (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N}{1,digits} | ?[^\s\p{L}\p{N}]+[\r\n]* | space */
static int64_t word_end(const Rules *rules, const byte *text, int64_t at, int64_t end)
{
    int size, next_size, bytes;
    if (text[at] == '\'' && (bytes = contraction(text, at, end))) return at + bytes;
    int class = class_at(rules, text, at, end, &size);
    if (class == LETTER) return run_of(rules, text, at + size, end, LETTER);
    if (class == NUMBER) {
        int64_t here = at + size;
        for (int n = 1; n != rules->digits && class_at(rules, text, here, end, &size) == NUMBER; n++) here += size;
        return here;
    }
    int next = class_at(rules, text, at + size, end, &next_size);
    if (class != NEWLINE && next == LETTER) return run_of(rules, text, at + size + next_size, end, LETTER);
    if (class == SIGN || (text[at] == ' ' && next == SIGN)) {
        int64_t here = run_of(rules, text, at + size, end, SIGN);
        return run_of(rules, text, here, end, NEWLINE);
    }
    return space_end(rules, text, at, end);
}

/* ------------------------------------------------------------------------------------------------ words → numbers */

static inline uint64_t hash_of(const byte *word, int64_t size)
{
    uint64_t hash = 0x9E3779B97F4A7C15u ^ (uint64_t)size, part;
    for (; size >= 8; size -= 8, word += 8) {
        memcpy(&part, word, 8);
        hash = (hash ^ part) * 0xBF58476D1CE4E5B9u;
        hash ^= hash >> 29;
    }
    part = 0;
    memcpy(&part, word, (size_t)size);
    hash = (hash ^ part) * 0x94D049BB133111EBu;
    return hash ^ hash >> 32;
}

typedef struct { uint64_t hash; int64_t at, value; uint32_t size, count; } Entry;

/* A hash table of byte strings; `value` belongs to whoever owns the table. */
typedef struct { Entry *slots; int64_t mask, used; byte *bytes; int64_t filled, room; } Words;

static int words_open(Words *table, int64_t slots, int64_t room)
{
    table->slots = calloc((size_t)slots, sizeof(Entry));
    table->bytes = malloc((size_t)room);
    table->mask = slots - 1;
    table->used = table->filled = 0;
    table->room = room;
    return table->slots && table->bytes;
}

static void words_close(Words *table) { free(table->slots); free(table->bytes); }

/* The slot of a word, or the empty slot (at == -1 or never used: size 0) where it belongs.  No word is empty. */
static inline Entry *words_find(const Words *table, const byte *word, uint32_t size, uint64_t hash)
{
    for (int64_t place = (int64_t)hash & table->mask;; place = (place + 1) & table->mask) {
        Entry *slot = table->slots + place;
        if (!slot->size) return slot;
        if (slot->hash == hash && slot->size == size && !memcmp(table->bytes + slot->at, word, size)) return slot;
    }
}

static int words_grow(Words *table)
{
    int64_t slots = (table->mask + 1) * 2;
    Entry *wide = calloc((size_t)slots, sizeof(Entry));
    if (!wide) return 0;
    for (int64_t old = 0; old <= table->mask; old++) {
        if (!table->slots[old].size) continue;
        int64_t place = (int64_t)table->slots[old].hash & (slots - 1);
        while (wide[place].size) place = (place + 1) & (slots - 1);
        wide[place] = table->slots[old];
    }
    free(table->slots);
    table->slots = wide;
    table->mask = slots - 1;
    return 1;
}

/* The slot of a word, made when it is new (value 0); NULL without memory. */
static Entry *words_put(Words *table, const byte *word, uint32_t size, uint64_t hash)
{
    Entry *slot = words_find(table, word, size, hash);
    if (slot->size) return slot;
    if (table->used * 2 > table->mask) {
        if (!words_grow(table)) return NULL;
        slot = words_find(table, word, size, hash);
    }
    if (table->filled + size > table->room) {
        int64_t room = table->room * 2 + size;
        byte *wide = realloc(table->bytes, (size_t)room);
        if (!wide) return NULL;
        table->bytes = wide;
        table->room = room;
    }
    memcpy(table->bytes + table->filled, word, size);
    *slot = (Entry){hash, table->filled, 0, size, 0};
    table->filled += size;
    table->used++;
    return slot;
}

/* ------------------------------------------------------------------------------------------------ encoding */

typedef struct { uint32_t left, right, rank, made; } Merge;

typedef struct {
    Rules rules;
    uint32_t byte_ids[256];
    Merge *merges; /* hash table by (left, right); rank NONE where empty */
    int64_t mask;
    Words whole; /* words that are ids as they stand, where the tokenizer asks for that (ignore_merges) */
    int has_whole;
} Model;

/* One thread's memory: words it has met, room for the long ones. */
typedef struct {
    const Model *model;
    Words seen; /* value: where the ids begin, count: how many */
    uint32_t *ids;
    int64_t filled;
    uint32_t *symbols, *before, *after;
    uint64_t *heap;
    int64_t room;
} Coder;

enum { SEEN = 1 << 17, SEEN_BYTES = 1 << 21, SEEN_IDS = 1 << 19 };

static inline uint64_t pair_hash(uint32_t left, uint32_t right)
{
    uint64_t hash = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 32;
}

static inline const Merge *merge_of(const Model *model, uint32_t left, uint32_t right)
{
    for (int64_t place = (int64_t)pair_hash(left, right) & model->mask;; place = (place + 1) & model->mask) {
        const Merge *found = model->merges + place;
        if ((found->left == left && found->right == right) || found->rank == NONE) return found;
    }
}

void bpe_model_close(Model *model)
{
    if (!model) return;
    free(model->merges);
    words_close(&model->whole);
    free(model);
}

/* pairs: left, right, made of each merge, by rank; whole: texts that are one id whatever the merges say. */
Model *bpe_model(const byte *classes, int digits, const uint32_t *byte_ids, const uint32_t *pairs, int64_t count,
                 const byte *whole, const int64_t *offsets, const uint32_t *whole_ids, int64_t wholes)
{
    Model *made = calloc(1, sizeof(Model));
    if (!made) return NULL;
    made->rules = (Rules){classes, digits};
    memcpy(made->byte_ids, byte_ids, sizeof made->byte_ids);
    int64_t slots = 1024;
    while (slots < count * 2 + 2) slots *= 2;
    made->mask = slots - 1;
    made->merges = malloc((size_t)slots * sizeof(Merge));
    made->has_whole = wholes > 0;
    if (!words_open(&made->whole, 1024, 1024) || !made->merges) { bpe_model_close(made); return NULL; }
    for (int64_t slot = 0; slot < slots; slot++) made->merges[slot] = (Merge){NONE, NONE, NONE, NONE};
    for (int64_t rank = 0; rank < count; rank++) {
        const uint32_t *pair = pairs + 3 * rank;
        Merge *slot = (Merge *)merge_of(made, pair[0], pair[1]);
        *slot = (Merge){pair[0], pair[1], (uint32_t)rank, pair[2]};
    }
    for (int64_t n = 0; n < wholes; n++) {
        const byte *word = whole + offsets[n];
        uint32_t size = (uint32_t)(offsets[n + 1] - offsets[n]);
        Entry *slot = size ? words_put(&made->whole, word, size, hash_of(word, size)) : NULL;
        if (size && !slot) { bpe_model_close(made); return NULL; }
        if (slot) slot->value = whole_ids[n];
    }
    return made;
}

void bpe_coder_close(Coder *coder)
{
    if (!coder) return;
    words_close(&coder->seen);
    free(coder->ids); free(coder->symbols); free(coder->before); free(coder->after); free(coder->heap);
    free(coder);
}

Coder *bpe_coder(const Model *model)
{
    Coder *made = calloc(1, sizeof(Coder));
    if (!made) return NULL;
    made->model = model;
    made->ids = malloc(SEEN_IDS * sizeof(uint32_t));
    if (!words_open(&made->seen, SEEN * 2, SEEN_BYTES) || !made->ids) { bpe_coder_close(made); return NULL; }
    return made;
}

/* A word of at most SHORT bytes: the lowest rank is searched anew after each merge. */
FAST static int encode_short(const Model *model, const byte *word, int size, uint32_t *out)
{
    uint32_t ranks[SHORT + 1], made[SHORT + 1];
    int n = size;
    for (int i = 0; i < n; i++) out[i] = model->byte_ids[word[i]];
    for (int i = 0; i < n - 1; i++) {
        const Merge *found = merge_of(model, out[i], out[i + 1]);
        ranks[i] = found->rank;
        made[i] = found->made;
    }
    while (n > 1) {
        uint32_t best = NONE;
        for (int i = 0; i < n - 1; i++) best = ranks[i] < best ? ranks[i] : best;
        if (best == NONE) break;
        int at = 0;
        while (ranks[at] != best) at++;
        out[at] = made[at];
        n--;
        for (int i = at + 1; i < n; i++) {
            out[i] = out[i + 1];
            ranks[i - 1] = ranks[i];
            made[i - 1] = made[i];
        }
        if (at > 0) {
            const Merge *found = merge_of(model, out[at - 1], out[at]);
            ranks[at - 1] = found->rank;
            made[at - 1] = found->made;
        }
        if (at < n - 1) {
            const Merge *found = merge_of(model, out[at], out[at + 1]);
            ranks[at] = found->rank;
            made[at] = found->made;
        }
    }
    return n;
}

static void heap_push(uint64_t *heap, int64_t *size, uint64_t value)
{
    int64_t at = (*size)++;
    for (; at && heap[(at - 1) / 2] > value; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    heap[at] = value;
}

static uint64_t heap_pop(uint64_t *heap, int64_t *size)
{
    uint64_t top = heap[0], value = heap[--*size];
    int64_t at = 0;
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= *size) break;
        if (child + 1 < *size && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= value) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = value;
    return top;
}

static int long_room(Coder *coder, int64_t size)
{
    if (size <= coder->room) return 1;
    free(coder->symbols); free(coder->before); free(coder->after); free(coder->heap);
    coder->symbols = malloc((size_t)size * 4);
    coder->before = malloc((size_t)size * 4);
    coder->after = malloc((size_t)size * 4);
    coder->heap = malloc((size_t)size * 3 * 8);
    coder->room = coder->symbols && coder->before && coder->after && coder->heap ? size : 0;
    return coder->room > 0;
}

/* A word of any size in n log n: a linked list of symbols and a heap of (rank, place).  -1 without memory. */
static int64_t encode_long(Coder *coder, const byte *word, int64_t size, uint32_t *out)
{
    const Model *model = coder->model;
    if (size >= NONE || !long_room(coder, size)) return -1;
    uint32_t *symbols = coder->symbols, *before = coder->before, *after = coder->after;
    int64_t waiting = 0;
    for (int64_t i = 0; i < size; i++) {
        symbols[i] = model->byte_ids[word[i]];
        before[i] = i ? (uint32_t)(i - 1) : NONE;
        after[i] = i + 1 < size ? (uint32_t)(i + 1) : NONE;
    }
    for (int64_t i = 0; i + 1 < size; i++) {
        uint32_t rank = merge_of(model, symbols[i], symbols[i + 1])->rank;
        if (rank != NONE) heap_push(coder->heap, &waiting, (uint64_t)rank << 32 | (uint64_t)i);
    }
    while (waiting) {
        uint64_t top = heap_pop(coder->heap, &waiting);
        uint32_t at = (uint32_t)top, next = symbols[at] == NONE ? NONE : after[at];
        if (next == NONE) continue;
        const Merge *found = merge_of(model, symbols[at], symbols[next]);
        if (found->rank != (uint32_t)(top >> 32)) continue;
        symbols[at] = found->made;
        symbols[next] = NONE;
        after[at] = after[next];
        if (after[at] != NONE) before[after[at]] = at;
        if (before[at] != NONE) {
            uint32_t rank = merge_of(model, symbols[before[at]], symbols[at])->rank;
            if (rank != NONE) heap_push(coder->heap, &waiting, (uint64_t)rank << 32 | before[at]);
        }
        if (after[at] != NONE) {
            uint32_t rank = merge_of(model, symbols[at], symbols[after[at]])->rank;
            if (rank != NONE) heap_push(coder->heap, &waiting, (uint64_t)rank << 32 | at);
        }
    }
    int64_t count = 0;
    for (uint32_t at = 0; at != NONE; at = after[at]) out[count++] = symbols[at];
    return count;
}

static int64_t encode_word(Coder *coder, const byte *word, int64_t size, uint32_t *out)
{
    const Model *model = coder->model;
    if (size == 1 && !model->has_whole) { out[0] = model->byte_ids[word[0]]; return 1; }
    uint64_t hash = hash_of(word, size);
    if (model->has_whole && size < WORD_BYTES) {
        const Entry *found = words_find(&model->whole, word, (uint32_t)size, hash);
        if (found->size) { out[0] = (uint32_t)found->value; return 1; }
    }
    if (size > CACHED) return encode_long(coder, word, size, out);
    Words *seen = &coder->seen;
    Entry *slot = words_find(seen, word, (uint32_t)size, hash);
    if (slot->size) {
        memcpy(out, coder->ids + slot->value, slot->count * sizeof(uint32_t));
        return slot->count;
    }
    int count = encode_short(model, word, (int)size, out);
    if (seen->used >= SEEN || seen->filled + size > SEEN_BYTES || coder->filled + count > SEEN_IDS) {
        memset(seen->slots, 0, (size_t)(seen->mask + 1) * sizeof(Entry));
        seen->used = seen->filled = coder->filled = 0;
    }
    slot = words_put(seen, word, (uint32_t)size, hash);
    if (!slot) return -1;
    slot->value = coder->filled;
    slot->count = (uint32_t)count;
    memcpy(coder->ids + coder->filled, out, (size_t)count * sizeof(uint32_t));
    coder->filled += count;
    return count;
}

/* Ids of all texts in a row (at most one per byte), and where each text's end.  -1 without memory. */
int64_t bpe_encode(Coder *coder, const byte *text, const int64_t *offsets, int64_t count, uint32_t *ids, int64_t *ends)
{
    int64_t made = 0;
    for (int64_t n = 0; n < count; n++) {
        for (int64_t at = offsets[n], end = offsets[n + 1]; at < end;) {
            int64_t stop = word_end(&coder->model->rules, text, at, end);
            int64_t new = encode_word(coder, text + at, stop - at, ids + made);
            if (new < 0) return -1;
            made += new;
            at = stop;
        }
        ends[n] = made;
    }
    return made;
}

/* ------------------------------------------------------------------------------------------------ counting words */

typedef struct { Rules rules; Words table; } Counter;

void bpe_counter_close(Counter *counter)
{
    if (!counter) return;
    words_close(&counter->table);
    free(counter);
}

Counter *bpe_counter(const byte *classes, int digits)
{
    Counter *made = calloc(1, sizeof(Counter));
    if (!made) return NULL;
    made->rules = (Rules){classes, digits};
    if (!words_open(&made->table, 1 << 16, 1 << 20)) { bpe_counter_close(made); return NULL; }
    return made;
}

int64_t bpe_words(const Counter *counter) { return counter->table.used; }

static int count_word(Counter *counter, const byte *word, int64_t size)
{
    Entry *slot = words_put(&counter->table, word, (uint32_t)size, hash_of(word, size));
    if (slot) slot->value++;
    return slot != NULL;
}

/* Count the words of some texts.  A word of more than WORD_BYTES is cut, between characters, into such pieces, and each
 * of them is split as if it were a text. */
int64_t bpe_count(Counter *counter, const byte *text, const int64_t *offsets, int64_t count)
{
    const Rules *rules = &counter->rules;
    for (int64_t n = 0; n < count; n++) {
        for (int64_t at = offsets[n], end = offsets[n + 1]; at < end;) {
            int64_t stop = word_end(rules, text, at, end);
            if (stop - at <= WORD_BYTES) {
                if (!count_word(counter, text + at, stop - at)) return -1;
                at = stop;
            }
            while (at < stop) {
                int64_t piece = stop - at > WORD_BYTES ? at + WORD_BYTES : stop;
                while (piece < stop && (text[piece] & 0xC0) == 0x80) piece--;
                for (int64_t part; at < piece; at = part) {
                    part = word_end(rules, text, at, piece);
                    if (!count_word(counter, text + at, part - at)) return -1;
                }
            }
        }
    }
    return counter->table.used;
}

/* Add the counts of another counter. */
int64_t bpe_add(Counter *counter, const Counter *from)
{
    const Words *other = &from->table;
    for (int64_t place = 0; place <= other->mask; place++) {
        const Entry *theirs = other->slots + place;
        if (!theirs->size) continue;
        Entry *slot = words_put(&counter->table, other->bytes + theirs->at, theirs->size, theirs->hash);
        if (!slot) return -1;
        slot->value += theirs->value;
    }
    return counter->table.used;
}

/* ------------------------------------------------------------------------------------------------ learning merges */

/* Greedy: always the pair with the most occurrences, of several the one of the lowest ids.  The bookkeeping is that of
 * the trainer of the library `tokenizers`, so that the merges are the same, also where it is peculiar: occurrences
 * that arise anew wait in an entry of their own, and counts of merged pairs are not taken back. */

/* pending: the place + 1 of its list in `fresh` while that grows. */
typedef struct { uint64_t pair; int64_t count; uint32_t pending; } Pair;

typedef struct { Pair *slots; int64_t mask, used; } Pairs;

/* Words that a pair has got. */
typedef struct { uint64_t pair; uint32_t *where; int64_t size, room; } List;

typedef struct { int64_t count; uint64_t pair; uint32_t *where; uint32_t size, owned; } Task;

/* A word: where its symbols begin, how often it occurs, how many symbols it has by now. */
typedef struct { int64_t start, count; uint32_t size; } Counted;

typedef struct {
    uint32_t *symbols; /* of all words in a row */
    Counted *words;
    Pairs pairs;
    Task *tasks; /* heap, most frequent first */
    int64_t waiting, room;
    List *fresh;
    int64_t touches, touch_room;
    uint32_t *first; /* the words of each pair at the start, all in a row */
    Words spelled; /* value: id */
    uint32_t *spelling_at, *spelling_size;
} Learner;

#define NO_PAIR UINT64_MAX

static Pair *pair_at(Pairs *pairs, uint64_t pair)
{
    int64_t place = (int64_t)pair_hash((uint32_t)(pair >> 32), (uint32_t)pair) & pairs->mask;
    while (pairs->slots[place].pair != pair && pairs->slots[place].pair != NO_PAIR) place = (place + 1) & pairs->mask;
    return pairs->slots + place;
}

static int pairs_open(Pairs *pairs, int64_t slots)
{
    *pairs = (Pairs){malloc((size_t)slots * sizeof(Pair)), slots - 1, 0};
    if (!pairs->slots) return 0;
    for (int64_t n = 0; n < slots; n++) pairs->slots[n] = (Pair){NO_PAIR, 0, 0};
    return 1;
}

/* The entry of a pair, made when it is new; NULL without memory. */
static Pair *pair_put(Pairs *pairs, uint64_t pair)
{
    Pair *slot = pair_at(pairs, pair);
    if (slot->pair == pair) return slot;
    if (pairs->used * 4 > pairs->mask * 3) {
        Pairs wide;
        if (!pairs_open(&wide, (pairs->mask + 1) * 2)) return NULL;
        for (int64_t n = 0; n <= pairs->mask; n++)
            if (pairs->slots[n].pair != NO_PAIR) *pair_at(&wide, pairs->slots[n].pair) = pairs->slots[n];
        wide.used = pairs->used;
        free(pairs->slots);
        *pairs = wide;
        slot = pair_at(pairs, pair);
    }
    *slot = (Pair){pair, 0, 0};
    pairs->used++;
    return slot;
}

static inline int before_task(const Task *one, const Task *two)
{
    return one->count != two->count ? one->count > two->count : one->pair < two->pair;
}

static int task_push(Learner *learner, Task task)
{
    if (learner->waiting == learner->room) {
        int64_t room = learner->room + learner->room / 2 + 1024;
        Task *wide = realloc(learner->tasks, (size_t)room * sizeof(Task));
        if (!wide) return 0;
        learner->tasks = wide;
        learner->room = room;
    }
    Task *tasks = learner->tasks;
    int64_t at = learner->waiting++;
    for (; at && before_task(&task, tasks + (at - 1) / 2); at = (at - 1) / 2) tasks[at] = tasks[(at - 1) / 2];
    tasks[at] = task;
    return 1;
}

static Task task_pop(Learner *learner)
{
    Task *tasks = learner->tasks, top = tasks[0], task = tasks[--learner->waiting];
    int64_t at = 0, size = learner->waiting;
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= size) break;
        if (child + 1 < size && before_task(tasks + child + 1, tasks + child)) child++;
        if (!before_task(tasks + child, &task)) break;
        tasks[at] = tasks[child];
        at = child;
    }
    if (size) tasks[at] = task;
    return top;
}

static int read_words(Learner *learner, const Words *table, const uint32_t *byte_ids)
{
    int64_t words = table->used, at = 0, n = 0;
    learner->symbols = malloc((size_t)(table->filled + 1) * 4);
    learner->words = malloc((size_t)(words + 1) * sizeof(Counted));
    if (!learner->symbols || !learner->words) return 0;
    for (int64_t place = 0; place <= table->mask; place++) {
        const Entry *slot = table->slots + place;
        if (!slot->size) continue;
        learner->words[n++] = (Counted){at, slot->value, slot->size};
        for (uint32_t i = 0; i < slot->size; i++) learner->symbols[at++] = byte_ids[table->bytes[slot->at + i]];
    }
    return n == words && words < NONE;
}

/* The list of a pair that grows in this merge, begun when there is none; NULL without memory. */
static List *list_of(Learner *learner, Pair *slot)
{
    if (slot->pending) return learner->fresh + slot->pending - 1;
    if (learner->touches == learner->touch_room) {
        int64_t room = learner->touch_room * 2 + 1024;
        List *wide = realloc(learner->fresh, (size_t)room * sizeof(List));
        if (!wide) return NULL;
        learner->fresh = wide;
        learner->touch_room = room;
    }
    learner->fresh[learner->touches] = (List){slot->pair, NULL, 0, 0};
    slot->pending = (uint32_t)++learner->touches;
    return learner->fresh + slot->pending - 1;
}

/* Queue all lists that have grown; `owned`: each is a piece of memory of its own. */
static int queue_lists(Learner *learner, uint32_t owned)
{
    for (int64_t n = 0; n < learner->touches; n++) {
        List *list = learner->fresh + n;
        Pair *slot = pair_at(&learner->pairs, list->pair);
        slot->pending = 0;
        if (slot->count > 0) {
            if (!task_push(learner, (Task){slot->count, list->pair, list->where, (uint32_t)list->size, owned})) return 0;
        } else if (owned) {
            free(list->where);
        }
    }
    learner->touches = 0;
    return 1;
}

/* Count all pairs of the words, and list for each of them the words that have it. */
static int read_pairs(Learner *learner, int64_t words)
{
    int64_t total = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t word = 0; word < words; word++) {
            const uint32_t *symbols = learner->symbols + learner->words[word].start;
            for (uint32_t i = 0; i + 1 < learner->words[word].size; i++) {
                Pair *slot = pair_put(&learner->pairs, (uint64_t)symbols[i] << 32 | symbols[i + 1]);
                List *list = slot ? list_of(learner, slot) : NULL;
                if (!list) return 0;
                if (!pass) { slot->count += learner->words[word].count; list->room++; continue; }
                if (!list->size || list->where[list->size - 1] != (uint32_t)word) list->where[list->size++] = (uint32_t)word;
            }
        }
        if (pass) break;
        for (int64_t n = 0; n < learner->touches; n++) total += learner->fresh[n].room;
        learner->first = malloc((size_t)(total + 1) * 4);
        if (!learner->first) return 0;
        total = 0;
        for (int64_t n = 0; n < learner->touches; n++) {
            learner->fresh[n].where = learner->first + total;
            total += learner->fresh[n].room;
        }
    }
    return queue_lists(learner, 0);
}

/* One pair occurs `change` times more, in `word` when that is new. */
static int note(Learner *learner, uint32_t left, uint32_t right, int64_t change, uint32_t word)
{
    Pair *slot = pair_put(&learner->pairs, (uint64_t)left << 32 | right);
    if (!slot) return 0;
    slot->count += change;
    if (change < 0) return 1;
    List *list = list_of(learner, slot);
    if (!list) return 0;
    if (list->size && list->where[list->size - 1] == word) return 1;
    if (list->size == list->room) {
        int64_t room = list->room * 2 + 2;
        uint32_t *wide = realloc(list->where, (size_t)room * 4);
        if (!wide) return 0;
        list->where = wide;
        list->room = room;
    }
    list->where[list->size++] = word;
    return 1;
}

static int merge_in_word(Learner *learner, uint32_t word, uint32_t left, uint32_t right, uint32_t made)
{
    Counted *counted = learner->words + word;
    uint32_t *symbols = learner->symbols + counted->start, size = counted->size, kept = 0;
    int64_t count = counted->count;
    for (uint32_t i = 0; i < size; i++) {
        if (symbols[i] != left || i + 1 >= size || symbols[i + 1] != right) { symbols[kept++] = symbols[i]; continue; }
        if (kept && !(note(learner, symbols[kept - 1], left, -count, word) && note(learner, symbols[kept - 1], made, count, word)))
            return 0;
        symbols[kept++] = made;
        i++;
        if (i + 1 < size && !(note(learner, right, symbols[i + 1], -count, word) && note(learner, made, symbols[i + 1], count, word)))
            return 0;
    }
    counted->size = kept;
    return 1;
}

/* The id of the text of two tokens together: a known one's, or `next` for a new one.  NONE without memory. */
static uint32_t spell(Learner *learner, uint32_t left, uint32_t right, uint32_t next)
{
    uint32_t one = learner->spelling_size[left], two = learner->spelling_size[right];
    byte *text = malloc((size_t)one + two);
    if (!text) return NONE;
    memcpy(text, learner->spelled.bytes + learner->spelling_at[left], one);
    memcpy(text + one, learner->spelled.bytes + learner->spelling_at[right], two);
    uint64_t hash = hash_of(text, one + two);
    Entry *slot = words_find(&learner->spelled, text, one + two, hash);
    uint32_t id = slot->size ? (uint32_t)slot->value : next;
    if (!slot->size) {
        slot = words_put(&learner->spelled, text, one + two, hash);
        if (slot) {
            slot->value = id;
            learner->spelling_at[id] = (uint32_t)slot->at;
            learner->spelling_size[id] = one + two;
        }
    }
    free(text);
    return slot ? id : NONE;
}

static int learner_open(Learner *learner, const Words *table, const uint32_t *byte_ids, int64_t vocab_size)
{
    learner->spelling_at = calloc((size_t)vocab_size + 1, 4);
    learner->spelling_size = calloc((size_t)vocab_size + 1, 4);
    if (!learner->spelling_at || !learner->spelling_size) return 0;
    if (!words_open(&learner->spelled, 1 << 12, 1 << 16) || !pairs_open(&learner->pairs, 1 << 16)) return 0;
    for (int n = 0; n < 256; n++) {
        byte one = (byte)n;
        Entry *slot = words_put(&learner->spelled, &one, 1, hash_of(&one, 1));
        if (!slot) return 0;
        slot->value = byte_ids[n];
        learner->spelling_at[byte_ids[n]] = (uint32_t)slot->at;
        learner->spelling_size[byte_ids[n]] = 1;
    }
    return read_words(learner, table, byte_ids) && read_pairs(learner, table->used);
}

static void learner_close(Learner *learner)
{
    while (learner->waiting) {
        Task task = learner->tasks[--learner->waiting];
        if (task.owned) free(task.where);
    }
    free(learner->symbols); free(learner->words);
    free(learner->pairs.slots); free(learner->tasks); free(learner->fresh); free(learner->first);
    free(learner->spelling_at); free(learner->spelling_size);
    words_close(&learner->spelled);
}

/* Merge one pair in the words of a task, and queue the pairs that arose. */
static int apply(Learner *learner, const Task *task, uint32_t made)
{
    uint32_t left = (uint32_t)(task->pair >> 32), right = (uint32_t)task->pair;
    for (int64_t n = 0; n < task->size; n++) {
        /* Words lie anywhere: fetched ahead, learning took 0.6 of the time. */
        if (n + 24 < task->size) PREFETCH(learner->words + task->where[n + 24]);
        if (n + 12 < task->size) PREFETCH(learner->symbols + learner->words[task->where[n + 12]].start);
        if (!merge_in_word(learner, task->where[n], left, right, made)) return 0;
    }
    return queue_lists(learner, 1);
}

/* Learn merges (left, right, made) until there are `vocab_size` ids, `taken` of which are there at the start, or until
 * no pair occurs `least` times.  `stop` ends it early; `done` says how far it is.  Returns the number of merges. */
int64_t bpe_learn(const Counter *counter, const uint32_t *byte_ids, int64_t taken, int64_t vocab_size, int64_t least,
                  uint32_t *merges, int64_t capacity, const volatile int32_t *stop, volatile int64_t *done)
{
    Learner learner = {0};
    int64_t count = -1, ids = taken;
    if (!learner_open(&learner, &counter->table, byte_ids, vocab_size)) goto out;
    int64_t made = 0;
    while (ids < vocab_size && learner.waiting && made < capacity && !*stop) {
        Task top = task_pop(&learner);
        int64_t now = pair_at(&learner.pairs, top.pair)->count;
        if (top.count != now) {
            top.count = now;
            if (!task_push(&learner, top)) goto out;
            continue;
        }
        if (top.count < 1 || top.count < least) break;
        uint32_t id = spell(&learner, (uint32_t)(top.pair >> 32), (uint32_t)top.pair, (uint32_t)ids);
        if (id == NONE || !apply(&learner, &top, id)) goto out;
        if (id == ids) ids++;
        merges[3 * made] = (uint32_t)(top.pair >> 32);
        merges[3 * made + 1] = (uint32_t)top.pair;
        merges[3 * made + 2] = id;
        made++;
        *done = ids;
        if (top.owned) free(top.where);
    }
    count = made;
out:
    learner_close(&learner);
    return count;
}
