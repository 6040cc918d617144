/* The messages of the network, forward and backward (see kernels.py).

   Arrays are float32, row-major and contiguous; their widths are multiples of a cache line. An edge has `copies`
   directed copies. In a chunk, rows are ordered by copy, then by edge; the index of copy j of edge r is at
   [j * stride + r]. Loops that sum by segment visit edges, then copies, and distribute columns among threads. All other
   loops distribute rows. Results therefore do not depend on the number of threads or the size of chunks. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define LOG2_E 1.44269504088896341f
#define LN_2 0.693147180559945309f
#define EPS 1e-5f
#define WIDEST 1024 /* channels; checked in Python through widest() */
#define EACH(i, from, to) for (long i = (from); i < (to); i += LANES)
#define V(x) (*(vector *)(x)) /* the vector at an address */
#define C(x) (*(const vector *)(x))

typedef const float *restrict in;
typedef float *restrict out;
typedef const int64_t *restrict index_t;

#define ROWS_AND_COPIES for (long r = 0; r < rows; r++) for (long j = 0; j < copies; j++)

#if defined(__AVX512F__)
#define LANES 16
#define TILE 8 /* rows of a product at a time: two vectors for each fill the registers */
#elif defined(__AVX2__) && defined(__FMA__)
#define LANES 8
#define TILE 6
#else
#define LANES 4
#define TILE 8
#endif

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));

/* Maximum of a and b; b if either is NaN. */
static inline vector larger(vector a, vector b) {
#ifdef __AVX512F__
  return (vector)_mm512_max_ps((__m512)a, (__m512)b);
#else
  for (int i = 0; i < LANES; i++) b[i] = a[i] > b[i] ? a[i] : b[i];
  return b;
#endif
}

/* 2^t for |t| <= 1/2. */
static inline vector series(vector t) {
  t *= LN_2;
  return 1.0f + t * (1.0f + t * (1.0f / 2 + t * (1.0f / 6 + t * (1.0f / 24 + t * (1.0f / 120 + t * (1.0f / 720))))));
}

/* 2^x with a relative error of 1e-7. x is clamped to |x| <= 126; NaN stays NaN. */
static inline vector power(vector x) {
  x = -larger((vector){0} - 126.0f, -larger((vector){0} - 126.0f, x));
#ifdef __AVX512F__
  vector whole = (vector)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return (vector)_mm512_scalef_ps((__m512)series(x - whole), (__m512)whole);
#else
  vector whole;
  union { int32_t i[LANES]; vector v; } scale;
  for (int i = 0; i < LANES; i++) {
    whole[i] = rintf(x[i]);
    scale.i[i] = ((int32_t)whole[i] + 127) << 23;
  }
  return series(x - whole) * scale.v;
#endif
}

/* 1 / x, for x from 1 to 2^126. */
static inline vector inverse(vector x) {
#ifdef __AVX512F__
  vector y = (vector)_mm512_rcp14_ps((__m512)x); /* a Newton step doubles the 14 correct bits */
  return y * (2.0f - x * y);
#else
  return 1.0f / x;
#endif
}

static inline vector sigmoid(vector x) { return inverse(1.0f + power(-LOG2_E * x)); }

/* Derivative of x sigmoid(x), with s = sigmoid(x). */
static inline vector silu_slope(vector x, vector s) { return s * (1.0f + x * (1.0f - s)); }

/* Range of columns of this thread, in multiples of a cache line. */
static inline void share(long width, long *from, long *to) {
#ifdef _OPENMP
  long n = omp_get_num_threads(), i = omp_get_thread_num();
#else
  long n = 1, i = 0;
#endif
  long lines = (width + 15) / 16;
  *from = lines * i / n * 16;
  *to = lines * (i + 1) / n * 16;
  if (*from > width) *from = width;
  if (*to > width) *to = width;
}

long widest(void) { return WIDEST; }

/* hidden = silu(pre), where pre = x + bias + entries of two or three tables. */
static void add_and_silu(long threads, long rows, long copies, long stride, long width, in x, in bias, long tables, in t0,
                  index_t i0, in t1, index_t i1, in t2, index_t i2, out pre, out hidden) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long k = 0; k < rows * copies; k++) {
    long r = k % rows, at = k / rows * stride + r;
    in a = x + r * width, b = t0 + i0[at] * width, c = t1 + i1[at] * width;
    in d = tables > 2 ? t2 + i2[at] * width : NULL;
    float *p = pre + k * width, *h = hidden + k * width;
    EACH(i, 0, width) {
      vector sum = C(a + i) + C(bias + i) + C(b + i) + C(c + i);
      if (d) sum += C(d + i);
      V(p + i) = sum;
      V(h + i) = sum * sigmoid(sum);
    }
  }
}

