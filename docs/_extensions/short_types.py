"""Types in signatures by their last name: ``Array`` for ``jax.Array``, a link where this site describes it."""

from __future__ import annotations

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

OURS = ("revinc", "jax_revinc", "torch_reference", "parity")


def shorten(app: Sphinx, doctree: nodes.document) -> None:
    for signature in doctree.findall(addnodes.desc_signature):
        for reference in list(signature.findall(addnodes.pending_xref)):
            *packages, name = reference["reftarget"].split(".")
            text = nodes.Text(name)
            if packages and packages[0] in OURS:
                # Described under the name by which it is imported, whatever file it is in.
                reference["reftarget"], reference["refspecific"] = name, True
                reference.children = [text]
            else:
                reference.replace_self(text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", shorten)
    return {"parallel_read_safe": True}
