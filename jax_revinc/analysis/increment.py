"""The increment score: which component turns an input token t into its answer, t + 1."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.activations.activation_cache import ActivationCache
from jax_revinc.activations.residual_stream.layers import mlp_stream
from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.forward.token_checks import check_predicted, check_sequences
from jax_revinc.hooks.taps import identity, recording, scoped
from jax_revinc.model import HookedTransformer
from revinc import HookedTransformerConfig, UserError
from revinc.validation import require_ints

ComponentLogits = Float[Array, "components batch pos d_vocab_out"]

FROZEN = ("hook_scale", "hook_pattern")
"""The activations that are frozen: without MLPs, the model is then linear."""

WRITERS = ("hook_embed", "hook_pos_embed", "hook_mlp_out")
"""The activations that a frozen model is linear in; its heads only move them."""


class Increment(NamedTuple):
    """How well each component of a model turns input tokens into their answers (t into t + 1).

    Components are in the order of `component_labels`. A component's map is [deciding token, output
    token], in logits, over the tokens that have an answer, with rows and columns centred. The
    *answer map* is 1 where the output answers the deciding token and 0 elsewhere, centred too.

    Attributes:
        increment: the similarity of the component's map to the answer map, beyond what it only
            passes on: 1 if it turns tokens into answers, 0 if it amplifies answers that it reads,
            negative if it works against them.
        copy: the correlation of the component's map with the identity.
        share: the fraction of the answers' logits (the logits along the answer map) that the
            component creates.
        passed_on: the fraction that it writes because it read it. Over all components, `share` and
            `passed_on` sum to 1, except for what positions and biases add. Both mean little in a
            model whose logits hardly favour answers.
        writes: the map of what the component adds to the logits.
        reads: the map of what it would add if it wrote its input unchanged.
    """

    increment: Float[Array, " components"]
    copy: Float[Array, " components"]
    share: Float[Array, " components"]
    passed_on: Float[Array, " components"]
    writes: Float[Array, "components symbols symbols"]
    reads: Float[Array, "components symbols symbols"]


def component_labels(cfg: HookedTransformerConfig) -> tuple[str, ...]:
    """TransformerLens' labels of a model's components: ``embed`` (the direct path), heads, MLPs."""
    heads = [f"L{layer}H{head}" for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]
    mlps = [] if cfg.attn_only else [f"{layer}_mlp_out" for layer in range(cfg.n_layers)]
    return ("embed", *heads, *mlps)


def heads_among_components(cfg: HookedTransformerConfig) -> slice:
    """The slice of the list of a model's components that holds its attention heads."""
    return slice(1, 1 + cfg.n_layers * cfg.n_heads)


@with_numerics
def increment_score(
    model: HookedTransformer,
    tokens: Int[Array, "batch seq"] | Int[np.ndarray, "batch seq"],
    predicted: tuple[int, ...],
    sources: tuple[int, ...],
    answers: tuple[int, ...],
) -> Increment:
    """Score how well each component maps an input token t to its answer (t + 1 in the tutorial).

    With attention patterns and norms frozen at their values on each input, the logits are a sum of
    what the embeddings and each MLP write, moved on by heads. So every part of a logit belongs to
    one component:

    - ``embed``: the path straight from a token's embedding to the unembedding, ``W_E @ W_U``;
    - a head: what comes from the embeddings and was moved last by that head, its OV circuit;
    - an MLP: what it adds to the stream, at any position, however later heads move it.

    A component's map is what it adds to the logits that predict a token, averaged over the inputs
    with token t at the source and over the predicted positions. Moving does not count: a head that
    carries an MLP's answers leaves them to the MLP. Nor does amplifying: from the map of what a
    component writes, its projection on the map of what it reads is subtracted, where the two agree
    in sign.

        increment = corr(writes, answer) - max(0, corr(writes, reads)) * corr(reads, answer)

    Limits:

    - The score is about the unembedding's code. If attention writes t in a code of its own and an
      MLP turns that into t + 1, the MLP increments. If the head's code already means t + 1 to the
      unembedding, the head does, whatever the MLP adds. If all heads only copy, because embedding
      and unembedding differ by the increment, ``embed`` does.
    - A component that only subtracts the token itself scores 1 / (n - 1) on n tokens: for n = 2
      that *is* the increment.
    - Patterns and scales are frozen, so a component's effect on them is not seen (ablation sees
      it).
    - The map is an average: a component that increments at one of four positions has a score like
      the others and a small share.

    Args:
        model: the model.
        tokens: whole sequences [batch, seq], in which each token occurs at each source; best the
            whole task, so that other tokens average out.
        predicted: the positions whose tokens are predicted, each at the position before it.
        sources: for each predicted position, the position of the token that decides it.
        answers: for each token 0 .. n-1, the token that answers it.

    Raises:
        UserError: for positions or tokens that do not exist, if `sources` does not fit `predicted`,
            or if a token never occurs at a source.
    """
    tokens = check_sequences(model.cfg, tokens)
    predicted = check_predicted(predicted, tokens.shape[1])
    sources = require_ints("sources", sources, at_least=0, below=tokens.shape[1])
    answers = require_ints("answers", answers, at_least=0, below=model.cfg.d_vocab_out)
    if not sources or not answers or len(sources) != len(predicted):
        raise UserError(
            "the increment score needs a source (the position of the token that decides the "
            f"answer) for each of {len(predicted)} predicted positions, and at least one answer; "
            f"given are {len(sources)} sources and {len(answers)} answers"
        )
    if not isinstance(tokens, jax.core.Tracer):
        check_sources(np.asarray(tokens), sources, len(answers))
    return _score_increments(model, tokens, predicted, sources, answers)


