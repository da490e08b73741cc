import dataclasses

from rich.console import Console

from benchmarks.tables import (
    Sheet,
    all_sheets,
    number,
    references,
    start_sheet,
    sweep_sheet,
    throughput_sheet,
)


def test_a_sheet_as_markdown():
    sheet = Sheet("title", ("what", "how much"), [["a|b", "1"], ["c", "2"]])
    assert sheet.as_markdown().splitlines() == [
        "| what | how much |",
        "|---|---:|",
        "| a b | 1 |",
        "| c | 2 |",
    ]


def test_numbers_have_three_digits():
    assert [number(x) for x in (0.01234, 1.234, 99.94, 123.4, 12345.6)] == [
        "0.0123",
        "1.23",
        "99.9",
        "123",
        "12,346",
    ]


def test_throughput_counts_a_step_of_one_model_and_compares_pair_by_pair(results):
    loop, eager, missing, ours = throughput_sheet(results).rows
    assert ours[1:4] == ["128", "100", "100 .. 100"]
    assert ours[4] == "2.5"  # 4000 steps of 100 us: 0.4 s
    assert ours[5] == "50 (40 .. 60)"
    assert ours[6] == "15 (10 .. 20)"
    assert eager[5] == "3.5 (3 .. 4)"
    assert loop[5] == "1 (1 .. 1)"
    assert missing[2] == "not available: torch sees no GPU"


def test_others_are_compared_with_the_fastest_of_torch(results, make_entry):
    slower = make_entry("transformer-lens", "torch", [9e-3, 9e-3])
    loop, best = references([slower, *results.entries])
    assert loop.name == "transformer-lens"
    assert loop.timing.median == 5e-3
    assert best.name == "torch-eager"


def test_without_torch_contenders_there_is_nothing_to_compare_with(results, make_entry):
    alone = dataclasses.replace(results, entries=[make_entry("jax-loop", "jax", [1e-4])])
    (row,) = throughput_sheet(alone).rows
    assert row[-2:] == ["-", "-"]


def test_starts_leave_out_what_could_not_run(results):
    rows = start_sheet(results.entries).rows
    assert len(rows) == 3
    assert rows[-1] == ["the jax-population, 128", "3.0", "1.0", "2.0", "0.5", "300", "-"]


def test_a_sweep_has_a_row_per_value(results):
    sheet = sweep_sheet("batch_size", results.sweeps["batch_size"])
    assert [row[0] for row in sheet.rows] == ["4", "16"]
    assert sheet.rows[0][-1] == "15 (10 .. 20)"
    assert all(len(row) == len(sheet.headings) for row in sheet.rows)


def test_every_part_is_printed(results):
    console = Console(width=200, record=True, quiet=False)
    for sheet in all_sheets(results):
        console.print(sheet.for_terminal())
    text = console.export_text()
    for title in ("Throughput", "Starting, and memory", "Whole run", "Cost against batch"):
        assert title in text
