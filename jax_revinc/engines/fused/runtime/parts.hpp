// The kernel comes in parts, each a function that a few examples go through one after the other: the whole is longer
// than what a CPU's caches of instructions hold, so it is fetched once for all of them. Before it come P, the type of a
// parameter, N_TOKENS, and N_MEANWHILE, how many numbers are kept from part to part.

constexpr int TOGETHER = 2;  // more would need more room for what is kept than a CPU has nearby

// Parameters, the examples' tokens, the outputs, how far the outputs of one example are from those of the next (0: they
// are added up), what is kept, and the number of examples.
#define PART_ARGUMENTS                                                                                    \
  const P *__restrict p, const I (*__restrict tokens)[N_TOKENS], V *__restrict outputs, int64_t to_next, \
      V (*__restrict kept)[N_MEANWHILE], int n

// The head of a part, whose statements see one example: parameters `p`, tokens `t`, outputs `g` and what is kept, `s`.
#define PART(k)                                                            \
  static __attribute__((noinline)) void part_##k(PART_ARGUMENTS) {         \
    for (int e = 0; e < n; e++) {                                          \
      const I *__restrict t = tokens[e];                                   \
      V *__restrict g = outputs + e * to_next, *__restrict s = kept[e];    \
      BARRIER
#define END_OF_PART \
  }                 \
  }
