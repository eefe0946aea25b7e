/* What lies between the matrix products of a training step on a CPU: each tensor is read once and written once.
 *
 * Eager PyTorch walks over memory five to ten times for a norm, a rotation, a softmax or a cross-entropy, and takes new
 * pages for every stop on the way.  These do the same arithmetic in fp32 registers on bf16 tensors.  Their slow twins
 * are in fused.py and cross_entropy.py (tests/model/test_native.py compares them).
 *
 * Rows are dealt to threads in equal shares, and every sum over rows is kept by thread and added up in order: the same
 * number of threads gives the same bits.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <stddef.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
#endif

typedef uint16_t bf16;
typedef int64_t i64;

static inline float up(bf16 value) {
    uint32_t bits = (uint32_t)value << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

/* Rounds to nearest, ties to even. */
static inline bf16 down(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* exp for arguments up to 88, relative error 2e-7: 2^n times a Taylor polynomial within half of ln 2. */
static inline float exp_of(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t power = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &power, 4);
    return p * scale;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exp_of(x > 87.0f ? -87.0f : -x)); }

/* sum = x + delta (where there is a delta); out = sum / rms(sum) * weight, rate = 1 / rms(sum). */
void wuxing_norm_forward(const float *x, const bf16 *delta, const float *weight, float *sum, bf16 *out, float *rate,
                         i64 rows, i64 width, float eps, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (i64 n = 0; n < rows; n++) {
        const float *xs = x + n * width;
        float square = 0;
        if (delta) {
            const bf16 *d = delta + n * width;
            float *s = sum + n * width;
#pragma omp simd reduction(+ : square)
            for (i64 i = 0; i < width; i++) {
                float v = xs[i] + up(d[i]);
                s[i] = v;
                square += v * v;
            }
            xs = s;
        } else {
#pragma omp simd reduction(+ : square)
            for (i64 i = 0; i < width; i++) square += xs[i] * xs[i];
        }
        float r = 1.0f / sqrtf(square / (float)width + eps);
        bf16 *o = out + n * width;
        rate[n] = r;
#pragma omp simd
        for (i64 i = 0; i < width; i++) o[i] = down(xs[i] * r * weight[i]);
    }
}

/* grad_x = (along, where there is one) + the norm's own; grad_delta is the same in bf16; grad_weight by thread. */
void wuxing_norm_backward(const bf16 *grad, const float *along, const float *x, const float *weight, const float *rate,
                          float *grad_x, bf16 *grad_delta, float *grad_weight, i64 rows, i64 width, int threads) {
#pragma omp parallel num_threads(threads)
    {
        float *mine = grad_weight + (i64)omp_get_thread_num() * width;
#pragma omp for schedule(static)
        for (i64 n = 0; n < rows; n++) {
            const bf16 *g = grad + n * width;
            const float *xs = x + n * width;
            float r = rate[n], dot = 0;
#pragma omp simd reduction(+ : dot)
            for (i64 i = 0; i < width; i++) {
                float product = up(g[i]) * xs[i] * r;
                mine[i] += product;
                dot += product * weight[i];
            }
            dot = dot / (float)width * r;
            float *o = grad_x + n * width;
#pragma omp simd
            for (i64 i = 0; i < width; i++) o[i] = (up(g[i]) * weight[i] - xs[i] * dot) * r;
            if (along) {
                const float *a = along + n * width;
#pragma omp simd
                for (i64 i = 0; i < width; i++) o[i] += a[i];
            }
            if (grad_delta) {
                bf16 *d = grad_delta + n * width;
#pragma omp simd
                for (i64 i = 0; i < width; i++) d[i] = down(o[i]);
            }
        }
    }
}

typedef struct {
    i64 rows, tokens, heads, kv_heads, channels, table_rows;
    float eps;
    int threads;
} Heads;

/* Place of head h (query heads first, then keys, then values) of token t of row b in the tensors by head:
 * queries (rows, kv_heads, tokens, heads / kv_heads, channels), keys and values (rows, kv_heads, tokens, channels). */
