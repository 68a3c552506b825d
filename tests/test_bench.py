"""The benches: they run where no peer is at hand, show what they measured, and do not pass what is wrong."""

import json
import tempfile

import pytest

from bench import curve, embedding, learning, storytellers, train
from bench.beside import CaseFailed, Measured, Row, missed
from lib.web.engine import Engine


def test_without_the_public_files_a_model_of_the_same_shape_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("STORYMILL_PEERS", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = storytellers.folder()
    engine = Engine("made", folder)
    assert folder.name == "storyteller-1-random"
    assert engine.layout == "natural"
    assert storytellers.ours().shape.d_model == storytellers.SIZES["d_model"]


def test_a_case_that_failed_is_a_row_of_the_table_and_the_exit_code(monkeypatch, capsys):
    def failing(**_):
        raise CaseFailed("ours ended with exit code 1:\nTraceback\nAttributeError: no such thing")

    monkeypatch.setattr("bench.embedding.table", failing)
    monkeypatch.setattr("bench.update.table", lambda **_: [Row("update", "0.21 CPU-s", "loop 4.2", 20.1, 20.0)])
    with pytest.raises(SystemExit) as ended:
        learning.run(only=["embedding", "update"])
    told = capsys.readouterr().out
    assert ended.value.code == 1
    assert "AttributeError: no such thing" in told
    assert "0.21 CPU-s" in told


@pytest.mark.parametrize(("cosine", "wrong"), [(0.99951, False), (0.5, True), (float("nan"), True)])
def test_fast_and_wrong_misses_the_bar(cosine, wrong):
    assert missed([embedding.row(mine=100.0, theirs=10.0, cosine=cosine)]) is wrong


def test_a_file_with_other_stories_is_prepared_anew_and_the_same_stories_elsewhere_are_not(tmp_path):
    here, there = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    here.write_text(json.dumps({"text": "A cat sat."}) + "\n")
    there.write_text(here.read_text())
    first = curve.named(str(here), None)
    assert curve.named(str(there), None) == first != curve.named(str(here), str(there))
    here.write_text(json.dumps({"text": "A dog ran."}) + "\n")
    assert curve.named(str(here), None) != first


def test_the_bar_of_training_is_beside_the_eager_peer_alone():
    measured = {name: Measured(cpu_s=1.0, wall_s=1.0, peak_mb=1.0, figures={"tokens": 100}) for name in train.PEERS}
    measured["ours"] = Measured(cpu_s=1.0, wall_s=1.0, peak_mb=1.0, figures={"tokens": 250})
    rows = train.rows_of("260K", 1, measured)
    assert [row.peer.split(" 100")[0] for row in rows] == list(train.PEERS)
    assert [row.bar for row in rows] == [train.BARS["260K", 1], None, None, None]