/* Backward pass of add_and_silu; the gradient of hidden is overwritten by that of pre. */
static void add_and_silu_backward(long threads, long rows, long copies, long stride, long width, in pre, out gradient,
                           long tables, out g0, index_t i0, out g1, index_t i1, out g2, index_t i2, out gx) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    ROWS_AND_COPIES {
      long k = j * rows + r, at = j * stride + r;
      const float *p = pre + k * width;
      float *g = gradient + k * width, *x = gx + r * width;
      float *a = g0 + i0[at] * width, *b = g1 + i1[at] * width, *c = tables > 2 ? g2 + i2[at] * width : NULL;
      EACH(i, from, to) {
        vector v = C(g + i) * silu_slope(C(p + i), sigmoid(C(p + i)));
        V(g + i) = v;
        V(a + i) += v;
        V(b + i) += v;
        if (c) V(c + i) += v;
        V(x + i) = j == 0 ? v : C(x + i) + v;
      }
    }
  }
}

/* Sum of a vector. */
static inline float total(vector x) {
#ifdef __AVX512F__
  return _mm512_reduce_add_ps((__m512)x);
#else
  float sum = 0;
  for (int i = 0; i < LANES; i++) sum += x[i];
  return sum;
#endif
}

/* Add biases to core and gate, into a and b, and compute mean and reciprocal standard deviation of each. Both are
   computed together to hide the latency of the sums. */
static inline void moments(long width, in core, in gate, in bias, out a, out b, float mean[2], float scale[2]) {
  vector sum_a = {0}, sum_b = {0}, square_a = {0}, square_b = {0};
  EACH(i, 0, width) {
    vector x = C(core + i) + C(bias + i), y = C(gate + i) + C(bias + width + i);
    V(a + i) = x;
    V(b + i) = y;
    sum_a += x;
    sum_b += y;
  }
  mean[0] = total(sum_a) / width;
  mean[1] = total(sum_b) / width;
  EACH(i, 0, width) {
    vector x = C(a + i) - mean[0], y = C(b + i) - mean[1];
    square_a += x * x;
    square_b += y * y;
  }
  scale[0] = 1.0f / sqrtf(total(square_a) / width + EPS);
  scale[1] = 1.0f / sqrtf(total(square_b) / width + EPS);
}

/* message = silu(norm(core)) * sigmoid(norm(gate)). bias, weight and shift hold the values of core, then of gate. */
static void gate(long threads, long n, long width, in core, in gate, in bias, in weight, in shift, out message) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long k = 0; k < n; k++) {
    float a[WIDEST], b[WIDEST], mean[2], scale[2], *m = message + k * width;
    moments(width, core + k * width, gate + k * width, bias, a, b, mean, scale);
    EACH(i, 0, width) {
      vector x = (C(a + i) - mean[0]) * scale[0] * C(weight + i) + C(shift + i);
      vector y = (C(b + i) - mean[1]) * scale[1] * C(weight + width + i) + C(shift + width + i);
      V(m + i) = x * sigmoid(x) * sigmoid(y);
    }
  }
}

/* Backward pass of a norm: x holds normalised values, g their gradient. */
static inline void norm_backward(long width, in x, in g, float scale, out gx) {
  vector sum = {0}, along = {0};
  EACH(i, 0, width) {
    sum += C(g + i);
    along += C(g + i) * C(x + i);
  }
  float mean = total(sum) / width, slope = total(along) / width;
  EACH(i, 0, width) V(gx + i) = scale * (C(g + i) - mean - C(x + i) * slope);
}

