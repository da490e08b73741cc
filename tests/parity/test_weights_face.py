"""Weights, their products and the functions of `utils` are TransformerLens 3.9's, line by line."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformer_lens
import transformer_lens.head_detector as their_detector
import transformer_lens.utilities as their_utils
from scipy.special import log_softmax

from jax_revinc import HookedTransformer, HookedTransformerConfig, SVDInterpreter, head_detector
from jax_revinc import utils as our_utils
from jax_revinc.compilation.numerical_settings import numerics
from parity import to_torch
from torch_reference.installed_transformer_lens import WORLD

pytestmark = pytest.mark.skipif(WORLD != "3.9", reason="the names are those of 3.9")

SIZES = {"n_layers": 2, "d_model": 6, "d_head": 4, "n_heads": 2, "d_mlp": 7, "d_vocab": 5}
SIZES |= {"n_ctx": 8, "dtype": "float64"}
GROUPED = {"n_heads": 4, "n_key_value_heads": 2, "ungroup_grouped_query_attention": False}
CONFIGS = {
    "layer norm": {},
    "RMS, grouped, gated": GROUPED | {"normalization_type": "RMS", "gated_mlp": True},
    "attention only, no norm": {"attn_only": True, "normalization_type": None},
    "LNPre, solu_ln": {"normalization_type": "LNPre", "act_fn": "solu_ln"},
    "parallel, rotary": {"parallel_attn_mlp": True, "positional_embedding_type": "rotary"},
    "bidirectional, other outputs": {"attention_dir": "bidirectional", "d_vocab_out": 3},
    "alibi, LN and solu_ln": {"positional_embedding_type": "alibi", "act_fn": "solu_ln"},
}

WEIGHTS = ("W_E", "W_U", "b_U", "W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O")
OF_POSITIONS = ("W_pos", "W_E_pos")
OF_MLPS = ("W_in", "W_out", "b_in", "b_out")

LINES = (
    *(f"m.{name}" for name in WEIGHTS),
    "m.QK.AB",
    "m.OV.AB",
    "m.QK.A",
    "m.QK.B",
    "m.QK.BA",
    "m.QK.T.AB",
    "m.blocks[1].attn.QK.AB",
    "m.blocks[0].attn.OV.AB",
    "m.OV[0].AB",
    "m.OV[1, 0].AB",
    "m.OV[:, 1].AB",
    "m.OV[0, 1, 2].AB",
    "m.OV[0, 1, 2, -1].AB",
    "m.OV[0, 1, :3, 2:4].AB",
    "m.QK[None, 0].AB",
    "m.QK.svd()[1]",
    "m.QK.S",
    "m.OV.norm()",
    "(m.QK.U * m.QK.S[..., None, :]) @ m.QK.V.mT",
    "m.OV.make_even().AB",
    "m.OV.make_even().S",
    "m.OV.collapse_l().mT @ m.OV.collapse_l()",
    "m.OV.collapse_r() @ m.OV.collapse_r().mT",
    "m.OV.get_corner()",
    "m.OV.get_corner(1)",
    "m.OV.unsqueeze(1).AB",
    "(m.W_E @ m.OV @ m.W_U).AB",
    "(m.W_E @ m.QK @ m.W_E.T).AB",
    "(m.OV @ m.OV[1]).AB",
    "(m.OV[0, 1] @ m.QK[1]).AB",
    "m.OV @ m.W_E[1]",
    "m.W_E[1] @ m.OV",
    "(2.5 * m.QK).AB",
    "(m.QK * 3).AB",
    "(m.QK * m.W_E[0, 0]).AB",
    "m.accumulated_bias(0)",
    "m.accumulated_bias(2, include_mlp_biases=False)",
    "m.all_composition_scores('Q')",
    "m.all_composition_scores('K')",
    "m.all_composition_scores('V')",
    "u.composition_scores(m.OV[0], m.QK[1])",
    "u.composition_scores(m.OV[0], m.QK[1], broadcast_dims=False)",
    "u.get_matrix_corner(m.QK, 2)",
    "m.tokens_to_residual_directions(2)",
    "m.tokens_to_residual_directions(outputs)",
    "m.tokens_to_residual_directions(outputs[0])",
    "m.tokens_to_residual_directions(outputs[:1, 1])",
    "m.loss_fn(logits, outputs)",
    "m.loss_fn(logits, outputs, per_token=True)",
    "m.loss_fn(logits, outputs, attention_mask=mask)",
    "m.loss_fn(logits, outputs, mask, True)",
)
OF_MODELS_WITH_MLPS = (
    *(f"m.{name}" for name in OF_MLPS),
    "m.accumulated_bias(2)",
    "m.accumulated_bias(1, mlp_input=True)",
    "m.accumulated_bias(1, True, False)",
)

ARRAYS = (
    *(f"u.SUPPORTED_ACTIVATIONS['{name}'](x)" for name in our_utils.SUPPORTED_ACTIVATIONS),
    "u.gelu_new(x)",
    "u.gelu_fast(x)",
    "u.solu(x)",
    "u.apply_softcap(x, 0.5)",
    "u.apply_softcap(x, -1.0)",
    "u.lm_cross_entropy_loss(x, ids)",
    "u.lm_accuracy(x, ids, per_token=True)",
    "u.get_corner(x)",
    "u.get_corner(x, 1)",
    "u.to_numpy(x)",
    "u.to_numpy([1, 2])",
    "u.to_numpy(3.5)",
    "u.remove_batch_dim(x)",
    "u.remove_batch_dim(x[:1])",
    "u.transpose(x)",
    "u.get_cumsum_along_dim(x, 1)",
    "u.get_cumsum_along_dim(x, -1, reverse=True)",
    "u.get_offset_position_ids(0, mask)",
    "u.get_offset_position_ids(2, mask)",
    "u.repeat_along_head_dimension(x, 3)",
    "u.Slice(1).apply(x)",
    "u.Slice((3,)).apply(x, 1)",
    "u.Slice((1, 4)).apply(x, dim=1)",
    "u.Slice((0, 4, 2)).apply(x, -2)",
    "u.Slice([2, 0]).apply(x, 1)",
    "u.Slice(ids[0, :2]).apply(x, -1)",
    "u.Slice(None).apply(x)",
    "u.Slice((1, 4)).indices(6)",
    "u.Slice(-2).indices()",
    "u.Slice([2, 0]).indices(6)",
    "u.Slice.unwrap(1).apply(x, 1)",
    "u.filter_dict_by_prefix({'a.b': x, 'ab.c': x[0]}, 'a')['b']",
)
VALUES = (
    "u.is_square(x)",
    "u.is_square(x[0, :, :5])",
    "u.is_lower_triangular(x[0, :, :5])",
    "u.is_lower_triangular(eye)",
    "u.is_lower_triangular(eye[:2])",
    "u.softcap_enabled(None)",
    "u.softcap_enabled(2.0)",
    "u.SOFTCAP_DISABLED",
    "u.calc_fan_in_and_fan_out(x)",
    "u.calc_fan_in_and_fan_out(x[0])",
    "u.calc_fan_in_and_fan_out(x[0, 0])",
    "u.get_act_name('pattern', 1)",
    "sorted(u.filter_dict_by_prefix({'a.b': x, 'ab.c': x}, 'a.'))",
    "repr(u.Slice(2))",
    "u.Slice((1, 3)).mode",
)


def evaluate(lines, names):
    """The value of each line of code."""
    return {line: eval(line, dict(names)) for line in lines}


def arrays(in_torch, cfg=None):
    """The arrays that lines speak of, of torch or of JAX."""
    rng = np.random.default_rng(0)
    n_outputs = cfg.d_vocab_out if cfg else 5

    def floats(*shape):
        numbers = rng.normal(size=shape)
        return torch.tensor(numbers) if in_torch else jnp.asarray(numbers)

    def ids(below):
        numbers = rng.integers(0, below, size=(2, 5))
        return torch.tensor(numbers) if in_torch else jnp.asarray(numbers, jnp.int32)

    return {
        "u": their_utils if in_torch else our_utils,
        "x": floats(2, 5, 6),
        "eye": torch.eye(3) if in_torch else jnp.eye(3),
        "ids": ids(5),
        "logits": floats(2, 5, n_outputs),
        "outputs": ids(n_outputs),
        "mask": ids(2),
    }


def assert_close(ours, theirs, line):
    ours, theirs = (
        np.asarray(ours),
        np.asarray(theirs.detach() if hasattr(theirs, "detach") else theirs),
    )
    assert ours.shape == theirs.shape, line
    assert (ours.dtype == np.float64) == (theirs.dtype == np.float64), line
    np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12, err_msg=line)


@pytest.fixture(autouse=True)
def wide_torch():
    """Their `accumulated_bias` adds up in torch's default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def make_pair(random_weights):
    """A function from a config's name to our model of random weights, and its copy of theirs."""

    @functools.cache
    def make(name):
        cfg = HookedTransformerConfig(**SIZES | CONFIGS[name])
        ours = HookedTransformer(cfg, params=random_weights(cfg))
        return ours, to_torch(ours)

    return make


