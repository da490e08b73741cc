"""The atlas, an HTML page of a population: how well its models learn, and what they learn."""