static inline i64 place(const Heads *shape, i64 b, i64 t, i64 h) {
    i64 group = shape->heads / shape->kv_heads;
    if (h < shape->heads) return (((b * shape->kv_heads + h / group) * shape->tokens + t) * group + h % group) * shape->channels;
    i64 kv = (h - shape->heads) % shape->kv_heads;
    return ((b * shape->kv_heads + kv) * shape->tokens + t) * shape->channels;
}

static inline float head_rate(const bf16 *from, i64 channels, float eps) {
    float square = 0;
#pragma omp simd reduction(+ : square)
    for (i64 c = 0; c < channels; c++) square += up(from[c]) * up(from[c]);
    return 1.0f / sqrtf(square / (float)channels + eps);
}

/* Splits what one product gave (tokens, heads + 2 kv_heads, channels) into heads: queries and keys normed (where there
 * are weights) and turned, queries scaled by the root of their channels. */
void wuxing_heads_forward(const Heads *shape, const bf16 *qkv, const float *q_weight, const float *k_weight,
                          const float *cos, const float *sin, bf16 *q, bf16 *k, bf16 *v) {
    i64 C = shape->channels, half = C / 2, all = shape->heads + 2 * shape->kv_heads, N = shape->rows * shape->tokens;
    float root = 1.0f / sqrtf((float)C);
#pragma omp parallel for schedule(static) num_threads(shape->threads)
    for (i64 n = 0; n < N; n++) {
        i64 b = n / shape->tokens, t = n % shape->tokens, at = (shape->table_rows == 1 ? t : n) * half;
        const float *co = cos + at, *si = sin + at;
        for (i64 h = 0; h < all; h++) {
            const bf16 *from = qkv + (n * all + h) * C;
            i64 to = place(shape, b, t, h);
            if (h >= shape->heads + shape->kv_heads) {
                memcpy(v + to, from, (size_t)C * sizeof(bf16));
                continue;
            }
            int is_query = h < shape->heads;
            const float *w = is_query ? q_weight : k_weight;
            bf16 *out = (is_query ? q : k) + to;
            float r = is_query ? root : 1.0f;
            if (w) {
                r *= head_rate(from, C, shape->eps);
#pragma omp simd
                for (i64 c = 0; c < half; c++) {
                    float low = up(from[c]) * r * w[c], high = up(from[c + half]) * r * w[c + half];
                    out[c] = down(low * co[c] - high * si[c]);
                    out[c + half] = down(high * co[c] + low * si[c]);
                }
            } else {
#pragma omp simd
                for (i64 c = 0; c < half; c++) {
                    float low = up(from[c]) * r, high = up(from[c + half]) * r;
                    out[c] = down(low * co[c] - high * si[c]);
                    out[c + half] = down(high * co[c] + low * si[c]);
                }
            }
        }
    }
}

