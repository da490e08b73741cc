"""The page of a population and its tables: what thousands of models reach, and what they learned."""
