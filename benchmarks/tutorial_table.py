"""``python -m benchmarks.tutorial_table``: the tutorial's recipe from ten seeds, on both splits."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import track

from jax_revinc import PRESETS, train
from jax_revinc.compilation_cache import enable_compilation_cache
from revinc.config import SPLITS

SEEDS = range(10)


def main() -> int:
    enable_compilation_cache()
    rows = []
    with TemporaryDirectory() as folder:
        for seed in track(SEEDS, description="training", transient=True):
            cells = [str(seed)]
            for split in SPLITS:
                cfg = dataclasses.replace(PRESETS["tutorial"], split=split).with_seed(seed)
                last = train(cfg, Path(folder) / f"{split}-{seed}").metrics.iloc[-1]
                cells += [f"{last.train_accuracy:.2%}", f"{last.holdout_accuracy:.2%}"]
            rows.append(cells)
    print("| seed | prefix: train | prefix: holdout | random: train | random: holdout |")
    print("|---|---|---|---|---|")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
