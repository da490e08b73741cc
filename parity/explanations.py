"""What every level compares, how its bounds are set and why, for the page's readers."""

from __future__ import annotations

from parity import free_running, population
from parity.comparison import FLOAT32_FACTOR, FLOAT64_BOUND
from parity.distributions import POWER
from parity.model_levels import REALISATIONS
from parity.question import EDITS
from parity.training_levels import ONE_STEP_BOUND, STATES, ZERO_GRADIENT_BOUND

BOUNDS = {
    "float64": (
        "Here rounding is so small that a wrong formula can't hide behind it. A tensor's largest error may "
        f"be {FLOAT64_BOUND:g} of its largest value."
    ),
    "float32": (
        "Rounding errors are larger, and larger in some tensors than in others; so the bound is measured. "
        "TransformerLens in float64 is the truth, and ours may be "
        f"{FLOAT32_FACTOR:g} times as far from it as TransformerLens in float32 is: its largest error of "
        f"{REALISATIONS}, on the weights as they are and then moved by an ulp, and at least an ulp; in a "
        "parameter's gradient, at least what adding it up in a row costs. Where it makes no error, neither "
        "may ours."
    ),
    "infinities": (
        "Masked attention scores are minus infinity. Infinities must be at the same entries on both sides."
    ),
    "zeros": (
        "Some tensors are zero but for rounding noise, such as the gradient of b_K, to which softmax is "
        "blind. There the error is measured against the largest value of all tensors; the table says "
        "“zero”."
    ),
}
"""How the bounds of L1 to L4 are set, by what they are for."""

BOUNDS_IN_SHORT = (
    f"Bounds: {FLOAT64_BOUND:g} of a tensor's largest value in float64; in float32, {FLOAT32_FACTOR:g} times "
    "TransformerLens' own error there."
)

EXPLANATIONS = {
    "L0": (
        "Both models must have the same parameters and the same activations: the same names, and the same "
        "shapes. A name that only TransformerLens 4.x has is listed and counts for nothing."
    ),
    "L1": (
        "Both models are given the same weights and fed the same sequences. Every activation is compared, "
        "then the logits, then the loss of every predicted token. " + BOUNDS_IN_SHORT
    ),
    "L2": (
        "The gradient of the mean loss by every activation, and by every parameter: what training and "
        "attribution methods see. A formula that is right at these weights only shows here. "
        + BOUNDS_IN_SHORT
    ),
    "L3": (
        f"At one hook after the other the activation is edited, in {len(EDITS)} ways "
        f"({', '.join(edit.name for edit in EDITS)}), and the logits that come of it are compared: a "
        "hook must not only show the right numbers, the model must go on from what is put there. "
        + BOUNDS_IN_SHORT
    ),
    "L4": (
        "A step of the recipe's optimizer on a thousand random weights, whose gradients are of all magnitudes from 1e-9 to 1, "
        f"and zero: with fresh moments, and with those of a run after {STATES['mid-run']} updates. "
        "Weights and moments are compared after it. "
        + BOUNDS_IN_SHORT
        + " That of torch is measured once, and Adam's bias correction counts as well: torch computes it in "
        "float64, and optax, like all of JAX, in float32."
    ),
    "L5": (
        "A whole run of torch's is walked in float64. From its state at every step, one step of ours on the "
        "same batch must give torch's next state, so errors can't add up, and chaos has no time to set in. "
        f"Weights and moments may be {ONE_STEP_BOUND:g} apart, absolutely. A weight whose gradient is zero "
        f"but for rounding (b_K, to which softmax is blind) may be {ZERO_GRADIENT_BOUND:g} apart, for Adam "
        "divides that noise by itself."
    ),
    "L6": (
        "Training is chaotic: it magnifies rounding until two runs have nothing in common. So the step at "
        "which ours and torch's part says little by itself, and is judged by when a run parts from itself, "
        "jittered: every weight moved by an ulp before every update. Of one seed that tells nothing; over "
        "all seeds ours must not part from torch's earlier than runs part from their jittered selves. The "
        f"p-value is of an exact permutation test, which fails at {free_running.FALSE_ALARMS:g}."
    ),
    "L7": (
        "No seed ends alike on both sides, but the ends of many seeds must be distributed alike. "
        "TransformerLens' side is stored; the first steps of a few of its seeds are run again, to see that "
        "the installed program still makes it. Each test asks whether one distribution can have made both "
        "samples, and the table says how far apart they would have had to be for it to fail in "
        f"{POWER:.0%} of cases. If ours is right, one of the tests fails in "
        f"{population.FALSE_ALARMS:.1%} of cases at most."
    ),
}
"""By the level's name."""
