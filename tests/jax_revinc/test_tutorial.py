"""The tutorial's own analysis code runs on our model, with only the changes that `CHANGES` lists."""

import re

import jax
import numpy as np
import plotly.express as px
import plotly.graph_objects as go
import pytest

SECTIONS_7_AND_8 = """
#########################################
# 7. Inspecting the Attention Patterns
#########################################
model.eval()
with torch.no_grad():
    # Pick a few samples from the holdout set for analysis
    sample = holdout_dataset[:4].cuda()  # shape [4, 9]
    logits, cache = model.run_with_cache(sample[:, :-1])

    # The attention patterns are stored in the cache under the key "pattern".
    attn = cache["pattern", 0]  # from layer 0, shape [batch, n_heads, 8, 8]

    for i in range(sample.size(0)):
        attn_matrix = attn[i, 0].cpu().numpy()
        print(f"\\nAttention pattern for holdout sample {i}:")
        print(attn_matrix)
        # Plot as a heatmap
        fig = px.imshow(
            attn_matrix,
            title=f"Attention Pattern (Sample {i}, Layer 0, Head 0)",
            labels={"x": "Source Position", "y": "Destination Position"},
            x=[str(j) for j in range(attn_matrix.shape[1])],
            y=[str(j) for j in range(attn_matrix.shape[0])],
            color_continuous_scale="RdBu",
        )
        fig.show()

mlp_out = cache["mlp_out", 0]  # [batch, seq_len, d_model]
print("\\nMLP outputs (Layer 0) for the first sample (all positions):")
print(mlp_out[0].cpu().numpy())

layer = 0
mlp_in_weight = model.blocks[layer].mlp.W_in.data.cpu().numpy()
mlp_out_weight = model.blocks[layer].mlp.W_out.data.cpu().numpy()

print("\\nLayer 0 MLP W_in weight matrix:")
print(mlp_in_weight)
print("\\nLayer 0 MLP W_out weight matrix:")
print(mlp_out_weight)
"""
"""The code of the tutorial's text, in order, verbatim but for blanks at line ends."""

LISTING_6_AND_7 = """
#########################################
# 6. Inspecting the Attention Patterns
#########################################
model.eval()
with torch.no_grad():
    sample = holdout_dataset[:4].cuda()
    logits, cache = model.run_with_cache(sample[:, :-1])
    attn = cache["pattern", 0]  # [batch=4, n_heads=1, seq=8, seq=8]
    for i in range(sample.size(0)):
        attn_matrix = attn[i, 0].cpu().numpy()
        print(f"\\nAttention pattern for holdout sample {i}:")
        print(attn_matrix)
        fig = px.imshow(
            attn_matrix,
            title=f"Attention Pattern (Sample {i}, Layer 0, Head 0)",
            labels={"x": "Source Pos", "y": "Dest Pos"},
            color_continuous_scale="RdBu",
        )
        fig.show()

#########################################
# 7. Inspect MLP (FFN) Outputs and Weights
#########################################
    mlp_out = cache["mlp_out", 0]  # [4, 8, 4]
    print("\\nMLP outputs (Layer 0) for the first sample (all positions):")
    print(mlp_out[0].cpu().numpy())

layer = 0
mlp_in_weight = model.blocks[layer].mlp.W_in.data.cpu().numpy()
mlp_out_weight = model.blocks[layer].mlp.W_out.data.cpu().numpy()
print("\\nLayer 0 MLP W_in weight matrix:")
print(mlp_in_weight)
print("\\nLayer 0 MLP W_out weight matrix:")
print(mlp_out_weight)
"""
"""The same parts of its full listing."""

CHANGES = [
    # No gradients to switch off: the line goes, and all that is indented stands in it.
    (r"with torch\.no_grad\(\):\n", ""),
    (r"^ {4}", ""),
    # JAX puts arrays where they belong.
    (r"\.cuda\(\)", ""),
    (r"((?:[\w.]|\[[^]]*\])+?)(?:\.data)?\.cpu\(\)\.numpy\(\)", r"np.asarray(\1)"),
    # The dataset here is a numpy array, whose size is no method. (With torch tensors, which the model
    # takes as well, this stays as it was.)
    (r"(\w+)\.size\(0\)", r"len(\1)"),
]
"""(regular expression, replacement): how the tutorial's analysis is made to run here."""


def changed(code):
    for pattern, replacement in CHANGES:
        code, n_changes = re.subn(pattern, replacement, code, flags=re.MULTILINE)
        assert n_changes, f"nothing to change: {pattern}"
    return code


def printed_matrices(text):
    """Every matrix that numpy printed, in order."""
    found = re.findall(r"\[\[.*?\]\]", text, flags=re.DOTALL)
    rows = [[row.split() for row in re.findall(r"[^][]+\d", matrix)] for matrix in found]
    return [np.array(matrix, float) for matrix in rows]


@pytest.mark.parametrize("code", [SECTIONS_7_AND_8, LISTING_6_AND_7], ids=["sections", "listing"])
def test_the_analysis_runs_and_shows_what_the_model_did(code, short_run, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    full_dataset = short_run.config.task.sequences()
    names = {
        "model": short_run.model(),
        "holdout_dataset": full_dataset[200:],
        "np": np,
        "px": px,
    }
    exec(compile(changed(code), "the tutorial", "exec"), names)

    fed = full_dataset[200:204, :-1]
    _, cache = jax.jit(lambda model: model.run_with_cache(fed))(short_run.model())
    weights = short_run.state_dict()
    patterns = cache["blocks.0.attn.hook_pattern"][:, 0]
    expected = [
        *patterns,
        cache["blocks.0.hook_mlp_out"][0],
        weights["blocks.0.mlp.W_in"],
        weights["blocks.0.mlp.W_out"],
    ]
    printed = printed_matrices(capsys.readouterr().out)
    assert len(printed) == len(expected)
    for ours, theirs in zip(printed, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert len(shown) == 4
    for figure, pattern in zip(shown, patterns, strict=True):
        np.testing.assert_allclose(figure.data[0].z, pattern, rtol=1e-4, atol=1e-6)