static void gate_backward(long threads, long n, long width, in core, in gate, in bias, in weight, in shift, in gradient,
                   out g_core, out g_gate) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long k = 0; k < n; k++) {
    float a[WIDEST], b[WIDEST], ga[WIDEST], gb[WIDEST], mean[2], scale[2];
    in g = gradient + k * width;
    moments(width, core + k * width, gate + k * width, bias, a, b, mean, scale);
    EACH(i, 0, width) {
      vector normal_a = (C(a + i) - mean[0]) * scale[0], normal_b = (C(b + i) - mean[1]) * scale[1];
      vector x = normal_a * C(weight + i) + C(shift + i);
      vector y = normal_b * C(weight + width + i) + C(shift + width + i);
      vector sx = sigmoid(x), sy = sigmoid(y), arriving = C(g + i) * sy;
      V(a + i) = normal_a;
      V(b + i) = normal_b;
      V(ga + i) = arriving * silu_slope(x, sx) * C(weight + i);
      V(gb + i) = arriving * x * sx * (1.0f - sy) * C(weight + width + i);
    }
    norm_backward(width, a, ga, scale[0], g_core + k * width);
    norm_backward(width, b, gb, scale[1], g_gate + k * width);
  }
}

/* Largest logits of each segment. A row holds `width` logits by target, then `width` logits by source. The exponent of
   an edge's envelope, unless NULL, is added to its logits. */
static void largest(long threads, long rows, long copies, long stride, long width, in logits, in exponent, index_t target,
             index_t source, out at_target, out at_source) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    ROWS_AND_COPIES {
      long at = j * stride + r;
      in l = logits + 2 * r * width, s = l + width;
      float *a = at_target + target[at] * width, *b = at_source + source[at] * width, more = exponent ? exponent[r] : 0.0f;
      EACH(i, from, to) {
        V(a + i) = larger(exponent ? C(l + i) + more : C(l + i), C(a + i));
        V(b + i) = larger(exponent ? C(s + i) + more : C(s + i), C(b + i));
      }
    }
  }
}

/* Sums of messages with weights 2^(logit - largest), and of the weights; new edge = mean message + residual * edge.
   The envelope of an edge, unless NULL, is a factor of its weights. */
static void attend(long threads, long rows, long copies, long stride, long width, in logits, in envelope, in message,
            index_t target, index_t source, in target_peak, in source_peak, out target_sum, out target_norm, out source_sum,
            out source_norm, in edge, in residual, out new_edge) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    ROWS_AND_COPIES {
      long k = j * rows + r, at = j * stride + r, t = target[at] * width, s = source[at] * width;
      in by_target = logits + 2 * r * width, by_source = by_target + width;
      in m = message + k * width, pt = target_peak + t, ps = source_peak + s, e = edge + r * width;
      float *ts = target_sum + t, *tn = target_norm + t, *ss = source_sum + s, *sn = source_norm + s;
      float *x = new_edge + r * width, part = 1.0f / copies, u = envelope ? envelope[r] : 1.0f;
      EACH(i, from, to) {
        vector wt = power(C(by_target + i) - C(pt + i)), ws = power(C(by_source + i) - C(ps + i));
        if (envelope) wt *= u, ws *= u;
        V(ts + i) += wt * C(m + i);
        V(tn + i) += wt;
        V(ss + i) += ws * C(m + i);
        V(sn + i) += ws;
        V(x + i) = part * C(m + i) + (j == 0 ? C(residual + i) * C(e + i) : C(x + i));
      }
    }
  }
}

/* Gradients with respect to messages and logits; those of the logits are to base e. */
static void attend_backward(long threads, long rows, long copies, long stride, long width, in logits, in envelope,
                     in message, index_t target, index_t source, in target_peak, in source_peak, in g_target_sum,
                     in g_target_norm, in g_source_sum, in g_source_norm, in g_edge, out g_message, out g_logits) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    ROWS_AND_COPIES {
      long k = j * rows + r, at = j * stride + r, t = target[at] * width, s = source[at] * width;
      in by_target = logits + 2 * r * width, by_source = by_target + width;
      in m = message + k * width, pt = target_peak + t, ps = source_peak + s, ge = g_edge + r * width;
      in ts = g_target_sum + t, tn = g_target_norm + t, ss = g_source_sum + s, sn = g_source_norm + s;
      float *g = g_message + k * width, *gt = g_logits + 2 * r * width, *gs = gt + width, part = 1.0f / copies;
      float u = envelope ? envelope[r] : 1.0f;
      EACH(i, from, to) {
        vector wt = power(C(by_target + i) - C(pt + i)), ws = power(C(by_source + i) - C(ps + i));
        if (envelope) wt *= u, ws *= u;
        vector to_target = wt * (C(m + i) * C(ts + i) + C(tn + i)), to_source = ws * (C(m + i) * C(ss + i) + C(sn + i));
        V(g + i) = part * C(ge + i) + wt * C(ts + i) + ws * C(ss + i);
        V(gt + i) = j == 0 ? to_target : C(gt + i) + to_target;
        V(gs + i) = j == 0 ? to_source : C(gs + i) + to_source;
      }
    }
  }
}

