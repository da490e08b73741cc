"""What a population says, in sentences."""

from __future__ import annotations

import pandas as pd

from jax_revinc.population.chunks import DIVERGED
from jax_revinc.report.atlas.outcomes import point_name
from jax_revinc.report.atlas.rates import FEWEST, Rate, mean_text, rate_of
from jax_revinc.report.atlas.tables import ANY, BOTH, NO_COMPONENT, WHOLE
from jax_revinc.report.words import count
from revinc.labels import percent

VERDICTS = {
    "more often": "the intervals lie apart: more often in those that generalise",
    "less often": "the intervals lie apart: less often in those that generalise",
    "intervals overlap": "the intervals overlap, so no difference is shown",
    "too few models": f"too few to compare: one of the two groups has fewer than {FEWEST} models",
}

MAKERS = {
    "embed": "the embeddings",
    ANY["mlps"]: "an MLP",
    ANY["heads"]: "a head",
    NO_COMPONENT: "no component alone",
}
"""What may make most of the increment, in words."""

WHERE = {"generalising": "In models that generalise", "not generalising": "In models that do not"}


def reached(models: pd.DataFrame, points: pd.DataFrame, solved: float) -> list[str]:
    """How far the models come, where `solved` is the accuracy that solves a split."""
    n = len(models)
    enough = {split: models[f"{split}_accuracy"] >= solved for split in ("train", "holdout")}
    holdout = models["holdout_accuracy"]
    recipes = "" if len(points) == 1 else f" at {len(points):,} points of hyperparameters"
    said = [
        f"Of {count(n, 'model')}{recipes}, {rate_of(enough['train']).text} reach {percent(solved)} of the training split "
        f"and {rate_of(enough['holdout']).text} reach {percent(solved)} of the holdout ({enough['holdout'].sum():,}).",
    ]
    if holdout.notna().any():
        low, high = holdout.quantile([0.25, 0.75])
        said.append(
            f"Mean accuracy on the holdout is {mean_text(holdout)}; "
            f"half of the models lie between {low:.1%} and {high:.1%}."
        )
    if models[DIVERGED].notna().any():
        diverged = models[DIVERGED].notna()
        said.append(
            f"{rate_of(diverged).text} diverged ({diverged.sum():,}): their loss became infinite or NaN. They "
            "count as solving neither split, and have no part in means, curves and claims."
        )
    return said + best_point(points)


def best_point(points: pd.DataFrame) -> list[str]:
    """Where most models generalise, if there are several points."""
    if len(points) == 1:
        return []
    best = points.sort_values(
        ["holdout_perfect_rate", "holdout_accuracy"], na_position="first"
    ).iloc[-1]
    rate = Rate(int(best["holdout_perfect"]), int(best["models"]))
    if not rate.hits:
        return ["No model generalises at any of these points."]
    where = point_name(best["lr"], best["weight_decay"], best["split"])
    return [
        f"The point with the most models that generalise is {where}: {rate.text}, {rate.hits:,} of {rate.n:,}. It "
        "was chosen for being the highest, so expect less of new seeds."
    ]


def learned(models: pd.DataFrame, rates: pd.DataFrame) -> list[str]:
    """What the models learned, and whether those that generalise differ.

    Args:
        models: from `models_table`.
        rates: from `claims_table`.
    """
    by_claim = {
        key: Rate(int(row["hits"]), int(row["n"]))
        for key, row in rates.set_index(["claim", "part", "group"]).iterrows()
    }
    verdicts = rates.drop_duplicates(["claim", "part"]).set_index(["claim", "part"])["compared"]
    asked = " that did not diverge" if models[DIVERGED].notna().any() else ""

    def side_by_side(claim: str) -> str:
        whole, yes, no = (by_claim[claim, WHOLE, group] for group in ("all", *WHERE))
        said = f"{whole.text} of the {count(whole.n, 'model')}{asked}"
        if not yes.n or not no.n:
            return said
        return (
            f"{said}: {yes.text} of the {yes.n:,} that generalise and {no.text} of the {no.n:,} that do not "
            f"({VERDICTS[verdicts[claim, WHOLE]]})"
        )

    said = [f"Attention reads every deciding position in {side_by_side('attention_reverses')}."]
    for group, where in WHERE.items():
        makers = {name: by_claim.get(("increments", part, group)) for part, name in MAKERS.items()}
        rated = sorted(((r, name) for name, r in makers.items() if r and r.n), reverse=True)
        if rated:
            told = ", ".join(f"{name} ({rate.text})" for rate, name in rated)
            said.append(f"{where}, most of the increment is made by {told}.")
    if (BOTH, WHOLE, "all") in by_claim:
        said.append(
            "Both of the tutorial's claims, that attention reverses and that an MLP increments, hold of "
            f"{side_by_side(BOTH)}."
        )
    return said