@pytest.fixture(params=CONFIGS)
def pair(request, make_pair):
    return make_pair(request.param)


def lines_for(cfg):
    """The lines that make sense for a model."""
    has_positions = cfg.positional_embedding_type != "rotary"
    return (
        *LINES,
        *(() if cfg.attn_only else OF_MODELS_WITH_MLPS),
        *(f"m.{name}" for name in OF_POSITIONS if has_positions),
        *(("m.W_gate",) if cfg.gated_mlp else ()),
    )


def test_lines_under_jit(pair):
    """The same code on traced arrays: the model is built of traced parameters."""
    ours, theirs = pair
    lines = lines_for(ours.cfg)
    with torch.no_grad():
        expected = evaluate(lines, arrays(True, ours.cfg) | {"m": theirs})

    @jax.jit
    def traced(params, names):
        model = HookedTransformer(ours.cfg, params=params)
        return evaluate(lines, names | {"u": our_utils, "m": model})

    with numerics(ours.cfg):
        names = arrays(False, ours.cfg)
        del names["u"]
        found = traced(ours.params, names)
    for line in lines:
        assert_close(found[line], expected[line], line)


def test_lines_in_eager_code_outside_numerics(make_pair):
    """The arrays are float64, while JAX's default is float32."""
    ours, theirs = make_pair("RMS, grouped, gated")
    of_jax_alone = ("@ m.QK.V", "@ m.OV.collapse")  # sums and products of arrays, in float32
    lines = [line for line in lines_for(ours.cfg) if not any(o in line for o in of_jax_alone)]
    with numerics(ours.cfg):
        names = arrays(False, ours.cfg)
    found = evaluate(lines, names | {"m": ours})
    with torch.no_grad():
        expected = evaluate(lines, arrays(True, ours.cfg) | {"m": theirs})
    for line in lines:
        assert_close(found[line], expected[line], line)


