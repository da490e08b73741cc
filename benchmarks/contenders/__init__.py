"""The contenders, a file for each way of training; `benchmarks.registry` lists them."""
