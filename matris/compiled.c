/* What lies between the matrix products of the network, forward and backward, one pass each (see compiled.py).

   Arrays are float32, row-major and contiguous. `rows` edges have `copies` directed copies each, the first copies of
   all rows first; an index of copy j of row r stands at [j * stride + r]. Loops that add up by segment share columns
   among threads, the others rows: results do not depend on the number of threads. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#define LOG2_E 1.44269504088896341f
#define LN_2 0.693147180559945309f
#define EPS 1e-5f
#define WIDEST 1024 /* channels; the Python side asks */
#define EACH(i, from, to) _Pragma("omp simd") for (long i = (from); i < (to); i++)

typedef const float *restrict in;
typedef float *restrict out;
typedef const int64_t *restrict index_t;

/* 2^x to 1e-7 relative, for |x| < 126 and clamped beyond; NaN stays NaN. */
static inline float power(float x) {
  x = x > 126.0f ? 126.0f : x;
  x = x < -126.0f ? -126.0f : x;
  float whole = rintf(x), t = (x - whole) * LN_2;
  float series = 1.0f + t * (1.0f + t * (1.0f / 2 + t * (1.0f / 6 + t * (1.0f / 24 + t * (1.0f / 120 + t * (1.0f / 720))))));
  union { int32_t i; float f; } scale = {.i = ((int32_t)whole + 127) << 23};
  return series * scale.f;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + power(-LOG2_E * x)); }

/* Columns of this thread, in multiples of a cache line. */
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

/* hidden = silu(pre), pre = x of the row + bias + entries of two or three tables. */
void add_and_silu(long threads, long rows, long copies, long stride, long width, in x, in bias, long tables, in t0,
                  index_t i0, in t1, index_t i1, in t2, index_t i2, out pre, out hidden) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long k = 0; k < rows * copies; k++) {
    long r = k % rows, at = k / rows * stride + r;
    in a = x + r * width, b = t0 + i0[at] * width, c = t1 + i1[at] * width;
    in d = tables > 2 ? t2 + i2[at] * width : NULL;
    float *p = pre + k * width, *h = hidden + k * width;
    if (d)
      EACH(i, 0, width) p[i] = a[i] + bias[i] + b[i] + c[i] + d[i];
    else
      EACH(i, 0, width) p[i] = a[i] + bias[i] + b[i] + c[i];
    EACH(i, 0, width) h[i] = p[i] * sigmoid(p[i]);
  }
}

/* Gradients of the above, from that of hidden (changed into that of pre). */
void add_and_silu_backward(long threads, long rows, long copies, long stride, long width, in pre, out gradient,
                           long tables, out g0, index_t i0, out g1, index_t i1, out g2, index_t i2, out gx) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    for (long k = 0; k < rows * copies; k++) {
      long r = k % rows, at = k / rows * stride + r;
      const float *p = pre + k * width;
      float *g = gradient + k * width, *x = gx + r * width;
      float *a = g0 + i0[at] * width, *b = g1 + i1[at] * width, *c = tables > 2 ? g2 + i2[at] * width : NULL;
      EACH(i, from, to) {
        float s = sigmoid(p[i]);
        g[i] *= s * (1.0f + p[i] * (1.0f - s));
      }
      EACH(i, from, to) a[i] += g[i];
      EACH(i, from, to) b[i] += g[i];
      if (c) EACH(i, from, to) c[i] += g[i];
      if (k < rows)
        EACH(i, from, to) x[i] = g[i];
      else
        EACH(i, from, to) x[i] += g[i];
    }
  }
}

/* Mean and reciprocal deviation of x + bias, which goes to y. */
static inline void moments(long width, in x, in bias, out y, float *mean, float *scale) {
  float sum = 0, square = 0;
#pragma omp simd reduction(+ : sum)
  for (long i = 0; i < width; i++) {
    y[i] = x[i] + bias[i];
    sum += y[i];
  }
  *mean = sum / width;
#pragma omp simd reduction(+ : square)
  for (long i = 0; i < width; i++) square += (y[i] - *mean) * (y[i] - *mean);
  *scale = 1.0f / sqrtf(square / width + EPS);
}

/* message = silu(norm(core)) * sigmoid(norm(gate)); biases, weights and shifts have those of core, then of gate. */
void gate(long threads, long n, long width, in core, in gate, in bias, in weight, in shift, out message) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long k = 0; k < n; k++) {
    float a[WIDEST], b[WIDEST], am, as, bm, bs, *m = message + k * width;
    moments(width, core + k * width, bias, a, &am, &as);
    moments(width, gate + k * width, bias + width, b, &bm, &bs);
    EACH(i, 0, width) {
      float x = (a[i] - am) * as * weight[i] + shift[i];
      float y = (b[i] - bm) * bs * weight[width + i] + shift[width + i];
      m[i] = x * sigmoid(x) * sigmoid(y);
    }
  }
}