def test_eigenvalues_are_the_same_numbers(pair):
    ours, theirs = pair
    for name in ("QK", "OV"):
        found = np.sort_complex(np.asarray(getattr(ours, name)[1].eigenvalues))
        with torch.no_grad():
            expected = np.sort_complex(getattr(theirs, name)[1].eigenvalues.numpy())
        assert found.dtype == np.complex128
        gaps = np.abs(found[..., :, None] - expected[..., None, :])
        assert gaps.min(-1).max() < 1e-9
        assert gaps.min(-2).max() < 1e-9


def test_what_a_model_is_made_of(pair):
    ours, theirs = pair
    assert [name for name, _ in ours.named_parameters()] == [
        name for name, _ in theirs.named_parameters()
    ]
    for mine, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_array_equal(mine, their.detach())
    assert ours.n_params_total == theirs.n_params_total
    assert ours.cfg.n_params == theirs.cfg.n_params
    assert ours.all_head_labels() == theirs.all_head_labels()
    for line in ("m.QK.shape", "m.QK.ndim", "m.OV.ldim", "m.OV.rdim", "m.OV.mdim"):
        assert eval(line, {"m": ours}) == eval(line, {"m": theirs}), line
    assert ours.QK.has_leading_dims == theirs.QK.has_leading_dims
    assert ours.OV.pair[1].shape == theirs.OV.pair[1].shape


def test_weights_that_a_model_lacks(pair):
    ours, theirs = pair
    for name in (*OF_MLPS, *OF_POSITIONS, "W_gate"):
        try:
            expected = getattr(theirs, name)
        except AttributeError:
            with pytest.raises(AttributeError, match="has no"):
                getattr(ours, name)
            assert not hasattr(ours, name)
        else:
            assert (getattr(ours, name) is None) == (expected is None)


def test_functions_of_arrays():
    torch.set_default_dtype(torch.float32)
    with jax.enable_x64(True):
        ours = arrays(False)
    theirs = arrays(True)
    expected, found = evaluate(ARRAYS, theirs), evaluate(ARRAYS, ours)
    for line in ARRAYS:
        assert_close(found[line], expected[line], line)
    assert evaluate(VALUES, ours) == evaluate(VALUES, theirs)


