"""The explanations on the parity page: what each level compares, and how its bounds are set."""

from __future__ import annotations

from parity import free_running_level, population_level
from parity.comparison import FLOAT32_FACTOR, FLOAT64_BOUND, FLOAT64_FACTOR
from parity.inputs import EDITS
from parity.model_levels import IN_FLOAT32, REALISATIONS, SEQUENCES
from parity.outcome_comparison import POWER
from parity.training_levels import JITTERED_BOUND, ONE_STEP_BOUND, STATES, ZERO_GRADIENT_BOUND

BOUNDS = {
    "float64": (
        "Rounding is so small here that it can't hide a wrong formula. A tensor's largest error "
        f"may be {FLOAT64_BOUND:g} of its largest value. Some gradients are differences of "
        "larger numbers: if changing the gradients at the hooks by one unit in the last place "
        "(ulp) changes such a gradient by more than the bound, its error may be "
        f"{FLOAT64_FACTOR:g} times that change. A parameter's gradient may also have the "
        "rounding error of adding its terms one after the other."
    ),
    "losses": (
        "A loss is a difference of numbers as large as the logits. Near zero it has few correct "
        "digits, so its error is measured relative to the largest logit, if that is larger."
    ),
    "float32": (
        "Rounding errors are larger, and differ between tensors, so the bound is measured. The "
        f"truth is TransformerLens in float64. Our error may be {FLOAT32_FACTOR:g} times the "
        f"error of TransformerLens in float32, which is the largest of {REALISATIONS}: with the "
        "weights as they are, and with weights changed by an ulp. It counts as an ulp at least, "
        "and for a parameter's gradient as the rounding error of adding its terms one after the "
        "other at least. Where TransformerLens makes no error, none is allowed."
    ),
    "infinities": (
        "Masked attention scores are minus infinity. Both sides must have infinities at the "
        "same entries."
    ),
    "zeros": (
        "Some tensors are zero except for rounding noise, such as the gradient of b_K, which "
        "softmax does not depend on. Their error is measured relative to the largest value of "
        "all tensors; the table says “zero”."
    ),
}
"""How the bounds of L1 to L4 are set, by topic."""

BOUNDS_IN_SHORT = (
    f"Bounds: {FLOAT64_BOUND:g} of a tensor's largest value in float64; in float32, "
    f"{FLOAT32_FACTOR:g} times TransformerLens' own error there."
)

EXPLANATIONS = {
    "L0": (
        "Both models must have the same parameters and the same activations, with the same "
        "names and shapes. A name that only TransformerLens 4.x has is listed and does not "
        "count. No weight may be NaN or infinite on either side; models with such weights are "
        "not compared any further."
    ),
    "L1": (
        "Both models have the same weights and are fed the same sequences: all of the task, "
        f"or in float32 {IN_FLOAT32:,} of them at most. Every activation is compared, then the logits, then the loss of every predicted token, and the loss of the "
        "least likely token at "
        "its position, which has all its digits even if the model is certain. " + BOUNDS_IN_SHORT
    ),
    "L2": (
        "The gradient of the mean loss with respect to every activation and every parameter, "
        "which training and attribution methods use. The loss is that of the least likely "
        "tokens, because a model that is certain of the right ones has gradients without "
        "correct digits. This level finds a formula that has "
        "the right value at these weights and the wrong slope. It looks at "
        f"{SEQUENCES['L2']:,} sequences at most, drawn at random. " + BOUNDS_IN_SHORT
    ),
    "L3": (
        f"The activation at each hook is edited in {len(EDITS)} ways "
        f"({', '.join(edit.name for edit in EDITS)}), and the resulting logits are compared. A "
        "hook must not only show the right numbers: the model must continue with the edited "
        f"ones. It looks at {SEQUENCES['L3']} sequences at most, drawn at random. "
        + BOUNDS_IN_SHORT
    ),
    "L4": (
        "One step of the training config's optimizer on a thousand random weights, with "
        "gradients of all magnitudes from 1e-9 to 1, and zero: with fresh moments, and with "
        f"those of a run after {STATES['mid-run']} updates. Weights and moments are compared "
        "after the step. "
        + BOUNDS_IN_SHORT
        + " Torch's error is measured once, and includes Adam's bias correction: torch computes "
        "it in float64, and optax, like all of JAX, in float32."
    ),
    "L5": (
        "A whole torch run in float64. From its state at every step, one step in JAX on the "
        "same batch must give torch's next state. So errors can't add up, and chaos has no time "
        "to magnify them. Torch draws its batches and its split independently, so these must be "
        f"the same too. Weights and moments may be {ONE_STEP_BOUND:g} apart, or that share of "
        f"what is larger than 1, or {JITTERED_BOUND:g} times the change of torch's step if the "
        "probabilities change by an ulp: for a model that is certain, Adam divides a gradient "
        "without correct digits by its size. A weight whose gradient is zero except for "
        f"rounding (b_K, which softmax does not depend on) may be {ZERO_GRADIENT_BOUND:g} apart, "
        "because Adam divides that noise by itself."
    ),
    "L6": (
        "Training is chaotic: it magnifies rounding until two runs have nothing in common. The "
        "step at which the runs in JAX and in torch diverge says little by itself. It is "
        "compared with the step at which a run diverges from itself under jitter: every weight "
        "changed by an ulp before every update. One seed decides nothing; over all seeds, JAX "
        "and torch must not diverge earlier than runs under jitter. The p-value is from an "
        f"exact permutation test, which fails at {free_running_level.FALSE_ALARMS:g}."
    ),
    "L7": (
        "No seed has the same result on both sides, but the results of many seeds must have the "
        "same distribution. TransformerLens' results are stored; the first steps of a few of "
        "its seeds are run again, to check that the installed version still gives them. Each "
        "test asks whether both samples can come from one distribution, and the table says how "
        f"far apart they would have to be for the test to fail in {POWER:.0%} of cases. If JAX "
        f"is right, a test fails in {population_level.FALSE_ALARMS:.1%} of cases at most."
    ),
}
"""By the level's name."""