/* Gradient of envelopes. It is that of all logits to base e of an edge, over u, as weights are u e^x. At u = 0, where
   the slope of u is zero, nothing reads it. */
static void envelope_backward(long threads, long rows, long width, in g_logits, in envelope, out g_envelope) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long r = 0; r < rows; r++) {
    in g = g_logits + 2 * r * width;
    vector sum = {0};
    EACH(i, 0, 2 * width) sum += C(g + i);
    g_envelope[r] = envelope[r] > 0 ? total(sum) / envelope[r] : 0.0f;
  }
}

/* smooth = message * envelope, summed by target unless `pooled` is NULL. */
static void pool(long threads, long rows, long copies, long stride, long width, in message, in table, index_t entry,
                 index_t target, out smooth, out pooled) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    ROWS_AND_COPIES {
      long k = j * rows + r, at = j * stride + r;
      in m = message + k * width, e = table + entry[at] * width;
      float *s = smooth + k * width, *p = pooled ? pooled + target[at] * width : NULL;
      EACH(i, from, to) {
        V(s + i) = C(m + i) * C(e + i);
        if (p) V(p + i) += C(s + i);
      }
    }
  }
}

/* Backward pass of pool. `gradient`, unless NULL, is a further gradient of smooth or, if not at_smooth, of message. */
static void pool_backward(long threads, long rows, long copies, long stride, long width, in message, in table, index_t entry,
                   index_t target, in g_pooled, in gradient, long at_smooth, out g_message, out g_table) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    ROWS_AND_COPIES {
      long k = j * rows + r, at = j * stride + r;
      in m = message + k * width, e = table + entry[at] * width, p = g_pooled + target[at] * width;
      in arriving = gradient ? gradient + k * width : NULL;
      float *g = g_message + k * width, *ge = g_table + entry[at] * width;
      float to_smooth = arriving && at_smooth ? 1.0f : 0.0f, to_message = arriving && !at_smooth ? 1.0f : 0.0f;
      in more = arriving ? arriving : m; /* multiplied by zero */
      EACH(i, from, to) {
        vector s = C(p + i) + to_smooth * C(more + i);
        V(g + i) = s * C(e + i) + to_message * C(more + i);
        V(ge + i) += s * C(m + i);
      }
    }
  }
}

/* Mean over copies of silu(x). */
static void mean_silu(long threads, long rows, long copies, long width, in x, out y) {
  float part = 1.0f / copies;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long r = 0; r < rows; r++) {
    EACH(i, 0, width) {
      vector sum = {0};
      for (long j = 0; j < copies; j++) {
        vector v = C(x + (j * rows + r) * width + i);
        sum += part * v * sigmoid(v);
      }
      V(y + r * width + i) = sum;
    }
  }
}

static void mean_silu_backward(long threads, long rows, long copies, long width, in x, in gradient, out gx) {
  float part = 1.0f / copies;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long r = 0; r < rows; r++) {
    in g = gradient + r * width;
    for (long j = 0; j < copies; j++) {
      in a = x + (j * rows + r) * width;
      float *b = gx + (j * rows + r) * width;
      EACH(i, 0, width) V(b + i) = part * C(g + i) * silu_slope(C(a + i), sigmoid(C(a + i)));
    }
  }
}

/* y = scale * x for each column; zero if x is NULL. */
static void scaled(long threads, long rows, long width, in x, in scale, out y) {
  if (!x) {
    memset(y, 0, rows * width * sizeof(float));
    return;
  }
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long r = 0; r < rows; r++) EACH(i, 0, width) V(y + r * width + i) = C(scale + i) * C(x + r * width + i);
}

static void add_bias(long threads, long rows, long width, in bias, out y) {
  if (!bias) return;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long r = 0; r < rows; r++) EACH(i, 0, width) V(y + r * width + i) += C(bias + i);
}

/* Matrix products. A panel of the second factor, two vectors wide, stays in the L1 cache, and a tile in registers. */
#define PANEL (2 * LANES)

/* Whether these products are as fast as those of a library. */
long has_products(void) {
#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__)) || (defined(__aarch64__) && !defined(__APPLE__))
  return 1;
#else
  return 0;
#endif
}

