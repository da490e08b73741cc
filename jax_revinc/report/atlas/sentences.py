"""The sentences at the top of an atlas page: how well the models learn, and what they learn."""

from __future__ import annotations

import pandas as pd

from jax_revinc.population.best_evaluations import lost_sentences
from jax_revinc.population.shards import DIVERGED
from jax_revinc.survey.atlas_tables import ANY, BOTH, NO_COMPONENT, WHOLE
from jax_revinc.survey.outcomes import point_name
from jax_revinc.survey.rate_intervals import FEWEST, Rate, mean_text, rate_of
from revinc.config_summary import count
from revinc.number_format import percent

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
"""The parts that can make most of the answers, in words."""

WHERE = {"generalising": "In models that generalise", "not generalising": "In models that do not"}


def accuracy_sentences(models: pd.DataFrame, points: pd.DataFrame, solved: float) -> list[str]:
    """Sentences on how many models solve each split, their accuracy, and how many diverged.

    Args:
        models: from `models_table`.
        points: from `points_table`.
        solved: the accuracy from which a split counts as solved.
    """
    n = len(models)
    train, holdout = (models[f"{split}_accuracy"] for split in ("train", "holdout"))
    where = "" if len(points) == 1 else f" at {len(points):,} hyperparameter points"
    sentences = [
        f"Of {count(n, 'model')}{where}, {rate_of(train >= solved).text} reach "
        f"{percent(solved)} of the training split and {rate_of(holdout >= solved).text} reach "
        f"{percent(solved)} of the holdout ({(holdout >= solved).sum():,}).",
        *lost_sentences(models, solved),
    ]
    if holdout.notna().any():
        low, high = holdout.quantile([0.25, 0.75])
        sentences.append(
            f"Mean accuracy on the holdout is {mean_text(holdout)}; "
            f"half of the models lie between {low:.1%} and {high:.1%}."
        )
    diverged = models[DIVERGED].notna()
    if diverged.any():
        sentences.append(
            f"{rate_of(diverged).text} diverged ({diverged.sum():,}): their loss became infinite "
            "or NaN. They count as solving neither split, and are left out of means, curves and "
            "claims."
        )
    return sentences + best_point(points)


def best_point(points: pd.DataFrame) -> list[str]:
    """A list with a sentence on the hyperparameters with which most models generalise.

    The list is empty if all models have the same hyperparameters.
    """
    if len(points) == 1:
        return []
    order = ["holdout_perfect_rate", "holdout_accuracy"]
    best = points.sort_values(order, na_position="first").iloc[-1]
    rate = Rate(int(best["holdout_perfect"]), int(best["models"]))
    if not rate.hits:
        return ["No model generalises at any of these points."]
    return [
        f"The point with the most models that generalise is {point_name(best)}: {rate.text}, "
        f"{rate.hits:,} of {rate.n:,}. It was chosen because it is the highest, so "
        "expect less of new seeds."
    ]


def claim_sentences(models: pd.DataFrame, rates: pd.DataFrame) -> list[str]:
    """Sentences on what models learned, comparing those that generalise with those that do not.

    Args:
        models: from `models_table`.
        rates: from `claims_table`.
    """
    by_claim = {
        key: Rate(int(row["hits"]), int(row["n"]))
        for key, row in rates.set_index(["claim", "part", "group"]).iterrows()
    }
    verdicts = rates.drop_duplicates(["claim", "part"]).set_index(["claim", "part"])["compared"]
    finite = " that did not diverge" if models[DIVERGED].notna().any() else ""

    def side_by_side(claim: str) -> str:
        whole, yes, no = (by_claim[claim, WHOLE, group] for group in ("all", *WHERE))
        sentence = f"{whole.text} of the {count(whole.n, 'model')}{finite}"
        if not yes.n or not no.n:
            return sentence
        return (
            f"{sentence}: {yes.text} of the {yes.n:,} that generalise and {no.text} of the "
            f"{no.n:,} that do not ({VERDICTS[verdicts[claim, WHOLE]]})"
        )

    reads = side_by_side("attention_reverses")
    sentences = [f"Attention fetches the right token for every answer in {reads}."]
    for group, where in WHERE.items():
        makers = {name: by_claim.get(("increments", part, group)) for part, name in MAKERS.items()}
        rated = sorted(((r, name) for name, r in makers.items() if r and r.n), reverse=True)
        if rated:
            named = ", ".join(f"{name} ({rate.text})" for rate, name in rated)
            sentences.append(f"{where}, most of the answers are made by {named}.")
    if (BOTH, WHOLE, "all") in by_claim:
        sentences.append(
            "That attention fetches the tokens and an MLP makes the answers holds "
            f"of {side_by_side(BOTH)}."
        )
    return sentences
