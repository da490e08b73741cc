"""jaxtyping's shapes in signatures, where autoapi takes a string in an annotation for a type's name and drops its quotes."""

from __future__ import annotations

from astroid.nodes import Const, NodeNG
from autoapi import _astroid_utils
from sphinx.application import Sphinx

resolve_annotation = _astroid_utils._resolve_annotation


def keep_shape(annotation: NodeNG) -> str:
    """`Float[Array, "batch pos"]` as it is written."""
    is_shape = isinstance(annotation, Const) and isinstance(annotation.value, str)
    return repr(annotation.value) if is_shape else resolve_annotation(annotation)


def setup(app: Sphinx) -> dict[str, bool]:
    _astroid_utils._resolve_annotation = keep_shape
    return {"parallel_read_safe": True}
