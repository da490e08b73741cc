from __future__ import annotations

import numpy as np
import pytest

from jax_revinc import HookPoint, UserError
from jax_revinc.hooks.taps import applying, identity, one_call_handles, recording, scoped

KNOWN = ["hook_embed", "blocks.0.attn.hook_q", "blocks.0.attn.hook_k", "blocks.1.attn.hook_q"]


def editing(fwd_hooks):
    return applying(one_call_handles(fwd_hooks, KNOWN), HookPoint)


def test_hook_points_know_their_layer():
    assert HookPoint("blocks.11.attn.hook_q").layer() == 11
    with pytest.raises(UserError, match="hook_embed belongs to no layer"):
        HookPoint("hook_embed").layer()


def test_taps_scope_edit_and_record():
    record = {}
    edits = editing([("blocks.0.attn.hook_q", lambda x, hook: x + 1)])
    tap = scoped(scoped(recording(edits, ["blocks.0.attn.hook_q"], record), "blocks.0"), "attn")
    activation = np.float32(5.0)
    assert tap("hook_q", activation) == 6
    assert tap("hook_k", activation) is activation
    assert list(record.items()) == [("blocks.0.attn.hook_q", 6)]
    assert identity("anything", activation) is activation


@pytest.mark.parametrize(
    "fwd_hooks", [("hook_embed", print), [("hook_embed", None)], [("hook_embed",)], ["hook_embed"]]
)
def test_hooks_that_are_no_pairs_are_refused_in_a_sentence(fwd_hooks):
    with pytest.raises(UserError, match="pairs in a list"):
        editing(fwd_hooks)


def test_a_hook_that_returns_complex_numbers_is_refused():
    tap = editing([("hook_embed", lambda a, hook: a + 0j)])
    with pytest.raises(UserError, match=r"hook_embed returned .*, not an array of real numbers"):
        tap("hook_embed", np.zeros((1, 2), np.float32))