def test_an_accuracy_has_the_precision_of_the_logits():
    """Theirs has torch's default precision."""
    with jax.enable_x64(True):
        ours = arrays(False)
    expected = their_utils.lm_accuracy(*(arrays(True)[name] for name in ("x", "ids")))
    assert_close(our_utils.lm_accuracy(ours["x"], ours["ids"]), expected, "lm_accuracy")
    for narrow in (jnp.float32, jnp.bfloat16):
        assert our_utils.lm_accuracy(ours["x"].astype(narrow), ours["ids"]).dtype == jnp.float32


def test_comparing_structures_prints_the_same(capsys):
    rng = np.random.default_rng(1)
    one = rng.normal(size=(3, 4))
    for other in (one + 0.1, rng.normal(size=(3, 4)), one[::-1].copy()):
        our_utils.check_structure(one, other)
        ours = capsys.readouterr().out
        their_utils.check_structure(torch.tensor(one), torch.tensor(other))
        assert ours == capsys.readouterr().out


SAMPLING = (
    {"temperature": 0.0},
    {"temperature": 0.0, "repetition_penalty": 3.0},
    {"temperature": 0.7},
    {"top_k": 2},
    {"top_k": 99},
    {"top_p": 0.6},
    {"top_p": 1.0, "temperature": 2.0},
    {"freq_penalty": 0.4},
    {"repetition_penalty": 1.7, "top_k": 3, "temperature": 0.5},
)


@pytest.mark.parametrize("options", SAMPLING, ids=str)
def test_tokens_are_drawn_from_the_same_logits(monkeypatch, options):
    rng = np.random.default_rng(2)
    logits, tokens = rng.normal(size=(3, 6)).astype("float32"), rng.integers(0, 6, size=(3, 4))
    if options.get("temperature") == 0:
        ours = our_utils.sample_logits(jnp.asarray(logits), tokens=tokens, **options)
        theirs = their_utils.sample_logits(
            torch.tensor(logits), tokens=torch.tensor(tokens), **options
        )
        np.testing.assert_array_equal(ours, theirs)
        return
    drawn_from = {}

    class Categorical:
        def __init__(self, logits):
            drawn_from["theirs"] = logits

        def sample(self):
            return None

    def categorical(key, logits):
        drawn_from["ours"] = logits

    monkeypatch.setattr(torch.distributions.categorical, "Categorical", Categorical)
    monkeypatch.setattr(jax.random, "categorical", categorical)
    our_utils.sample_logits(jnp.asarray(logits), tokens=tokens, key=jax.random.key(0), **options)
    their_utils.sample_logits(torch.tensor(logits), tokens=torch.tensor(tokens), **options)
    np.testing.assert_allclose(drawn_from["ours"], drawn_from["theirs"], rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5, "freq_penalty": 0.5}, {"repetition_penalty": 9.0}], ids=str
)
def test_the_likeliest_of_one_token_needs_no_key(options):
    rng = np.random.default_rng(2)
    logits, tokens = rng.normal(size=(3, 6)), rng.integers(0, 6, size=(3, 4))
    ours = our_utils.sample_logits(jnp.asarray(logits), top_k=1, tokens=tokens, **options)
    theirs = their_utils.sample_logits(
        torch.tensor(logits), top_k=1, tokens=torch.tensor(tokens), **options
    )
    np.testing.assert_array_equal(ours, theirs)


def test_a_table_of_logits():
    logits = np.random.default_rng(0).normal(size=7).astype("float32")

    class Letters:
        def decode(self, indices):
            return "abcdefg"[indices[0]]

    ours = our_utils.logits_to_df(jnp.asarray(logits), Letters(), top_k=4)
    theirs = their_utils.logits_to_df(torch.tensor(logits), Letters(), top_k=4)
    assert list(ours.columns) == list(theirs.columns)
    assert list(ours.token_string) == list(theirs.token_string)
    np.testing.assert_allclose(
        ours.drop(columns="token_string"), theirs.drop(columns="token_string"), rtol=1e-5
    )


def test_a_table_of_float64_logits_is_right_to_the_last_digits():
    """Theirs has probabilities in float32 all the same."""
    logits = np.random.default_rng(0).normal(size=7)
    ours = our_utils.logits_to_df(logits)
    order = np.argsort(-logits)
    np.testing.assert_array_equal(ours.token_index, order)
    np.testing.assert_array_equal(ours.logit, logits[order])
    np.testing.assert_allclose(ours.log_prob, log_softmax(logits)[order], rtol=1e-14)
    assert abs(ours.probability.sum() - 1) < 1e-14


