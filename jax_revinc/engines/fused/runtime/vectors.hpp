// Arithmetic on lanes, in the vector extensions that GCC and clang share. Defined before: F (float
// or double), LANES. NaN and infinities are as in IEEE 754, except that exp returns 0 where its
// value is below 2^-125 (2^-1021).

#include <cmath>
#include <cstdint>

typedef F V __attribute__((vector_size(sizeof(F) * LANES)));
typedef decltype(V{} < V{}) I;  // integers as wide as F, and truth: 0 or -1

#define INLINE static inline __attribute__((always_inline))
// Keeps the compiler from moving what it loads across the whole of a long function.
#define BARRIER asm volatile("" ::: "memory");

constexpr bool WIDE = sizeof(F) == 8;
constexpr int MANTISSA = WIDE ? 52 : 23, BIAS = WIDE ? 1023 : 127;
constexpr F ROUNDER = F(WIDE ? 0x1.8p52 : 0x1.8p23);  // added, it leaves integers in the lowest bits
// ln 2 in two parts, the first so short that its products with exponents are exact (fdlibm,
// e_exp.c).
constexpr F LN2_HI = F(WIDE ? 6.93147180369123816490e-01 : 0x1.62e4p-1);
constexpr F LN2_LO = F(WIDE ? 1.90821492927058770002e-10 : 0x1.7f7d1cf79abcap-20);
constexpr F LOG2_E = F(1.44269504088896340736), INF = F(INFINITY);

INLINE V every(F x) { return x - V{}; }
INLINE V every(V x) { return x; }

INLINE V larger(F a, V b) { return every(a) > b ? every(a) : b; }  // NaN if b is
INLINE V larger(V a, V b) { return (a > b) | (a != a) ? a : b; }

INLINE V square_root(V x) {
#ifdef __clang__
  return __builtin_elementwise_sqrt(x);
#else
  V root;
  for (int lane = 0; lane < LANES; lane++) root[lane] = std::sqrt(x[lane]);
  return root;
#endif
}

// x = n ln 2 + r with |r| <= ln 2 / 2. Returns e^r - 1 by its Taylor series, and sets `half_scale`
// to 2^(n - 1).
INLINE V reduced_expm1(V x, V &half_scale) {
  const V shifted = x * LOG2_E + ROUNDER, n = shifted - ROUNDER;
  const V r = (x - n * LN2_HI) - n * LN2_LO;
  half_scale = (V)(((I)shifted << MANTISSA) + ((int64_t)(BIAS - 1) << MANTISSA));
  constexpr F INVERSE_FACTORIALS[] = {
      F(1. / 2), F(1. / 6), F(1. / 24), F(1. / 120), F(1. / 720), F(1. / 5040), F(1. / 40320),
      F(1. / 362880), F(1. / 3628800), F(1. / 39916800), F(1. / 479001600), F(1. / 6227020800)};
  constexpr int LAST = WIDE ? 11 : 5;  // up to r^13 (r^7): the rest is below 2^-57 (2^-27)
  V series = every(INVERSE_FACTORIALS[LAST]);
#pragma GCC unroll 16
  for (int i = LAST - 1; i >= 0; i--) series = series * r + INVERSE_FACTORIALS[i];
  return series * (r * r) + r;
}

INLINE V exponential(V x) {
  constexpr F MOST = F(WIDE ? 710 : 89), LEAST = F(WIDE ? -708.39 : -87.33);
  const V below = every(MOST) < x ? every(MOST) : x;  // a NaN stays one
  V half_scale;
  const V grown = reduced_expm1(every(LEAST) > below ? every(LEAST) : below, half_scale);
  return (grown * F(2) + F(2)) * half_scale;
}

INLINE V hyperbolic_tangent(V x) {
  constexpr F MOST = F(WIDE ? 20 : 10);  // from where on it is 1
  const V below = every(MOST) < x ? every(MOST) : x;
  V half_scale;
  const V grown = reduced_expm1((every(-MOST) > below ? every(-MOST) : below) * F(2), half_scale);
  const V scale = half_scale + half_scale, expm1 = scale * grown + (scale - F(1));
  return expm1 / (expm1 + F(2));
}

INLINE V logarithm(V x) {
  constexpr F SMALLEST = F(WIDE ? 0x1p-1022 : 0x1p-126), UP = F(WIDE ? 0x1p54 : 0x1p25);
  const I is_subnormal = x < every(SMALLEST);
  const I bits = (I)(is_subnormal ? x * UP : x);
  const I e = (bits - (I)every(F(M_SQRT1_2))) >> MANTISSA;
  const V m = (V)(bits - (e << MANTISSA));  // between sqrt(1/2) and sqrt(2)
  const V exponent = __builtin_convertvector(e, V) - (is_subnormal ? every(F(WIDE ? 54 : 25)) : V{});
  const V z = (m - F(1)) / (m + F(1)), w = z * z;  // log m = 2 artanh z = 2 (z + z^3/3 + ...)
  constexpr int LAST = WIDE ? 21 : 9;
  V series = every(F(1) / LAST);
#pragma GCC unroll 16
  for (int i = LAST - 2; i >= 3; i -= 2) series = series * w + F(1) / i;
  const V near_one = F(2) * (series * w * z + z);
  const V result = exponent * LN2_HI + (near_one + exponent * LN2_LO);
  return x == INF ? x : x > F(0) ? result : x == F(0) ? every(-INF) : every(F(NAN));
}