def check_sources(
    tokens: Int[np.ndarray, "batch seq"], sources: tuple[int, ...], n_symbols: int
) -> None:
    """Raise a UserError unless the tokens at each position of `sources` are 0..n_symbols-1."""
    for position in sources:
        found = np.unique(tokens[:, position]).tolist()
        if found != list(range(n_symbols)):
            raise UserError(
                f"the sequences have the tokens {found} at position {position}, a source, but need "
                f"each of 0..{n_symbols - 1} there and no other; give all of task.sequences()"
            )


def score_increments(
    model: HookedTransformer,
    tokens: Int[Array, "batch seq"],
    predicted: tuple[int, ...],
    sources: tuple[int, ...],
    answers: tuple[int, ...],
    run: tuple[Array, ActivationCache],
) -> Increment:
    """The result of `increment_score`, as a function that can be traced.

    Args:
        model, tokens, predicted, sources, answers: see `increment_score`.
        run: the logits and the activations on the sequences.
    """
    dtype = model.cfg.dtype
    n_tokens, n_outputs = len(answers), max(len(answers), *(answer + 1 for answer in answers))
    is_source_BIT = jax.nn.one_hot(tokens[:, jnp.array(sources)], n_tokens, dtype=dtype)
    weights_BIT = is_source_BIT / is_source_BIT.sum(0) / len(predicted)

    def token_maps(logits_CBPV: Float[Array, "components batch pos d_vocab_out"]) -> Array:
        logits_CBIU = logits_CBPV[:, :, jnp.array(predicted) - 1, :n_outputs]
        return centred(jnp.einsum("bit,cbiu->ctu", weights_BIT, logits_CBIU))

    logits_BPV, cache = run
    writes_CTU, reads_CTU = map(token_maps, frozen_parts(model, tokens[:, :-1], cache))
    copy_TU = centred(jnp.eye(n_tokens, n_outputs, dtype=dtype))
    answer_TU = centred(jax.nn.one_hot(jnp.array(answers), n_outputs, dtype=dtype))

    gain_C = jnp.maximum(ratio(dot(writes_CTU, reads_CTU), dot(reads_CTU, reads_CTU)), 0)
    passed_on_C = gain_C * dot(reads_CTU, answer_TU)
    created_C = dot(writes_CTU, answer_TU) - passed_on_C
    size_C = jnp.sqrt(dot(writes_CTU, writes_CTU))
    total = dot(token_maps(logits_BPV[None]), answer_TU)
    return Increment(
        increment=ratio(created_C, size_C * jnp.linalg.norm(answer_TU)),
        copy=ratio(dot(writes_CTU, copy_TU), size_C * jnp.linalg.norm(copy_TU)),
        share=ratio(created_C, total),
        passed_on=ratio(passed_on_C, total),
        writes=writes_CTU,
        reads=reads_CTU,
    )


