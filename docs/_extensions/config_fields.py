"""The directive ``config-fields``: the fields of a config as a table, from the help that the command line shows."""

from __future__ import annotations

import dataclasses
import importlib

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class ConfigFields(SphinxDirective):
    """``{config-fields} revinc TrainConfig``: field, type, default, meaning."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        module, name = self.arguments
        config = getattr(importlib.import_module(module), name)
        rows = ["| field | type | default | |", "|---|---|---|---|"]
        rows += [
            f"| `{field.name}` | {code(field.type)} | {default(field)} | {field.metadata['help']} |"
            for field in dataclasses.fields(config)
            if "help" in field.metadata
        ]
        return self.parse_text_to_nodes("\n".join(rows))


def default(field: dataclasses.Field[object]) -> str:
    """A field's default in a table; nothing where there is none, or where others' values make it."""
    return "" if field.default in (dataclasses.MISSING, None) else code(repr(field.default))


def code(text: object) -> str:
    return "`" + str(text).replace("|", r"\|") + "`"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("config-fields", ConfigFields)
    return {"parallel_read_safe": True}