/* Gradient through a norm: x holds normalised values, g what arrives at them. */
static inline void norm_backward(long width, in x, in g, float scale, out gx) {
  float sum = 0, along = 0;
#pragma omp simd reduction(+ : sum, along)
  for (long i = 0; i < width; i++) {
    sum += g[i];
    along += g[i] * x[i];
  }
  sum /= width;
  along /= width;
  EACH(i, 0, width) gx[i] = scale * (g[i] - sum - x[i] * along);
}

void gate_backward(long threads, long n, long width, in core, in gate, in bias, in weight, in shift, in gradient,
                   out g_core, out g_gate) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long k = 0; k < n; k++) {
    float a[WIDEST], b[WIDEST], ga[WIDEST], gb[WIDEST], am, as, bm, bs;
    in g = gradient + k * width;
    moments(width, core + k * width, bias, a, &am, &as);
    moments(width, gate + k * width, bias + width, b, &bm, &bs);
    EACH(i, 0, width) {
      a[i] = (a[i] - am) * as;
      b[i] = (b[i] - bm) * bs;
      float x = a[i] * weight[i] + shift[i], y = b[i] * weight[width + i] + shift[width + i];
      float sx = sigmoid(x), sy = sigmoid(y);
      ga[i] = g[i] * sy * sx * (1.0f + x * (1.0f - sx)) * weight[i];
      gb[i] = g[i] * x * sx * sy * (1.0f - sy) * weight[width + i];
    }
    norm_backward(width, a, ga, as, g_core + k * width);
    norm_backward(width, b, gb, bs, g_gate + k * width);
  }
}

/* Largest logits of each segment; a row has width logits by target, then width by source. */
void largest(long threads, long rows, long copies, long stride, long width, in logits, index_t target, index_t source,
             out at_target, out at_source) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    for (long k = 0; k < rows * copies; k++) {
      long r = k % rows, at = k / rows * stride + r;
      in l = logits + 2 * r * width, s = l + width;
      float *a = at_target + target[at] * width, *b = at_source + source[at] * width;
      EACH(i, from, to) a[i] = l[i] > a[i] ? l[i] : a[i];
      EACH(i, from, to) b[i] = s[i] > b[i] ? s[i] : b[i];
    }
  }
}

/* Sums of messages weighted by 2^(logit - largest), and of the weights; new edge = mean message + residual * edge. */
void attend(long threads, long rows, long copies, long stride, long width, in logits, in message, index_t target,
            index_t source, in target_peak, in source_peak, out target_sum, out target_norm, out source_sum,
            out source_norm, in edge, in residual, out new_edge) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    for (long k = 0; k < rows * copies; k++) {
      long r = k % rows, at = k / rows * stride + r, t = target[at] * width, s = source[at] * width;
      in by_target = logits + 2 * r * width, by_source = by_target + width;
      in m = message + k * width, pt = target_peak + t, ps = source_peak + s, e = edge + r * width;
      float *ts = target_sum + t, *tn = target_norm + t, *ss = source_sum + s, *sn = source_norm + s;
      float *x = new_edge + r * width, part = 1.0f / copies;
      EACH(i, from, to) {
        float w = power(by_target[i] - pt[i]);
        ts[i] += w * m[i];
        tn[i] += w;
      }
      EACH(i, from, to) {
        float w = power(by_source[i] - ps[i]);
        ss[i] += w * m[i];
        sn[i] += w;
      }
      if (k < rows)
        EACH(i, from, to) x[i] = part * m[i] + residual[i] * e[i];
      else
        EACH(i, from, to) x[i] += part * m[i];
    }
  }
}

/* Gradients by message and by logits, the latter of base e. */
void attend_backward(long threads, long rows, long copies, long stride, long width, in logits, in message,
                     index_t target, index_t source, in target_peak, in source_peak, in g_target_sum,
                     in g_target_norm, in g_source_sum, in g_source_norm, in g_edge, out g_message, out g_logits) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    for (long k = 0; k < rows * copies; k++) {
      long r = k % rows, at = k / rows * stride + r, t = target[at] * width, s = source[at] * width;
      in by_target = logits + 2 * r * width, by_source = by_target + width;
      in m = message + k * width, pt = target_peak + t, ps = source_peak + s, ge = g_edge + r * width;
      in ts = g_target_sum + t, tn = g_target_norm + t, ss = g_source_sum + s, sn = g_source_norm + s;
      float *g = g_message + k * width, *gt = g_logits + 2 * r * width, *gs = gt + width, part = 1.0f / copies;
      if (k < rows)
        EACH(i, from, to) gt[i] = gs[i] = 0;
      EACH(i, from, to) {
        float wt = power(by_target[i] - pt[i]), ws = power(by_source[i] - ps[i]);
        g[i] = part * ge[i] + wt * ts[i] + ws * ss[i];
        gt[i] += wt * (m[i] * ts[i] + tn[i]);
        gs[i] += ws * (m[i] * ss[i] + sn[i]);
      }
    }
  }
}

