from __future__ import annotations

import pytest

from revinc import UserError, checksums, runs
from revinc.checksums import CHECKSUMS, EARLIER_CHECKSUMS, Checksum, Checksums, Journal
from revinc.runs import Run


def lines(folder):
    return (folder / CHECKSUMS).read_bytes().splitlines(keepends=True)


@pytest.fixture
def written(monkeypatch):
    """The bytes of every write to a journal."""
    found = []

    def counted(write):
        def counting(path, content):
            found.append(len(content))
            write(path, content)

        return counting

    for name in ("write_bytes", "append_bytes"):
        monkeypatch.setattr(checksums, name, counted(getattr(checksums, name)))
    return found


@pytest.mark.parametrize("n_snapshots", [1, 20, 200])
def test_the_bytes_written_grow_with_the_number_of_files(tmp_path, written, n_snapshots):
    journal = Journal(tmp_path, Checksums("recipe"))
    files = set()
    for step in range(n_snapshots):
        journal.add({runs.weights_name(step): b"weights"})
        files.add((tmp_path / CHECKSUMS).stat().st_ino)
    assert sum(written) == (tmp_path / CHECKSUMS).stat().st_size  # nothing is written twice
    assert max(written) < 2 * checksums.LONGEST_LINE
    assert len(files) == 1
    assert len(Checksums.read(tmp_path).files) == n_snapshots


def test_what_is_added_is_read(tmp_path):
    journal = Journal(tmp_path, Checksums("recipe"))
    assert not list(tmp_path.iterdir())
    journal.add({"a": b"1", "b": b"2"})
    journal.add({})
    journal.add({"a": b"3"})
    found = Checksums.read(tmp_path)
    assert found == Checksums("recipe", {"a": Checksum.of(b"3"), "b": Checksum.of(b"2")})
    assert len(lines(tmp_path)) == 4


@pytest.mark.parametrize("torn", [b"", b'{"file": "b", "by', b"\0" * 100])
def test_the_first_addition_compacts(tmp_path, torn):
    for content in (b"1", b"2", b"3"):
        journal = Journal(tmp_path, Checksums.read(tmp_path) or Checksums("recipe"))
        journal.add({"a": content})
        journal.add({"a": content})
        assert len(lines(tmp_path)) == 3
        with (tmp_path / CHECKSUMS).open("ab") as file:
            file.write(torn)
    Journal(tmp_path, Checksums.read(tmp_path)).add({"b": b"4"})
    assert len(lines(tmp_path)) == 3
    assert Checksums.read(tmp_path).files == {"a": Checksum.of(b"3"), "b": Checksum.of(b"4")}


def test_nothing_is_written_before_the_first_addition(tmp_path):
    Journal(tmp_path, Checksums("recipe")).add({"a": b"1"})
    (tmp_path / CHECKSUMS).rename(tmp_path / "kept")
    Journal(tmp_path, Checksums("recipe"))
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


def test_a_kill_before_the_earlier_file_is_deleted_loses_nothing(tmp_path, monkeypatch):
    entry = f'{{"bytes": 1, "sha256": "{"0" * 64}"}}'
    earlier = f'{{"format_version": 1, "recipe": "recipe", "files": {{"a": {entry}}}}}'
    (tmp_path / EARLIER_CHECKSUMS).write_text(earlier)

    def dies(*_, **__):
        raise SystemExit("killed")

    before = Checksums.read(tmp_path)
    assert before.source == EARLIER_CHECKSUMS
    # The journal's temporary file is renamed before it would be deleted.
    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "unlink", dies)
        with pytest.raises(SystemExit):
            Journal(tmp_path, before).add({"b": b"2"})
    assert (tmp_path / EARLIER_CHECKSUMS).exists()
    assert Checksums.read(tmp_path).files == {**before.files, "b": Checksum.of(b"2")}
    Journal(tmp_path, Checksums.read(tmp_path)).add({"c": b"3"})
    added = {"b": Checksum.of(b"2"), "c": Checksum.of(b"3")}
    assert Checksums.read(tmp_path).files == {**before.files, **added}
    assert not (tmp_path / EARLIER_CHECKSUMS).exists()


