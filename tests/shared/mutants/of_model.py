"""Faults in the model: names, the forward and the backward pass, interventions."""

from __future__ import annotations

from mutants.planting import MODEL, SQUARE, part, planting, tap, training, whole

from jax_revinc import objective

loss = planting("model", objective)

VARIANCE = "(x**2).mean(-1, keepdims=True)"
SCALE = f"jnp.sqrt({VARIANCE} + self.eps)"
HOOKED_POSITIONS = 'tap("hook_pos_embed", positions.embed(self.W_pos, batch, length))'
POSITIONS = "return jnp.broadcast_to(W_pos_PM, (batch, *W_pos_PM.shape))"
ATTENTION = "attn_out_BPM"
AFTER_ATTENTION = f'tap("hook_resid_mid", resid_BPM + {ATTENTION})'

GELU = training(MODEL.replace(act_fn="gelu"))

MUTANTS = [
    # L0
    part(
        "a hook renamed", '"hook_attn_scores"', '"hook_scores"', L0="blocks.0.attn.hook_attn_scores"
    ),
    part(
        "a hook forgotten",
        'tap("hook_pre", x_BPM @ self.W_in + self.b_in)',
        "x_BPM @ self.W_in + self.b_in",
        L0="blocks.0.mlp.hook_pre",
    ),
    part(
        "a hook too many",
        'return tap("hook_post", self.neurons(x_BPM, tap)) @ self.W_out + self.b_out',
        'return tap("hook_out", tap("hook_post", self.neurons(x_BPM, tap)) @ self.W_out + self.b_out)',
        L0="blocks.0.mlp.hook_out",
    ),
    part(
        "queries with their heads first",
        "project_heads(query_input, self.W_Q, self.b_Q))",
        "project_heads(query_input, self.W_Q, self.b_Q).swapaxes(1, 2)).swapaxes(1, 2)",
        L0="blocks.0.attn.hook_q",
    ),
    part(
        "hook_z behind W_O",
        'jnp.einsum("bphe,hem->bpm", z_BPHE, W_O_HEM)',
        'tap("hook_z", jnp.einsum("bphe,hem->bpm", z_BPHE, W_O_HEM))',
        L0="blocks.0.attn.hook_z",
    ),
    part(
        "positional embedding hooked before it is repeated",
        POSITIONS,
        "return W_pos_PM",
        L0="hook_pos_embed",
    ),
    # L1 embeddings
    part(
        "token embedding scaled",
        "return self.W_E[tokens_BP]",
        "return self.W_E[tokens_BP] * 2",
        L1="hook_embed",
    ),
    part(
        "positional embedding shifted by one",
        "W_pos[self.offset : self.offset + length]",
        "W_pos[self.offset + 1 : self.offset + length + 1]",
        L1="hook_pos_embed",
    ),
    part(
        "positional embedding not added",
        "embed_BPM + self.vectors(embed_BPM, positions, tap)",
        "embed_BPM + 0 * self.vectors(embed_BPM, positions, tap)",
        L1="blocks.0.hook_resid_pre",
    ),
    # norm
    part(
        "epsilon outside the root",
        SCALE,
        f"jnp.sqrt({VARIANCE}) + self.eps",
        L1="blocks.0.ln1.hook_scale",
    ),
    part("epsilon of 1e-12", "self.eps = eps", "self.eps = 1e-12", L1="blocks.0.ln1.hook_scale"),
    part("epsilon of 1e-6", "self.eps = eps", "self.eps = 1e-6", L1="blocks.0.ln1.hook_scale"),
    part(
        "variance over n - 1",
        VARIANCE,
        "x.var(-1, ddof=1, keepdims=True)",
        L1="blocks.0.ln1.hook_scale",
    ),
    part("not centred", "x - x.mean(-1, keepdims=True)", "x", L1="blocks.0.ln1.hook_scale"),
    part(
        "hook_scale shows the inverse of the scale",
        f'tap("hook_scale", {SCALE})',
        f'1 / tap("hook_scale", 1 / {SCALE})',
        L1="blocks.0.ln1.hook_scale",
    ),
    part(
        "gain forgotten",
        "super().__call__(x, tap) * self.w + self.b",
        "super().__call__(x, tap) + self.b",
        L1="blocks.0.attn.hook_q",
    ),
    part("bias forgotten", "* self.w + self.b", "* self.w", L1="blocks.0.attn.hook_q"),
    part(
        "hook_normalized after the gain and bias",
        "super().__call__(x, tap) * self.w + self.b",
        'tap("hook_normalized", super().__call__(x, tap) * self.w + self.b)',
        L1="blocks.0.ln1.hook_normalized",
    ),
    part(
        "ln1 dropped",
        "return normalized, normalized, normalized",
        "return resid, resid, resid",
        L1="blocks.0.attn.hook_q",
    ),
    part(
        "ln2 dropped", "self.mlp(normalized_BPM,", "self.mlp(resid_BPM,", L1="blocks.0.mlp.hook_pre"
    ),
    whole("ln_final dropped", "resid_BPM = self.ln_final(", "self.ln_final(", L1="unembed.hook_in"),
    # attention
    part("attention scale missing", " / self.scale", "", L1="blocks.0.attn.hook_attn_scores"),
    part(
        "attention scaled by d_model",
        "(cfg.attn_scale or 1.0)",
        "cfg.d_model**0.5",
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "mask: no position sees itself",
        "np.tri(n_queries, n_keys, dtype=bool)",
        "np.tri(n_queries, n_keys, -1, dtype=bool)",
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "mask: every position sees the next",
        "np.tri(n_queries, n_keys, dtype=bool)",
        "np.tri(n_queries, n_keys, 1, dtype=bool)",
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "mask of -1e5 for -inf",
        "scores_BHQK, -jnp.inf",
        "scores_BHQK, -1e5",
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "softmax over queries",
        "jax.nn.softmax(scores_BHQK, axis=-1)",
        "jax.nn.softmax(scores_BHQK, axis=-2)",
        L1="blocks.0.attn.hook_pattern",
    ),
    part(
        "softmax in float32",
        "jax.nn.softmax(scores_BHQK, axis=-1)",
        "jax.nn.softmax(scores_BHQK.astype('float32'), axis=-1)",
        L1="blocks.0.attn.hook_pattern",
    ),
    part("pattern transposed", '"bhqk,bkhe->bqhe"', '"bhkq,bkhe->bqhe"', L1="blocks.0.attn.hook_z"),
    part(
        "heads averaged, not added up",
        '"bphe,hem->bpm", z_BPHE, W_O_HEM)',
        '"bphe,hem->bpm", z_BPHE, W_O_HEM) / 2',
        L1="blocks.0.hook_attn_out",
    ),
    part(
        "W_O transposed in each head",
        '"bphe,hem->bpm"',
        '"bphe,hme->bpm"',
        SQUARE,
        L1="blocks.0.hook_attn_out",
    ),
    part("b_Q forgotten", "self.W_Q, self.b_Q)", "self.W_Q, 0)", L1="blocks.0.attn.hook_q"),
    part("b_K forgotten", "self.W_K, self.b_K)", "self.W_K, 0)", L1="blocks.0.attn.hook_k"),
    part(
        "b_K forgotten behind its hook",
        '"bqhe,bkhe->bhqk", q_BPHE, k_BPHE)',
        '"bqhe,bkhe->bhqk", q_BPHE, k_BPHE - self.b_K)',
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part("b_V forgotten", "self.W_V, self.b_V)", "self.W_V, 0)", L1="blocks.0.attn.hook_v"),
    part("b_O forgotten", " + self.b_O", "", L1="blocks.0.hook_attn_out"),
    part(
        "residual skipped around attention",
        AFTER_ATTENTION,
        AFTER_ATTENTION.replace("resid_BPM + ", ""),
        L1="blocks.0.hook_resid_mid",
    ),
    part(
        "skip connection of the normalised stream",
        AFTER_ATTENTION,
        AFTER_ATTENTION.replace("resid_BPM + ", "self.ln1(resid_BPM, lambda _, x: x) + "),
        L1="blocks.0.hook_resid_mid",
    ),
    # MLP
    part("b_in forgotten", "self.W_in + self.b_in", "self.W_in", L1="blocks.0.mlp.hook_pre"),
    part(
        "GELU for ReLU", '"relu": jax.nn.relu', '"relu": jax.nn.gelu', L1="blocks.0.mlp.hook_post"
    ),
    part(
        "tanh's GELU for the exact one",
        "approximate=False",
        "approximate=True",
        GELU,
        L1="blocks.0.mlp.hook_post",
    ),
    part("b_out forgotten", " + self.b_out", "", L1="blocks.0.hook_mlp_out"),
    part(
        "residual skipped around the MLP",
        "resid_BPM + self.feed_forward(resid_BPM, tap)",
        "self.feed_forward(resid_BPM, tap)",
        L1="blocks.0.hook_resid_post",
    ),
    # out
    part("b_U forgotten", " + self.b_U", "", L1="unembed.hook_out"),
    loss(
        "loss in bits",
        "targets[..., None], axis=-1)[..., 0]",
        "targets[..., None], axis=-1)[..., 0] / jnp.log(2)",
        L1="losses",
    ),
    # L2
    part(
        "gradient stopped at the pattern",
        'tap("hook_pattern", pattern_BHQK)',
        'tap("hook_pattern", jax.lax.stop_gradient(pattern_BHQK))',
        L2="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "straight-through ReLU",
        '"relu": jax.nn.relu',
        '"relu": lambda x: x + jax.lax.stop_gradient(jax.nn.relu(x) - x)',
        L2="blocks.0.mlp.hook_pre",
    ),
    part(
        "ReLU with slope 1/2 at 0",
        '"relu": jax.nn.relu',
        '"relu": lambda x: jnp.maximum(x, 0)',
        L2="blocks.0.mlp.hook_pre",
    ),
    part(
        "no gradient through the skip connection",
        AFTER_ATTENTION,
        AFTER_ATTENTION.replace("resid_BPM + ", "jax.lax.stop_gradient(resid_BPM) + "),
        L2="blocks.0.hook_resid_pre",
    ),
    part(
        "no gradient through a norm's scale",
        f'tap("hook_scale", {SCALE})',
        f'tap("hook_scale", jax.lax.stop_gradient({SCALE}))',
        L2="blocks.0.hook_resid_post",
    ),
    part(
        "W_pos frozen",
        "W_pos[self.offset : self.offset + length]",
        "jax.lax.stop_gradient(W_pos[self.offset : self.offset + length])",
        L2="pos_embed.W_pos",
    ),
    part("b_U frozen", "+ self.b_U", "+ jax.lax.stop_gradient(self.b_U[...])", L2="unembed.b_U"),
    part(
        "an edit at hook_resid_mid has no effect",
        f"resid_BPM = {AFTER_ATTENTION}",
        f'resid_BPM = resid_BPM + {ATTENTION}\n        tap("hook_resid_mid", resid_BPM)',
        L2="blocks.0.hook_resid_mid",
    ),
    part(
        "a hook applied twice",
        'self.mlp(normalized_BPM, scoped(tap, "mlp"))',
        'tap("hook_mlp_out", self.mlp(normalized_BPM, scoped(tap, "mlp")))',
        L2="blocks.0.hook_mlp_out",
    ),
    part(
        "all sequences get the first one's positions",
        HOOKED_POSITIONS,
        f"{HOOKED_POSITIONS}[:1]",
        L2="hook_pos_embed",
    ),
    # L3
    tap(
        "zeros from a hook taken for no edit",
        'tap(f"{prefix}.{name}", activation)',
        '(lambda edited: jnp.where(edited.any(), edited, activation))(tap(f"{prefix}.{name}", activation))',
        L3="blocks.0.hook_resid_pre",
    ),
    part(
        "norm's scale guarded against zero",
        "x / scale",
        "x / jnp.maximum(scale, self.eps)",
        L3="blocks.0.ln1.hook_scale",
    ),
    part(
        "pattern capped at 1 behind its hook",
        'tap("hook_pattern", pattern_BHQK)',
        'jnp.minimum(tap("hook_pattern", pattern_BHQK), 1.0)',
        L3="blocks.0.attn.hook_pattern",
    ),
]
