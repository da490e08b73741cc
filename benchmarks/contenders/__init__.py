"""A file for every way of training the model that is timed; `registry` lists them."""