static inline __attribute__((always_inline)) void tile(const int rows, long k, in x, long lx, in panel, out y, long ly,
                                                       long add) {
  vector a[TILE], b[TILE];
  for (int i = 0; i < rows; i++) a[i] = b[i] = (vector){0};
  for (long j = 0; j < k; j++) {
    const vector *w = (const vector *)(panel + PANEL * j);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
      a[i] += x[i * lx + j] * w[0];
      b[i] += x[i * lx + j] * w[1];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++) {
    vector *to = (vector *)(y + i * ly);
    to[0] = add ? to[0] + a[i] : a[i];
    to[1] = add ? to[1] + b[i] : b[i];
  }
}

/* A second factor (k, n), packed into panels; the last panel is padded with zeros. */
typedef struct {
  long k, n;
  float *panels;
} factor;

static long panels_of(long n) { return (n + PANEL - 1) / PANEL; }

static factor empty(long k, long n) {
  return (factor){k, n, aligned_alloc(64, (panels_of(n) * PANEL * k * sizeof(float) + 63) / 64 * 64)};
}

/* Weights (n, k) of a linear layer, packed for the forward and for the backward pass. Every call packs anew, so that no
   change of the weights is missed. Writes go along a panel, and the rows that they read stay in the first-level cache. */
static factor onward(long n, long k, in w, long row) {
  factor f = empty(k, n);
  for (long p = 0; p < n && f.panels; p += PANEL) {
    float *to = f.panels + p * k;
    if (p + PANEL <= n)
      for (long j = 0; j < k; j++)
        for (long i = 0; i < PANEL; i++) to[j * PANEL + i] = w[(p + i) * row + j];
    else
      for (long j = 0; j < k; j++)
        for (long i = 0; i < PANEL; i++) to[j * PANEL + i] = p + i < n ? w[(p + i) * row + j] : 0.0f;
  }
  return f;
}

static factor back(long n, long k, in w, long row) {
  factor f = empty(n, k);
  for (long p = 0; p < k && f.panels; p += PANEL) {
    long width = p + PANEL <= k ? PANEL : k - p;
    for (long j = 0; j < n; j++) {
      float *to = f.panels + p * n + j * PANEL;
      memcpy(to, w + j * row + p, width * sizeof(float));
      memset(to + width, 0, (PANEL - width) * sizeof(float));
    }
  }
  return f;
}

/* y (m, n) = x (m, k) w, or += if `add`; lx and ly are row strides. */
static void multiply(long threads, long m, in x, long lx, const factor w, out y, long ly, long add) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#ifdef _OPENMP
    long n = omp_get_num_threads(), t = omp_get_thread_num();
#else
    long n = 1, t = 0;
#endif
    long tiles = (m + TILE - 1) / TILE, begin = tiles * t / n * TILE, end = tiles * (t + 1) / n * TILE;
    if (end > m) end = m;
    for (long p = 0; p < w.n; p += PANEL) {
      const float *panel = w.panels + p * w.k;
      long whole = p + PANEL <= w.n, r = begin;
      if (whole)
        for (; r + TILE <= end; r += TILE) tile(TILE, w.k, x + r * lx, lx, panel, y + r * ly + p, ly, add);
      for (; r < end; r++) {
        if (whole) {
          tile(1, w.k, x + r * lx, lx, panel, y + r * ly + p, ly, add);
        } else {
          float part[PANEL], *to = y + r * ly + p;
          tile(1, w.k, x + r * lx, lx, panel, part, PANEL, 0);
          for (long i = 0; i < w.n - p; i++) to[i] = add ? to[i] + part[i] : part[i];
        }
      }
    }
  }
}

/* A gated MLP on edges. `store` holds the values of the first `kept` rows, `stored` floats per row. */
typedef struct {
  long threads, rows, copies, edge, hidden, tables, chunk, kept, stored;
  const float *x, *table[3];
  const int64_t *index[3];
  const float *weight_in;
  long weight_in_row;
  const float *bias_in, *weight_out, *bias_out, *norm_weight, *norm_shift;
  float *store;
} mlp_t;

/* Number of floats that a row keeps: the values of an MLP and `more` others. */
long stored(long copies, long edge, long hidden, long more) { return copies * (2 * hidden + 3 * edge) + more; }

/* Values of a chunk of `n` rows from `start`. `more` holds logits, or the hidden layer of the edge update. */
typedef struct {
  long start, n, copies_n;
  float *before, *core, *gate, *message, *more;
} chunk_t;

