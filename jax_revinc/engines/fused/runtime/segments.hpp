// The kernel is split so that each segment fits the instruction cache: a few examples run through
// one segment before the next. Defined before: P (the type of a parameter), N_TOKENS, and N_SLOTS
// (values stored between segments).

constexpr int TOGETHER = 2;  // with more examples, their slots would not fit the data cache

// The parameters; the tokens of each example; the outputs; the distance between the outputs of one
// example and of the next (0: they are added up); the slots of each example; the number of
// examples.
#define SEGMENT_ARGUMENTS                                                              \
  const P *__restrict p, const I (*__restrict tokens)[N_TOKENS], V *__restrict outputs, \
      int64_t to_next, V (*__restrict example_slots)[N_SLOTS], int n

// The head of a segment. Its statements see one example: parameters `p`, tokens `t`, outputs `g`
// and `slots`.
#define SEGMENT(k)                                                                     \
  static __attribute__((noinline)) void segment_##k(SEGMENT_ARGUMENTS) {               \
    for (int e = 0; e < n; e++) {                                                      \
      const I *__restrict t = tokens[e];                                               \
      V *__restrict g = outputs + e * to_next, *__restrict slots = example_slots[e];   \
      BARRIER
#define END_OF_SEGMENT \
  }                    \
  }
