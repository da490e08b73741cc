"""The README's Python runs as it stands, block after block."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_every_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)


def test_every_picture_and_file_that_it_names_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert "docs/report.png" in links
    for link in links:
        assert (README.parent / link).exists(), link