static chunk_t chunk_at(const mlp_t *a, long start, float *scratch) {
  chunk_t c = {.start = start, .n = start + a->chunk < a->rows ? a->chunk : a->rows - start};
  c.copies_n = a->copies * c.n;
  c.before = start + c.n <= a->kept ? a->store + start * a->stored : scratch;
  c.core = c.before + c.copies_n * 2 * a->hidden;
  c.gate = c.core + c.copies_n * a->edge;
  c.message = c.gate + c.copies_n * a->edge;
  c.more = c.message + c.copies_n * a->edge;
  return c;
}

static int is_kept(const mlp_t *a, chunk_t c) { return c.start + c.n <= a->kept; }
static int all_kept(const mlp_t *a) { return a->rows <= a->kept; }

/* Packed weights of a gated MLP. */
typedef struct {
  factor in, core, gate;
} weights_t;

static weights_t weights_of(const mlp_t *a, int backward) {
  factor (*take)(long, long, in, long) = backward ? back : onward;
  long e = a->edge, h = a->hidden;
  return (weights_t){take(2 * h, e, a->weight_in, a->weight_in_row), take(e, h, a->weight_out, h),
                     take(e, h, a->weight_out + e * h, h)};
}

static int complete(weights_t w) { return w.in.panels && w.core.panels && w.gate.panels; }

static void release(weights_t w) {
  free(w.in.panels);
  free(w.core.panels);
  free(w.gate.panels);
}

/* Allocate memory for a chunk: its values, then `more` floats per directed copy. */
static float *scratch_for(const mlp_t *a, long more) {
  long copies = a->chunk * a->copies, floats = a->chunk * a->stored + copies * more;
  return aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
}

/* Compute the messages of a chunk; `scratch` holds 4 * hidden floats per directed copy. */
static void messages(const mlp_t *a, weights_t w, chunk_t c, float *scratch) {
  long e = a->edge, h = a->hidden, t = a->threads;
  float *projected = scratch, *hidden = scratch + c.copies_n * 2 * h;
  multiply(t, c.n, a->x + c.start * e, e, w.in, projected, 2 * h, 0);
  add_and_silu(t, c.n, a->copies, a->rows, 2 * h, projected, a->bias_in, a->tables, a->table[0], a->index[0] + c.start,
               a->table[1], a->index[1] + c.start, a->table[2], a->index[2] + c.start, c.before, hidden);
  multiply(t, c.copies_n, hidden, 2 * h, w.core, c.core, e, 0);
  multiply(t, c.copies_n, hidden + h, 2 * h, w.gate, c.gate, e, 0);
  gate(t, c.copies_n, e, c.core, c.gate, a->bias_out, a->norm_weight, a->norm_shift, c.message);
}

/* Backward pass of messages; adds to the gradients. `scratch` holds 4 * hidden + 2 * edge floats per directed copy. */
static void messages_backward(const mlp_t *a, weights_t w, chunk_t c, in g_message, float *const *g_table, out g_x,
                              float *scratch) {
  long e = a->edge, h = a->hidden, t = a->threads;
  float *hidden = scratch, *projected = hidden + c.copies_n * 2 * h;
  float *core = projected + c.copies_n * 2 * h, *gate = core + c.copies_n * e;
  gate_backward(t, c.copies_n, e, c.core, c.gate, a->bias_out, a->norm_weight, a->norm_shift, g_message, core, gate);
  multiply(t, c.copies_n, core, e, w.core, hidden, 2 * h, 0);
  multiply(t, c.copies_n, gate, e, w.gate, hidden + h, 2 * h, 0);
  add_and_silu_backward(t, c.n, a->copies, a->rows, 2 * h, c.before, hidden, a->tables, g_table[0],
                        a->index[0] + c.start, g_table[1], a->index[1] + c.start, g_table[2], a->index[2] + c.start,
                        projected);
  multiply(t, c.n, projected, 2 * h, w.in, g_x, e, 1);
}

/* Request huge pages for a range of addresses, if the system has them; they need fewer page faults than 4 kB pages. */
int in_large_pages(float *first, float *last) {
#ifdef MADV_HUGEPAGE
  uintptr_t page = 1 << 21, from = ((uintptr_t)first + page - 1) & ~(page - 1), to = (uintptr_t)last & ~(page - 1);
  if (to > from) madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
  (void)first, (void)last;
#endif
  return 0;
}

/* The functions below return 1 if memory runs out, else 0. */

