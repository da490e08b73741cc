"""The HTML pages of runs, models and populations, and the figures on them."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jax_revinc.report.comparison.page import write_comparison
    from jax_revinc.report.model_page import write_model_page
    from jax_revinc.report.page import write_report
    from jax_revinc.report.population_model_page import write_population_model_page

MODULES = {
    "write_comparison": "comparison.page",
    "write_model_page": "model_page",
    "write_population_model_page": "population_model_page",
    "write_report": "page",
}
"""The module of each public name, imported when it is first used: other pages need none of them."""

__all__ = [
    "write_comparison",
    "write_model_page",
    "write_population_model_page",
    "write_report",
]

if not TYPE_CHECKING:

    def __getattr__(name):
        if name in MODULES:
            return getattr(importlib.import_module(f"jax_revinc.report.{MODULES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