/* smooth = message * entry of a table of envelopes, added up by target. */
void pool(long threads, long rows, long copies, long stride, long width, in message, in table, index_t entry,
          index_t target, out smooth, out pooled) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    for (long k = 0; k < rows * copies; k++) {
      long at = k / rows * stride + k % rows;
      in m = message + k * width, e = table + entry[at] * width;
      float *s = smooth + k * width, *p = pooled + target[at] * width;
      EACH(i, from, to) {
        s[i] = m[i] * e[i];
        p[i] += s[i];
      }
    }
  }
}

/* Gradients by message (g_message) and by the table; `gradient`, or NULL, arrives at smooth or, if not, at message. */
void pool_backward(long threads, long rows, long copies, long stride, long width, in message, in table, index_t entry,
                   index_t target, in g_pooled, in gradient, long at_smooth, out g_message, out g_table) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    long from, to;
    share(width, &from, &to);
    for (long k = 0; k < rows * copies; k++) {
      long at = k / rows * stride + k % rows;
      in m = message + k * width, e = table + entry[at] * width, p = g_pooled + target[at] * width;
      in arriving = gradient ? gradient + k * width : NULL;
      float *g = g_message + k * width, *ge = g_table + entry[at] * width;
      float to_smooth = arriving && at_smooth ? 1.0f : 0.0f, to_message = arriving && !at_smooth ? 1.0f : 0.0f;
      in more = arriving ? arriving : m; /* times zero */
      EACH(i, from, to) {
        float s = p[i] + to_smooth * more[i];
        g[i] = s * e[i] + to_message * more[i];
        ge[i] += s * m[i];
      }
    }
  }
}

/* Mean over copies of silu(x). */
void mean_silu(long threads, long rows, long copies, long width, in x, out y) {
  float part = 1.0f / copies;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long r = 0; r < rows; r++) {
    float *b = y + r * width;
    EACH(i, 0, width) b[i] = 0;
    for (long j = 0; j < copies; j++) {
      in a = x + (j * rows + r) * width;
      EACH(i, 0, width) b[i] += part * a[i] * sigmoid(a[i]);
    }
  }
}

void mean_silu_backward(long threads, long rows, long copies, long width, in x, in gradient, out gx) {
  float part = 1.0f / copies;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long r = 0; r < rows; r++) {
    in g = gradient + r * width;
    for (long j = 0; j < copies; j++) {
      in a = x + (j * rows + r) * width;
      float *b = gx + (j * rows + r) * width;
      EACH(i, 0, width) {
        float s = sigmoid(a[i]);
        b[i] = part * g[i] * s * (1.0f + a[i] * (1.0f - s));
      }
    }
  }
}

/* Products. A panel of 32 columns of the second factor stays in the first cache; a tile of 12 rows in registers. */
#define PANEL 32
#define TILE 8
#define BLOCK 240

typedef float vector __attribute__((vector_size(64), aligned(4)));

long has_product(void) {
#ifdef __AVX512F__
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

/* y (m, n) = x (m, k) w (k, n), or += ; n is a multiple of 32; lx, ly, wk and wn are strides. Non-zero for no memory. */
int product(long threads, long m, long n, long k, in x, long lx, in w, long wk, long wn, out y, long ly, long add) {
  float *panels = aligned_alloc(64, ((size_t)n * k * sizeof(float) + 63) & ~(size_t)63);
  if (!panels) return 1;
  for (long p = 0; p < n; p += PANEL)
    for (long j = 0; j < k; j++)
      for (long i = 0; i < PANEL; i++) panels[p * k + j * PANEL + i] = w[j * wk + (p + i) * wn];
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (long block = 0; block < m; block += BLOCK) {
    long end = block + BLOCK < m ? block + BLOCK : m;
    for (long p = 0; p < n; p += PANEL) {
      long r = block;
      in panel = panels + p * k;
      for (; r + TILE <= end; r += TILE) tile(TILE, k, x + r * lx, lx, panel, y + r * ly + p, ly, add);
      for (; r + 4 <= end; r += 4) tile(4, k, x + r * lx, lx, panel, y + r * ly + p, ly, add);
      for (; r < end; r++) tile(1, k, x + r * lx, lx, panel, y + r * ly + p, ly, add);
    }
  }
  free(panels);
  return 0;
}