/* Messages of an attention. Logits are to base two; a row holds those by target, then those by source. `envelope` and
   `exponent` are NULL, or hold a factor of the weights of each edge and its limited logarithm to base two. */
int attention(const mlp_t *a, in logits, in residual, in envelope, in exponent, out target_peak, out source_peak,
              out target_sum, out target_norm, out source_sum, out source_norm, out new_edge) {
  long e = a->edge, t = a->threads;
  weights_t w = weights_of(a, 0);
  factor to_logits = onward(2 * e, e, logits, e);
  float *values = scratch_for(a, 4 * a->hidden), *scratch = values + a->chunk * a->stored;
  int failed = !(complete(w) && to_logits.panels && values);
  for (long start = 0; start < a->rows && !failed; start += a->chunk) {
    chunk_t c = chunk_at(a, start, values);
    multiply(t, c.n, a->x + start * e, e, to_logits, c.more, 2 * e, 0);
    largest(t, c.n, a->copies, a->rows, e, c.more, exponent ? exponent + start : NULL, a->index[0] + start,
            a->index[1] + start, target_peak, source_peak);
  }
  for (long start = 0; start < a->rows && !failed; start += a->chunk) {
    chunk_t c = chunk_at(a, start, values);
    if (!is_kept(a, c)) multiply(t, c.n, a->x + start * e, e, to_logits, c.more, 2 * e, 0);
    messages(a, w, c, scratch);
    attend(t, c.n, a->copies, a->rows, e, c.more, envelope ? envelope + start : NULL, c.message, a->index[0] + start,
           a->index[1] + start, target_peak, source_peak, target_sum, target_norm, source_sum, source_norm,
           a->x + start * e, residual, new_edge + start * e);
  }
  release(w);
  free(to_logits.panels);
  free(values);
  return failed;
}

/* Backward pass of attention; `natural` are the weights of the logits to base e. `envelope` and `g_envelope` may be
   NULL. */
int attention_backward(const mlp_t *a, in logits, in natural, in residual, in envelope, in target_peak, in source_peak,
                       in g_target_sum, in g_target_norm, in g_source_sum, in g_source_norm, in g_new, float *g_target,
                       float *g_source, out g_x, out g_envelope) {
  long e = a->edge, t = a->threads, copies = a->chunk * a->copies;
  weights_t w = {0}, v = weights_of(a, 1);
  factor to_logits = {0}, from_logits = back(2 * e, e, natural, e);
  if (!all_kept(a)) w = weights_of(a, 0), to_logits = onward(2 * e, e, logits, e);
  float *values = scratch_for(a, 4 * a->hidden + 5 * e), *g_tables[3] = {g_target, g_source, NULL};
  float *g_message = values + a->chunk * a->stored, *g_logits = g_message + copies * e, *scratch = g_logits + copies * 2 * e;
  int failed = !(complete(v) && from_logits.panels && values && (all_kept(a) || (complete(w) && to_logits.panels)));
  for (long start = 0; start < a->rows && !failed; start += a->chunk) {
    chunk_t c = chunk_at(a, start, values);
    if (!is_kept(a, c)) {
      multiply(t, c.n, a->x + start * e, e, to_logits, c.more, 2 * e, 0);
      messages(a, w, c, scratch);
    }
    in u = envelope ? envelope + start : NULL;
    attend_backward(t, c.n, a->copies, a->rows, e, c.more, u, c.message, a->index[0] + start, a->index[1] + start,
                    target_peak, source_peak, g_target_sum, g_target_norm, g_source_sum, g_source_norm,
                    g_new + start * e, g_message, g_logits);
    if (u) envelope_backward(t, c.n, e, g_logits, u, g_envelope + start);
    scaled(t, c.n, e, g_new + start * e, residual, g_x + start * e);
    multiply(t, c.n, g_logits, 2 * e, from_logits, g_x + start * e, e, 1);
    messages_backward(a, v, c, g_message, g_tables, g_x + start * e, scratch);
  }
  release(w);
  release(v);
  free(to_logits.panels);
  free(from_logits.panels);
  free(values);
  return failed;
}

/* Update of the edges: linear, SiLU, mean over copies, linear. `first` is NULL if there is no update. */
typedef struct {
  long smooth;
  const float *first, *first_bias, *second, *second_bias, *residual;
} update_t;

