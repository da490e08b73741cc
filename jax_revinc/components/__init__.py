"""The transformer's parts, each chosen once by the config. Attribute names are TransformerLens', so paths are its parameter names.

Shape suffixes in the maths: B batch, P position, Q query position, K key position, H head, M d_model,
E d_head, F d_mlp, V d_vocab.
"""