def test_a_link_in_the_place_of_a_journal_is_not_followed(open_writer, weights, tmp_path):
    (tmp_path / "precious").write_text("mine")
    with open_writer() as writer:
        file = writer.path / CHECKSUMS
        file.rename(writer.path / "kept")
        file.symlink_to(tmp_path / "precious")
        with pytest.raises(OSError, match=r"checksums\.jsonl"):
            writer.save_snapshot(10, weights)
        file.unlink()
        (writer.path / "kept").rename(file)
    before = file.read_bytes()
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with open_writer(resume=True) as writer:
        writer.save_snapshot(10, weights)
    assert not file.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == before
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_snapshot_killed_anywhere_in_its_line_is_kept_by_the_next(
    open_writer, weights, tmp_path, monkeypatch
):
    with open_writer("whole") as writer:
        writer.save_snapshot(10, weights)
        writer.save_snapshot(40, weights)
    last = lines(writer.path)[-1]
    for n_bytes in range(0, len(last) + 1, 7):

        def dies(path, content, n_bytes=n_bytes):
            with path.open("ab") as file:
                file.write(content[:n_bytes])
            raise SystemExit("killed")

        folder = f"killed at {n_bytes}"
        with open_writer(folder) as writer, monkeypatch.context() as patch:
            writer.save_snapshot(10, weights)
            patch.setattr(checksums, "append_bytes", dies)
            with pytest.raises(SystemExit):
                writer.save_snapshot(40, weights)
        run = Run.load(tmp_path / folder)
        assert run.snapshot_steps == [0, 10]
        assert run.state_dict(10).keys() == weights.keys()
        with open_writer(folder, resume=True) as writer:
            writer.save_snapshot(40, weights)
        assert (writer.path / CHECKSUMS).read_bytes() == (
            tmp_path / "whole" / CHECKSUMS
        ).read_bytes()
        assert Run.load(writer.path).state_dict(40).keys() == weights.keys()


def test_a_full_disk_leaves_no_half_line(open_writer, weights, full_disk):
    with open_writer() as writer:
        before = (writer.path / CHECKSUMS).read_bytes()
        for more in (0, 1, 50):
            full = full_disk(n_bytes=len(before) + more)
            with full, pytest.raises(OSError, match=r"File too large.*checksums\.jsonl"):
                writer.save_snapshot(10, weights)
            assert (writer.path / CHECKSUMS).read_bytes() == before
        writer.save_snapshot(10, weights)
        assert Run.load(writer.path).state_dict(10).keys() == weights.keys()


def test_what_belongs_elsewhere_is_found_by_reading_a_file_once(tmp_path, monkeypatch):
    files = {f"snapshots/{step:06d}.safetensors": Checksum(4, "0" * 64) for step in range(100)}
    there = Checksums("recipe", {**files, "a": Checksum.of(b"aaaa"), "b": Checksum.of(b"bbbb")})
    (tmp_path / "a").write_bytes(b"bbbb")
    reads = []
    read = checksums.sha256_of
    monkeypatch.setattr(checksums, "sha256_of", lambda path: reads.append(path) or read(path))
    with pytest.raises(UserError, match="holds what belongs in b:"):
        there.check(tmp_path, "a")
    assert len(reads) == 2


def test_a_run_of_many_snapshots_reads_its_checksums_once(train, monkeypatch):
    run = train("run")
    reads = []
    read = checksums.read_journal
    monkeypatch.setattr(checksums, "read_journal", lambda path: reads.append(path) or read(path))
    run = Run.load(run.path)
    for step in run.snapshot_steps:
        run.state_dict(step)
    assert reads == [run.path / CHECKSUMS]