@partial(jax.jit, static_argnames=("predicted", "sources", "answers"))
def _score_increments(
    model: HookedTransformer,
    tokens: Int[Array, "batch seq"],
    predicted: tuple[int, ...],
    sources: tuple[int, ...],
    answers: tuple[int, ...],
) -> Increment:
    run = model.run_with_cache(tokens[:, :-1])
    return score_increments(model, tokens, predicted, sources, answers, run)


def centred(maps: Float[Array, "... tokens outputs"]) -> Float[Array, "... tokens outputs"]:
    """Maps from tokens to outputs, minus their means over tokens and over outputs."""
    maps = maps - maps.mean(-1, keepdims=True)
    return maps - maps.mean(-2, keepdims=True)


def dot(
    left: Float[Array, "... tokens outputs"], right: Float[Array, "... tokens outputs"]
) -> Float[Array, ...]:
    """The sum of the products of two matrices' entries: their inner product as vectors."""
    return (left * right).sum((-2, -1))


def ratio(part: Float[Array, ...], whole: Float[Array, ...]) -> Float[Array, ...]:
    """``part / whole``, and 0 where the whole is 0."""
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))


def frozen_parts(
    model: HookedTransformer, fed: Int[Array, "batch pos"], cache: ActivationCache
) -> tuple[ComponentLogits, ComponentLogits]:
    """Each component's part of the logits, and its part if it passed its input on unchanged.

    Components are in the order of `component_labels`. Their parts sum to the logits, except for
    what positions and biases add. The direct path reads nothing.

    Args:
        model: the model.
        fed: the ids fed.
        cache: the model's activations on them.
    """
    # Without biases, and with frozen norms and patterns, the model is linear in its `WRITERS`.
    weights = {
        name: jnp.zeros_like(param) if name.split(".")[-1].lstrip("_").startswith("b") else param
        for name, param in model.params.items()
    }
    linear = HookedTransformer(model.cfg, params=weights)

    def frozen(name: str, activation: Array) -> Array:
        if not name.endswith(FROZEN):
            return activation
        # A norm may run on inputs of several shapes; the cache holds that of the values.
        kept = cache[name]
        return kept if kept.shape == activation.shape[-kept.ndim :] else activation

    def unembedded(resid: Float[Array, "... batch pos d_model"]) -> Array:
        return linear.unembed(linear.ln_final(resid, scoped(frozen, "ln_final")), identity)

    def run(writer: str, written_BPM: Array) -> tuple[Array, ActivationCache]:
        """The logits and activations of the linear model if all writers but `writer` write 0."""

        def tap(name: str, activation: Array) -> Array:
            if name == writer:
                return written_BPM
            silent = name.endswith(WRITERS)
            return jnp.zeros_like(activation) if silent else frozen(name, activation)

        record: dict[str, Array] = {}
        linear(fed, tap=recording(tap, cache, record))
        alone = ActivationCache(record, linear)
        return alone["unembed.hook_out"], alone  # before a soft cap, which is not linear

    embed_BPM = cache["hook_embed"]
    _, alone = run("hook_embed", embed_BPM)
    direct_BPV = unembedded(embed_BPM)
    writes, reads = [direct_BPV[None]], [jnp.zeros_like(direct_BPV)[None]]
    for layer, block in enumerate(linear.blocks):
        result_HBPM = jnp.einsum("bphe,hem->hbpm", alone["z", layer], block.attn.W_O[...])
        read_HBPM = jnp.einsum("bhqk,bkm->hbqm", cache["pattern", layer], alone["resid_pre", layer])
        writes.append(unembedded(result_HBPM))
        reads.append(unembedded(read_HBPM))
    for layer in range(0 if model.cfg.attn_only else model.cfg.n_layers):
        mlp = f"blocks.{layer}.hook_mlp_out"
        both = jnp.stack([cache[mlp], cache[mlp_stream(model.cfg), layer]])
        written, read = jax.vmap(lambda values, mlp=mlp: run(mlp, values)[0])(both)
        writes.append(written[None])
        reads.append(read[None])
    return jnp.concatenate(writes), jnp.concatenate(reads)
