"""The HTML pages of runs, models and populations, and the figures on them."""

from jax_revinc.report.comparison.page import write_comparison
from jax_revinc.report.model_page import write_model_page
from jax_revinc.report.page import write_report
from jax_revinc.report.population_model_page import write_population_model_page

__all__ = [
    "write_comparison",
    "write_model_page",
    "write_population_model_page",
    "write_report",
]