/* Compute the enveloped messages of a chunk, summed unless `pooled` is NULL, and the hidden layer of the update. */
static void enveloped(const mlp_t *a, const update_t *u, factor first, chunk_t c, in envelope, index_t entry, out smooth,
                      out pooled) {
  long e = a->edge, t = a->threads;
  if (pooled || (u->first && u->smooth))
    pool(t, c.n, a->copies, a->rows, e, c.message, envelope, entry + c.start, a->index[0] + c.start, smooth, pooled);
  if (!u->first) return;
  multiply(t, c.copies_n, u->smooth ? smooth : c.message, e, first, c.more, e, 0);
  add_bias(t, c.copies_n, e, u->first_bias, c.more);
}

/* Messages of a refinement. */
int refinement(const mlp_t *a, const update_t *u, in envelope, index_t entry, out new_edge, out pooled) {
  long e = a->edge, t = a->threads;
  weights_t w = weights_of(a, 0);
  factor first = {0}, second = {0};
  if (u->first) first = onward(e, e, u->first, e), second = onward(e, e, u->second, e);
  float *values = scratch_for(a, 4 * a->hidden + 2 * e), *smooth = values + a->chunk * a->stored;
  float *mean = smooth + a->chunk * a->copies * e, *scratch = mean + a->chunk * a->copies * e;
  int failed = !(complete(w) && values && (!u->first || (first.panels && second.panels)));
  for (long start = 0; start < a->rows && !failed; start += a->chunk) {
    chunk_t c = chunk_at(a, start, values);
    messages(a, w, c, scratch);
    enveloped(a, u, first, c, envelope, entry, smooth, pooled);
    if (!u->first) continue;
    mean_silu(t, c.n, a->copies, e, c.more, mean);
    scaled(t, c.n, e, a->x + start * e, u->residual, new_edge + start * e);
    multiply(t, c.n, mean, e, second, new_edge + start * e, e, 1);
    add_bias(t, c.n, e, u->second_bias, new_edge + start * e);
  }
  release(w);
  free(first.panels);
  free(second.panels);
  free(values);
  return failed;
}

/* Backward pass of refinement; g_new is NULL if edges are not updated. */
int refinement_backward(const mlp_t *a, const update_t *u, in envelope, index_t entry, in g_new, in g_pooled,
                        float *g_target, float *g_source, float *g_center, out g_envelope, out g_x) {
  long e = a->edge, t = a->threads, copies = a->chunk * a->copies;
  weights_t w = {0}, v = weights_of(a, 1);
  factor first = {0}, first_back = {0}, second_back = {0};
  if (!all_kept(a)) w = weights_of(a, 0);
  if (u->first) {
    if (!all_kept(a)) first = onward(e, e, u->first, e);
    first_back = back(e, e, u->first, e);
    second_back = back(e, e, u->second, e);
  }
  float *values = scratch_for(a, 4 * a->hidden + 6 * e), *g_tables[3] = {g_target, g_source, g_center};
  float *smooth = values + a->chunk * a->stored, *g_message = smooth + copies * e, *g_inner = g_message + copies * e;
  float *arriving = g_inner + copies * e, *scratch = arriving + copies * e;
  int failed = !(complete(v) && values && (!u->first || (first_back.panels && second_back.panels)) &&
                 (all_kept(a) || (complete(w) && (!u->first || first.panels))));
  for (long start = 0; start < a->rows && !failed; start += a->chunk) {
    chunk_t c = chunk_at(a, start, values);
    if (!is_kept(a, c)) {
      messages(a, w, c, scratch);
      enveloped(a, u, first, c, envelope, entry, smooth, NULL);
    }
    if (u->first) { /* g_message holds the gradient of the mean until pool_backward overwrites it */
      multiply(t, c.n, g_new + start * e, e, second_back, g_message, e, 0);
      mean_silu_backward(t, c.n, a->copies, e, c.more, g_message, g_inner);
      multiply(t, c.copies_n, g_inner, e, first_back, arriving, e, 0);
    }
    pool_backward(t, c.n, a->copies, a->rows, e, c.message, envelope, entry + start, a->index[0] + start, g_pooled,
                  u->first ? arriving : NULL, u->smooth, g_message, g_envelope);
    scaled(t, c.n, e, u->first ? g_new + start * e : NULL, u->residual, g_x + start * e);
    messages_backward(a, v, c, g_message, g_tables, g_x + start * e, scratch);
  }
  release(w);
  release(v);
  free(first.panels);
  free(first_back.panels);
  free(second_back.panels);
  free(values);
  return failed;
}
