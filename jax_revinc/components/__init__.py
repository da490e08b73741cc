"""The modules of the transformer, such as attention and MLPs; the config chooses their variants.

Attribute names are TransformerLens', so attribute paths are its parameter names.

Shape suffixes in the maths, here and in the analysis: B batch, P position, Q query position, K key
position, H head, M d_model, E d_head, F d_mlp, V d_vocab, L layer, R rotary_dim, C component,
S sender, X token or position, I predicted position, T deciding token, U output token.
"""