/* The backward pass; grad_weights holds for each thread the channels of the queries' and of the keys' norm. */
void wuxing_heads_backward(const Heads *shape, const bf16 *qkv, const float *q_weight, const float *k_weight,
                           const float *cos, const float *sin, const bf16 *q, const bf16 *k, const bf16 *v, bf16 *grad,
                           float *grad_weights) {
    i64 C = shape->channels, half = C / 2, all = shape->heads + 2 * shape->kv_heads, N = shape->rows * shape->tokens;
    float root = 1.0f / sqrtf((float)C);
#pragma omp parallel num_threads(shape->threads)
    {
        float *mine = grad_weights + (i64)omp_get_thread_num() * 2 * C;
        float turned[512];
#pragma omp for schedule(static)
        for (i64 n = 0; n < N; n++) {
            i64 b = n / shape->tokens, t = n % shape->tokens, at = (shape->table_rows == 1 ? t : n) * half;
            const float *co = cos + at, *si = sin + at;
            for (i64 h = 0; h < all; h++) {
                const bf16 *from = qkv + (n * all + h) * C;
                bf16 *out = grad + (n * all + h) * C;
                i64 to = place(shape, b, t, h);
                if (h >= shape->heads + shape->kv_heads) {
                    memcpy(out, v + to, (size_t)C * sizeof(bf16));
                    continue;
                }
                int is_query = h < shape->heads;
                const bf16 *g = (is_query ? q : k) + to;
                const float *w = is_query ? q_weight : k_weight;
                float scale = is_query ? root : 1.0f;
#pragma omp simd
                for (i64 c = 0; c < half; c++) {
                    float low = up(g[c]) * scale, high = up(g[c + half]) * scale;
                    turned[c] = low * co[c] + high * si[c];
                    turned[c + half] = high * co[c] - low * si[c];
                }
                if (!w) {
#pragma omp simd
                    for (i64 c = 0; c < C; c++) out[c] = down(turned[c]);
                    continue;
                }
                float r = head_rate(from, C, shape->eps), dot = 0, *weights = mine + (is_query ? 0 : C);
#pragma omp simd reduction(+ : dot)
                for (i64 c = 0; c < C; c++) {
                    float product = turned[c] * up(from[c]) * r;
                    weights[c] += product;
                    dot += product * w[c];
                }
                dot = dot / (float)C * r;
#pragma omp simd
                for (i64 c = 0; c < C; c++) out[c] = down((turned[c] * w[c] - up(from[c]) * dot) * r);
            }
        }
    }
}

typedef struct {
    i64 rows, sides, queries, group, keys, first_query, first_key, tokens;
    int threads;
} Block;

/* Scores of a block (rows, sides, queries, group, keys) become probabilities in place; starts (rows, tokens).  Query i, at place first_query + i,
 * sees the keys from its start up to its end, or up to itself where ends is NULL. */
void wuxing_softmax_forward(const Block *block, const int32_t *starts, const int32_t *ends, bf16 *scores) {
    i64 side = block->queries * block->group, rows = block->rows * block->sides * side, L = block->keys;
#pragma omp parallel for schedule(static) num_threads(block->threads)
    for (i64 n = 0; n < rows; n++) {
        i64 t = block->first_query + n / block->group % block->queries;
        i64 at = n / (side * block->sides) * block->tokens + t;
        i64 low = starts[at] - block->first_key, high = (ends ? ends[at] : t + 1) - block->first_key;
        bf16 *s = scores + n * L;
        float top = -INFINITY, total = 0;
#pragma omp simd reduction(max : top)
        for (i64 i = low; i < high; i++) {
            float v = up(s[i]);
            top = v > top ? v : top;
        }
#pragma omp simd reduction(+ : total)
        for (i64 i = low; i < high; i++) total += exp_of(up(s[i]) - top);
        float share = 1.0f / total;
#pragma omp simd
        for (i64 i = low; i < high; i++) s[i] = down(exp_of(up(s[i]) - top) * share);
        memset(s, 0, (size_t)low * sizeof(bf16));
        memset(s + high, 0, (size_t)(L - high) * sizeof(bf16));
    }
}

/* Gradients of the probabilities become gradients of the scores, in place. */
void wuxing_softmax_backward(const Block *block, const int32_t *starts, const int32_t *ends, const bf16 *probs,
                             bf16 *grad) {
    i64 side = block->queries * block->group, rows = block->rows * block->sides * side, L = block->keys;
#pragma omp parallel for schedule(static) num_threads(block->threads)
    for (i64 n = 0; n < rows; n++) {
        i64 t = block->first_query + n / block->group % block->queries;
        i64 at = n / (side * block->sides) * block->tokens + t;
        i64 low = starts[at] - block->first_key, high = (ends ? ends[at] : t + 1) - block->first_key;
        const bf16 *p = probs + n * L;
        bf16 *g = grad + n * L;
        float along = 0;
#pragma omp simd reduction(+ : along)
        for (i64 i = low; i < high; i++) along += up(p[i]) * up(g[i]);
#pragma omp simd
        for (i64 i = low; i < high; i++) g[i] = down(up(p[i]) * (up(g[i]) - along));
        memset(g, 0, (size_t)low * sizeof(bf16));
        memset(g + high, 0, (size_t)(L - high) * sizeof(bf16));
    }
}

