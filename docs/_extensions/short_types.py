"""Shortens types in signatures: ``Array`` for ``jax.Array``, a link if this site describes it."""

from __future__ import annotations

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

OURS = ("revinc", "jax_revinc", "torch_reference", "parity")


def shorten(app: Sphinx, doctree: nodes.document) -> None:
    for signature in doctree.findall(addnodes.desc_signature):
        for reference in list(signature.findall(addnodes.pending_xref)):
            package, _, path = reference["reftarget"].partition(".")
            name = nodes.Text((path or package).rpartition(".")[2])
            if path and package not in OURS:
                reference.replace_self(name)
                continue
            reference.children = [name]
            # Described under the name by which it is imported, whatever file it is in.
            reference["reftarget"], reference["refspecific"] = str(name), True
            if not path:  # a builtin, a type variable, or a neighbour in the file
                reference["reftype"] = "obj"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", shorten)
    return {"parallel_read_safe": True}
