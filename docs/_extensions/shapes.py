"""Keeps the quotes of jaxtyping's shapes in signatures, which autoapi drops as type names."""

from __future__ import annotations

from astroid.nodes import Const, NodeNG
from autoapi import _astroid_utils
from sphinx.application import Sphinx

resolve_annotation = _astroid_utils._resolve_annotation


def keep_shape(annotation: NodeNG) -> str:
    """The source of an annotation, with shapes such as "batch pos" in quotes."""
    is_shape = isinstance(annotation, Const) and isinstance(annotation.value, str)
    return repr(annotation.value) if is_shape else resolve_annotation(annotation)


def setup(app: Sphinx) -> dict[str, bool]:
    _astroid_utils._resolve_annotation = keep_shape
    return {"parallel_read_safe": True}