/* (rows, sides, tokens, inner) to (rows, tokens, sides, inner), or back. */
void wuxing_swap(const bf16 *from, bf16 *to, i64 rows, i64 sides, i64 tokens, i64 inner, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (i64 n = 0; n < rows * tokens; n++) {
        i64 b = n / tokens, t = n % tokens;
        for (i64 k = 0; k < sides; k++)
            memcpy(to + (n * sides + k) * inner, from + ((b * sides + k) * tokens + t) * inner, (size_t)inner * sizeof(bf16));
    }
}

/* Of rows (gate, up): silu(gate) * up. */
void wuxing_gated_forward(const bf16 *both, bf16 *out, i64 rows, i64 inner, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (i64 n = 0; n < rows; n++) {
        const bf16 *gate = both + 2 * n * inner, *other = gate + inner;
        bf16 *o = out + n * inner;
#pragma omp simd
        for (i64 i = 0; i < inner; i++) {
            float g = up(gate[i]);
            o[i] = down(g * sigmoid(g) * up(other[i]));
        }
    }
}

void wuxing_gated_backward(const bf16 *both, const bf16 *grad, bf16 *out, i64 rows, i64 inner, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (i64 n = 0; n < rows; n++) {
        const bf16 *gate = both + 2 * n * inner, *other = gate + inner, *d = grad + n * inner;
        bf16 *o = out + 2 * n * inner;
#pragma omp simd
        for (i64 i = 0; i < inner; i++) {
            float g = up(gate[i]), s = sigmoid(g), v = up(d[i]);
            o[i] = down(v * up(other[i]) * s * (1.0f + g * (1.0f - s)));
            o[i + inner] = down(v * g * s);
        }
    }
}

/* Logits become gradients of the summed loss in place (when they are wanted); per row: nats, loss, whether the label
 * has the top logit. */
void wuxing_cross_entropy(bf16 *logits, const i64 *labels, double *nats, double *loss, uint8_t *correct, i64 rows,
                          i64 vocabulary, float smoothing, float z_weight, int wanted, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (i64 n = 0; n < rows; n++) {
        bf16 *row = logits + n * vocabulary;
        float top = -INFINITY, total = 0, sum = 0;
#pragma omp simd reduction(max : top)
        for (i64 i = 0; i < vocabulary; i++) {
            float v = up(row[i]);
            top = v > top ? v : top;
        }
        if (smoothing != 0) {
#pragma omp simd reduction(+ : sum)
            for (i64 i = 0; i < vocabulary; i++) sum += up(row[i]) - top;
        }
#pragma omp simd reduction(+ : total)
        for (i64 i = 0; i < vocabulary; i++) total += exp_of(up(row[i]) - top);
        float taken = up(row[labels[n]]) - top, lse = logf(total) + top;
        float nll = lse - top - taken;
        nats[n] = nll;
        loss[n] = nll + smoothing * (taken - sum / (float)vocabulary) + z_weight * lse * lse;
        correct[n] = taken == 0;
        /* A logit that is not a number passes by every comparison. */
        if (!(total > 0) || !isfinite(total)) nats[n] = loss[n] = NAN;
        if (!wanted) continue;
        float scale = (1 + 2 * z_weight * lse) / total, even = smoothing / (float)vocabulary;
        bf16 at_label = down(exp_of(taken) * scale + smoothing - 1 - even);
#pragma omp simd
        for (i64 i = 0; i < vocabulary; i++) row[i] = down(exp_of(up(row[i]) - top) * scale - even);
        row[labels[n]] = at_label;
    }
}

/* sum += part, or sum = part where it is the first. */
void wuxing_add(float *sum, const bf16 *part, i64 count, int is_first, int threads) {
    if (is_first) {
#pragma omp parallel for simd schedule(static) num_threads(threads)
        for (i64 i = 0; i < count; i++) sum[i] = up(part[i]);
        return;
    }
#pragma omp parallel for simd schedule(static) num_threads(threads)
    for (i64 i = 0; i < count; i++) sum[i] += up(part[i]);
}