@pytest.mark.parametrize("shape", [(200, 300), (3, 200, 100)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("init_xavier_uniform_", {"gain": 2.0}),
        ("init_xavier_normal_", {}),
        ("init_kaiming_uniform_", {"mode": "fan_out"}),
        ("init_kaiming_uniform_", {"nonlinearity": "leaky_relu", "a": 0.5}),
        ("init_kaiming_normal_", {"nonlinearity": "tanh", "gain": 0.5}),
        ("init_kaiming_normal_", {"nonlinearity": "selu"}),
        ("init_kaiming_normal_", {"nonlinearity": "linear"}),
    ],
)
def test_weights_are_drawn_from_the_same_distribution(shape, name, options):
    ours = getattr(our_utils, name)(jnp.zeros(shape), **options, key=jax.random.key(0))
    theirs = getattr(their_utils, name)(torch.zeros(shape), **options).numpy()
    assert ours.shape == shape
    assert abs(float(ours.mean())) < 0.02 * theirs.std()
    assert float(ours.std()) == pytest.approx(theirs.std(), rel=0.02)
    assert float(ours.max()) == pytest.approx(theirs.max(), rel=0.01 if "uniform" in name else 0.5)


def test_logits_along_singular_vectors(random_weights):
    """In float32: theirs can't interpret other models."""
    torch.set_default_dtype(torch.float32)
    cfg = HookedTransformerConfig(**SIZES | {"dtype": "float32"})
    ours = HookedTransformer(cfg, params=random_weights(cfg))
    mine = SVDInterpreter(ours)
    theirs = transformer_lens.SVDInterpreter(to_torch(ours))
    assert list(mine.params) == list(theirs.params)
    for asked in (("OV", 1, 3, 0), ("w_in", 0, 4), ("w_out", 1, 2)):
        found = np.asarray(mine.get_singular_vectors(*asked))
        with torch.no_grad():
            expected = theirs.get_singular_vectors(*asked).numpy()
        signs = np.sign((found * expected).sum(0, keepdims=True))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found * signs, expected, rtol=1e-3, atol=1e-4)


DETECTIONS = (
    {},
    {"exclude_bos": True},
    {"exclude_current_token": True},
    {"exclude_bos": True, "exclude_current_token": True},
    {"heads": [(0, 1), (1, 0)]},
    {"heads": {1: [0, 1]}},
)


def test_detecting_heads(random_weights):
    cfg = HookedTransformerConfig(**SIZES)
    ours = HookedTransformer(cfg, params=random_weights(cfg))
    theirs = to_torch(ours)
    tokens = np.array([[1, 2, 3, 1, 2, 3, 4], [0, 0, 1, 0, 4, 1, 2]])
    rows = {"one": tokens[:1], "other": tokens[1:]}
    theirs.to_tokens = lambda text: torch.tensor(tokens if isinstance(text, list) else rows[text])
    uniform = np.tri(7) / np.arange(1, 8)[:, None]
    for measure in ("mul", "abs"):
        for options in DETECTIONS:
            for pattern in (*head_detector.HEAD_NAMES, uniform if measure == "abs" else np.eye(7)):
                asked = {"error_measure": measure, **options}
                found = head_detector.detect_head(ours, tokens[0], pattern, **asked)
                their_pattern = pattern if isinstance(pattern, str) else torch.tensor(pattern)
                with torch.no_grad():
                    expected = their_detector.detect_head(theirs, "one", their_pattern, **asked)
                assert_close(found, expected, f"{pattern} {asked}")
    with torch.no_grad():
        expected = their_detector.detect_head(theirs, ["one", "other"], "induction_head")
    assert_close(head_detector.detect_head(ours, tokens, "induction_head"), expected, "a batch")
    found = head_detector.detect_head(ours, [*tokens.tolist(), tokens[0, :4]], "induction_head")
    assert found.shape == (2, 2)


@pytest.mark.parametrize("kind", head_detector.HEAD_NAMES)
def test_patterns_to_detect(kind):
    tokens = np.array([[1, 2, 3, 1, 2, 3, 4, 1, 1]])
    name = f"get_{kind}_detection_pattern"
    expected = getattr(their_detector, name)(torch.tensor(tokens))
    np.testing.assert_array_equal(getattr(head_detector, name)(tokens), expected)
