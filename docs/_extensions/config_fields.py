"""The directive ``config-fields``: a table of a config's fields, from the help of its flags."""

from __future__ import annotations

import dataclasses
import importlib

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from revinc.config_fields import help_of


class ConfigFields(SphinxDirective):
    """``{config-fields} revinc TrainConfig``: field, type, default, meaning."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        module, name = self.arguments
        config = getattr(importlib.import_module(module), name)
        rows = ["| field | type | default | |", "|---|---|---|---|"]
        rows += [
            f"| `{field.name}` | {code(field.type)} | {default(field)} | {help_of(field)} |"
            for field in dataclasses.fields(config)
            if "help" in field.metadata
        ]
        return self.parse_text_to_nodes("\n".join(rows))


def default(field: dataclasses.Field[object]) -> str:
    """A field's default as a cell; empty if it has none, or if it follows from other fields."""
    return "" if field.default in (dataclasses.MISSING, None) else code(repr(field.default))


def code(text: object) -> str:
    return "`" + str(text).replace("|", r"\|") + "`"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("config-fields", ConfigFields)
    return {"parallel_read_safe": True}
