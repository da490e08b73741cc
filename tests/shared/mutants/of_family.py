"""Faults in what only some models of the family have."""

from __future__ import annotations

from mutants.planting import family, part, tap, whole

CAP = "cap * jnp.tanh(x / cap)"
SCALE = "(cfg.attn_scale or 1.0)"

ROTARY = family("rotary")
ADJACENT = family("rotary, adjacent pairs")
SHORTFORMER = family("shortformer")
ALIBI = family("alibi")
GROUPED = family("grouped")
UNGROUPED = family("grouped, ungrouped")
LOCAL = family("local")
SCALED = family("attention scale")
SOFT_CAPS = family("soft caps")
GATED = family("gated")
PARALLEL = family("parallel")
ALL_HOOKS = family("all hooks")
RMS = family("norm RMS")

MUTANTS = [
    # rotary
    part(
        "rotary: base of 10,000 whatever the config says",
        "cfg.rotary_base **",
        "10000 **",
        ADJACENT,
        L1="blocks.0.attn.hook_rot_q",
    ),
    part(
        "rotary: positions counted from 1",
        "np.arange(cfg.n_ctx)",
        "np.arange(1, cfg.n_ctx + 1)",
        ROTARY,
        L1="blocks.0.attn.hook_rot_q",
    ),
    part(
        "rotary: neighbours turned, not halves",
        "    if cfg.rotary_adjacent_pairs:",
        "    if True:",
        ROTARY,
        L1="blocks.0.attn.hook_rot_q",
    ),
    part(
        "rotary: adjacent pairs turned by the angles of halves",
        "np.repeat(wavelengths, 2) if",
        "np.tile(wavelengths, 2) if",
        ADJACENT,
        L1="blocks.0.attn.hook_rot_q",
    ),
    part(
        "rotary: turned the other way",
        "turned * cos + quarter * sin",
        "turned * cos - quarter * sin",
        ROTARY,
        L1="blocks.0.attn.hook_rot_q",
    ),
    part(
        "rotary: keys not turned",
        'tap("hook_rot_k", turned_k)',
        'tap("hook_rot_k", k_BPHE)',
        ROTARY,
        L1="blocks.0.attn.hook_rot_k",
    ),
    part(
        "rotary: keys turned behind their hook",
        'tap("hook_rot_k", turned_k)',
        'rotate(cfg, tap("hook_rot_k", k_BPHE), *of_keys)',
        ROTARY,
        L1="blocks.0.attn.hook_rot_k",
    ),
    part(
        "rotary: a head turned whole, not in part",
        "cfg.rotary_dim // 2",
        "cfg.d_head // 2",
        family("rotary, part of a head"),
        L1="blocks.0.attn.hook_rot_q",
    ),
    part(
        "rotary: angles in float32",
        "np.arange(cfg.n_ctx)[:, None] / in_order",
        "(np.arange(cfg.n_ctx)[:, None] / in_order).astype(np.float32)",
        ROTARY,
        L1="blocks.0.attn.hook_rot_q",
    ),
    # alibi
    part(
        "alibi: slopes that begin with 1",
        "start * start **",
        "start **",
        ALIBI,
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "alibi: slopes in float64",
        "np.float32(2 ** (-8 / n_heads))",
        "np.float64(2 ** (-8 / n_heads))",
        ALIBI,
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "alibi: distance rewarded",
        "penalty_HQK = slopes_H",
        "penalty_HQK = -slopes_H",
        ALIBI,
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "alibi: later keys rewarded for their distance",
        "np.minimum(np.arange(n_keys)[None] - queries[:, None], 0)",
        "np.arange(n_keys)[None] - queries[:, None]",
        family("bidirectional alibi"),
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "alibi: W_pos added to the stream",
        '"alibi": UnusedPosEmbed',
        '"alibi": PosEmbed',
        ALIBI,
        L0="hook_pos_embed",
    ),
    part(
        "alibi: penalty within the soft cap",
        "self.bias(self.soft_cap(scores_BHQK))",
        "self.soft_cap(self.bias(scores_BHQK))",
        family("alibi", attn_scores_soft_cap=1.5),
        L1="blocks.0.attn.hook_attn_scores",
    ),
    # shortformer
    part(
        "shortformer: positions in values too",
        "return q + pos, k + pos, v",
        "return q + pos, k + pos, v + pos",
        SHORTFORMER,
        L1="blocks.0.attn.hook_v",
    ),
    part(
        "shortformer: positions in queries alone",
        "return q + pos, k + pos, v",
        "return q + pos, k, v",
        SHORTFORMER,
        L1="blocks.0.attn.hook_k",
    ),
    part(
        "shortformer: positions in the stream too",
        "return embed_BPM, self.vectors",
        "return embed_BPM + self.W_pos[: embed_BPM.shape[1]], self.vectors",
        SHORTFORMER,
        L1="blocks.0.hook_resid_pre",
    ),
    part(
        "shortformer: positions added before the norm",
        "self.attention_inputs(resid_BPM, lambda x: self.ln1(x,",
        "self.attention_inputs(resid_BPM, lambda x: self.ln1(x + pos_BPM,",
        SHORTFORMER,
        L1="blocks.0.ln1.hook_scale",
    ),
    whole(
        "shortformer: positions in the first layer alone",
        "self.blocks[layer](resid_BPM, pos_BPM,",
        "self.blocks[layer](resid_BPM, None if layer else pos_BPM,",
        SHORTFORMER,
        L1="blocks.1.attn.hook_q",
    ),
    # groups of heads
    part(
        "grouped: heads share keys in turn, not in a row",
        "jnp.repeat(x_BPHE, self.group_size, axis=2)",
        "jnp.tile(x_BPHE, (1, 1, self.group_size, 1))",
        GROUPED,
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "grouped: keys hooked once for every head",
        'tap("hook_k", project_heads(key_input, self._W_K, self._b_K))',
        'tap("hook_k", self.repeat_groups(project_heads(key_input, self._W_K, self._b_K)))[:, :, ::2]',
        GROUPED,
        L0="blocks.0.attn.hook_k",
    ),
    part(
        "grouped: shared b_V forgotten",
        "self._W_V, self._b_V)",
        "self._W_V, 0)",
        GROUPED,
        L1="blocks.0.attn.hook_v",
    ),
    part(
        "ungrouped: heads share keys in turn, not in a row",
        "repeat(getattr(self, name)[...], self.group_size, axis=0)",
        "jnp.concatenate([getattr(self, name)[...]] * self.group_size)",
        UNGROUPED,
        L1="blocks.0.attn.hook_k",
    ),
    part(
        "ungrouped: one head of a group trains its keys",
        "repeat(getattr(self, name)[...], self.group_size, axis=0)",
        "(lambda p: jnp.stack([p, *[jax.lax.stop_gradient(p)] * (self.group_size - 1)], 1)"
        ".reshape(-1, *p.shape[1:]))(getattr(self, name)[...])",
        UNGROUPED,
        L2="blocks.0.attn._W_K",
    ),
    # masks
    part(
        "local: a window one too wide",
        "-(cfg.window_size or 0)",
        "-(cfg.window_size or 0) - 1",
        LOCAL,
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "local: every layer, if one is",
        'cfg.attn_types[layer] == "local"',
        '"local" in cfg.attn_types',
        LOCAL,
        L1="blocks.1.attn.hook_attn_scores",
    ),
    part(
        "bidirectional: masked all the same",
        'if cfg.attention_dir == "bidirectional":',
        "if False:",
        family("bidirectional"),
        L1="blocks.0.attn.hook_attn_scores",
    ),
    # scales and caps of scores and logits
    part(
        "attn_scale ignored",
        SCALE,
        "cfg.d_head**0.5",
        SCALED,
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "scaled by sqrt(d_head) without use_attn_scale",
        SCALE,
        "(cfg.attn_scale or cfg.d_head**0.5)",
        family("no attention scale"),
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "layers counted from 0 in their scale",
        "layer + 1 if",
        "max(layer, 1) if",
        SCALED,
        L1="blocks.1.attn.hook_attn_scores",
    ),
    part(
        "soft cap after the mask",
        "jnp.where(visible, scores_BHQK, -jnp.inf)",
        "self.soft_cap(jnp.where(visible, scores_BHQK, -jnp.inf))",
        SOFT_CAPS,
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "soft cap before the scale",
        "k_BPHE) / self.scale",
        "k_BPHE)",
        SOFT_CAPS,
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "soft cap of 1 whatever the config says",
        CAP,
        "jnp.tanh(x)",
        SOFT_CAPS,
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "a hard cap for the soft one",
        CAP,
        "jnp.clip(x, -cap, cap)",
        SOFT_CAPS,
        L1="blocks.0.attn.hook_attn_scores",
    ),
    whole(
        "logits within the cap of scores",
        "cfg.output_logits_soft_cap",
        "cfg.attn_scores_soft_cap",
        SOFT_CAPS,
        L1="logits",
    ),
    part(
        "logits capped before their hook",
        'tap("hook_out", resid_BPM @ self.W_U + self.b_U)',
        'tap("hook_out", 0.8 * jnp.tanh((resid_BPM @ self.W_U + self.b_U) / 0.8))',
        SOFT_CAPS,
        L1="unembed.hook_out",
    ),
    # MLP
    part(
        "gated: gate and linear part swapped",
        "self.act_fn(pre_BPF) * linear_BPF",
        "pre_BPF * self.act_fn(linear_BPF)",
        GATED,
        L1="blocks.0.mlp.hook_post",
    ),
    part(
        "gated: W_gate and W_in swapped",
        'tap("hook_pre", x_BPM @ self.W_gate)',
        'tap("hook_pre", x_BPM @ self.W_in)',
        GATED,
        L1="blocks.0.mlp.hook_pre",
    ),
    part(
        "gated: b_in added before the gate",
        "* linear_BPF + self.b_in",
        "* (linear_BPF + self.b_in)",
        GATED,
        L1="blocks.0.mlp.hook_post",
    ),
    part(
        "solu_ln: not normalised",
        'return self.ln(tap("hook_mid", super().neurons(x_BPM, tap)), scoped(tap, "ln"))',
        'mid = tap("hook_mid", super().neurons(x_BPM, tap))\n'
        '        self.ln(mid, scoped(tap, "ln"))\n'
        "        return mid",
        family("act_fn solu_ln"),
        L1="blocks.0.mlp.hook_post",
    ),
    part(
        "solu_ln: not centred in a model of RMS norms",
        "else LayerNormPre\n",
        "else LayerNormPre.__base__\n",
        family("RMS and solu_ln"),
        L1="blocks.0.mlp.ln.hook_scale",
    ),
    part(
        "solu: softmax over positions",
        "x * jax.nn.softmax(x, axis=-1)",
        "x * jax.nn.softmax(x, axis=-2)",
        family("act_fn solu"),
        L1="blocks.0.mlp.hook_post",
    ),
    part(
        "relu2: not squared",
        "jax.nn.relu(x) ** 2",
        "jax.nn.relu(x)",
        family("act_fn relu2"),
        L1="blocks.0.mlp.hook_post",
    ),
    part(
        "relu2: half its gradient",
        "jax.nn.relu(x) ** 2",
        "jax.nn.relu(x) * jax.lax.stop_gradient(jax.nn.relu(x))",
        family("act_fn relu2"),
        L2="blocks.1.mlp.hook_pre",
    ),
    part(
        "gelu_fast: 0.0447 for 0.044715",
        "0.044715",
        "0.0447",
        family("act_fn gelu_fast"),
        L1="blocks.0.mlp.hook_post",
    ),
    part(
        "gelu_new: exact",
        "approximate=True",
        "approximate=False",
        family("act_fn gelu_new"),
        L1="blocks.0.mlp.hook_post",
    ),
    part(
        "silu: sigmoid of 1.702 x",
        '"silu": jax.nn.silu',
        '"silu": lambda x: x * jax.nn.sigmoid(1.702 * x)',
        family("act_fn silu"),
        L1="blocks.0.mlp.hook_post",
    ),
    # norms
    part(
        "RMS: centred",
        "super().__call__(x, tap) * self.w\n",
        "super().__call__(x - x.mean(-1, keepdims=True), tap) * self.w\n",
        RMS,
        L1="blocks.0.ln1.hook_scale",
    ),
    part(
        "RMS: gain forgotten",
        "super().__call__(x, tap) * self.w\n",
        "super().__call__(x, tap)\n",
        RMS,
        L1="blocks.0.attn.hook_q",
    ),
    part(
        "no norm: normalised all the same",
        "None: NoNorm",
        "None: LayerNormPre",
        family("norm None"),
        L0="blocks.0.ln1.hook_scale",
    ),
    whole(
        "final_rms ignored",
        "NORMS[final_normalization_type(cfg)]",
        "NORMS[cfg.normalization_type]",
        family("final RMS of LNPre"),
        L1="ln_final.hook_scale",
    ),
    # blocks
    part(
        "parallel: one after the other",
        "ParallelBlock if cfg.parallel_attn_mlp else TransformerBlock",
        "TransformerBlock",
        PARALLEL,
        L0="blocks.0.hook_resid_mid",
    ),
    part(
        "parallel: the MLP reads what attention wrote",
        "attn_out_BPM + self.feed_forward(resid_BPM, tap)",
        "attn_out_BPM + self.feed_forward(resid_BPM + attn_out_BPM, tap)",
        PARALLEL,
        L1="blocks.0.hook_mlp_in",
    ),
    part(
        "attention only: residual skipped",
        'tap("hook_resid_post", resid_BPM + self.attend',
        'tap("hook_resid_post", self.attend',
        family("attention only"),
        L1="blocks.0.hook_resid_post",
    ),
    # hooks that a switch turns on
    whole(
        "hook_tokens off in spite of its switch",
        "cfg.use_hook_tokens",
        "False",
        ALL_HOOKS,
        L0="hook_tokens",
    ),
    tap(
        "switches of hooks turned around",
        "if enabled else",
        "if not enabled else",
        ALL_HOOKS,
        L0="hook_tokens",
    ),
    part(
        "hook_result before W_O",
        'tap("hook_result", jnp.einsum("bphe,hem->bphm", z_BPHE, W_O_HEM))',
        'jnp.einsum("bphe,hem->bphm", tap("hook_result", z_BPHE), W_O_HEM)',
        ALL_HOOKS,
        L0="blocks.0.attn.hook_result",
    ),
    part(
        "an edit at hook_result has no effect",
        'tap("hook_result", jnp.einsum("bphe,hem->bphm", z_BPHE, W_O_HEM)).sum(2)',
        'write_together(z_BPHE, W_O_HEM, tap) + 0 * tap("hook_result", '
        'jnp.einsum("bphe,hem->bphm", z_BPHE, W_O_HEM)).sum(2)',
        ALL_HOOKS,
        L2="blocks.1.attn.hook_result",
    ),
    part(
        "hook_mlp_in behind the norm",
        'self.ln2(self.tap_mlp_in(tap, resid_BPM), scoped(tap, "ln2"))',
        'self.tap_mlp_in(tap, self.ln2(resid_BPM, scoped(tap, "ln2")))',
        ALL_HOOKS,
        L1="blocks.0.hook_mlp_in",
    ),
    part(
        "hook_attn_in behind the norm",
        'return shared(tap("hook_attn_in", broadcast_heads(resid, cfg.n_heads)), normalize, tap)',
        'return (tap("hook_attn_in", normalize(broadcast_heads(resid, cfg.n_heads))),) * 3',
        family("attention input by head"),
        L1="blocks.0.hook_attn_in",
    ),
    part(
        "hook_attn_in, which has no effect beside split inputs, has one",
        '            tap("hook_attn_in", broadcast_heads(resid, cfg.n_heads))\n',
        '            resid = tap("hook_attn_in", broadcast_heads(resid, cfg.n_heads)).mean(2)\n',
        ALL_HOOKS,
        L2="blocks.1.hook_attn_in",
    ),
    part(
        "keys computed from hook_q_input",
        "normalize(q), normalize(k), normalize(v)",
        "normalize(q), normalize(q), normalize(v)",
        ALL_HOOKS,
        L2="blocks.1.hook_k_input",
    ),
    part(
        "every head reads the first one's hook_q_input",
        "normalize(q), normalize(k)",
        "normalize(broadcast_heads(q[:, :, 0], cfg.n_heads)), normalize(k)",
        ALL_HOOKS,
        L2="blocks.1.hook_q_input",
    ),
]
