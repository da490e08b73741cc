import pytest

from benchmarks.results import Entry, Point, Results


@pytest.fixture
def make_entry():
    """A function that makes the entry of a contender from its seconds per model-step."""

    def make(name, framework, seconds, width=1, steps=10, **more):
        return Entry(
            key=f"{name}-{width}",
            name=name,
            title=f"the {name}",
            framework=framework,
            width=width,
            steps=steps,
            seconds=[s * width * steps for s in seconds],
            first_result={"cold": 3.0, "warm": 1.0},
            done_once={"cold": 2.0, "warm": 0.5},
            host_bytes=300 * 2**20,
            bound_used=0.25,
            **more,
        )

    return make


@pytest.fixture
def results(make_entry):
    """Results of every part, of made-up contenders."""
    loop = make_entry("transformer-lens", "torch", [4e-3, 6e-3])
    eager = make_entry("torch-eager", "torch", [1e-3, 2e-3])
    ours = make_entry("jax-population", "jax", [1e-4, 1e-4], width=128)
    missing = Entry("graph", "cuda-graph", "CUDA graph", "torch", 1, missing="torch sees no GPU")
    return Results(
        command="python -m benchmarks",
        machine={"machine": "a test's", "cores": "2"},
        settings={"rounds": 2, "seconds": 0.1, "whole_runs": 3, "starts": 2, "steps": 4000},
        entries=[loop, eager, missing, ours],
        sweeps={"batch_size": [Point(4, [eager, ours]), Point(16, [eager, ours])]},
        calls={
            "model(tokens)": {"jax": [1e-3, 3e-3], "torch": [4e-3, 4e-3]},
            "the first call": {"jax": [0.5, 0.5]},
        },
        starts={"import jax": [1.0, 2.0], "the page": [2.0, 5.0]},
        whole_runs={"JAX": [3.0, 4.0], "TransformerLens": [30.0, 32.0]},
    )
