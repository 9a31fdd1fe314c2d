"""Stages run once, and again when the content of what they read has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcts.errors import UserError
from models.engines.folder import content_hash
from models.training.stages import Stages


class Copier:
    """A stage that copies a file and notes each start in a log."""

    def __init__(self, folder: Path, continues: bool = False, then: str = "true") -> None:
        self.folder, self.continues, self.then = folder, continues, then
        self.source, self.target, self.log = (folder / name for name in ("source", "target", "log"))
        self.source.write_text("one")

    def run(self, **inputs: str) -> int:
        """Runs the stage; returns how often its command was started so far."""
        script = 'cat "$0" >> "$1"; echo started >> "$2"; ' + self.then
        command = ["sh", "-c", script, *map(str, (self.source, self.target, self.log))]
        known = {"source": content_hash(self.source), **inputs}
        Stages(self.folder).run(self.folder, "copy", command, known, [self.target], continues=self.continues)
        return len(self.log.read_text().splitlines())


def test_a_finished_stage_runs_again_only_when_an_input_or_its_output_is_another(tmp_path: Path) -> None:
    stage = Copier(tmp_path)
    assert stage.run() == 1 and stage.run() == 1
    stage.source.touch()  # another time, the same content
    assert stage.run() == 1
    stage.source.write_text("two")
    assert stage.run() == 2 and stage.target.read_text() == "two"  # nothing of the old result is left
    assert stage.run(key="a") == 3 and stage.run(key="b") == 4 and stage.run(key="b") == 4
    stage.target.unlink()
    assert stage.run(key="b") == 5


def test_what_has_changed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = Copier(tmp_path)
    stage.run(key="a")
    stage.source.write_text("two")
    stage.run(key="a")
    assert "copy: source changed" in capsys.readouterr().err


@pytest.mark.parametrize(("continues", "left"), [(True, "oneone"), (False, "one")])
def test_a_failed_stage_goes_on_with_what_it_left_if_it_can(tmp_path: Path, continues: bool, left: str) -> None:
    stage = Copier(tmp_path, continues, then="exit 3")
    with pytest.raises(SystemExit) as ended:
        stage.run()
    assert ended.value.code == 3 and not (tmp_path / "copy.done").exists()
    stage.then = "true"
    assert stage.run() == 2 and stage.target.read_text() == left


def test_a_stage_that_was_stopped_on_other_inputs_begins_anew(tmp_path: Path) -> None:
    stage = Copier(tmp_path, continues=True, then="exit 3")
    with pytest.raises(SystemExit):
        stage.run()
    stage.source.write_text("two")
    stage.then = "true"
    assert stage.run() == 2 and stage.target.read_text() == "two"


def test_a_marker_that_names_no_inputs_is_refused(tmp_path: Path) -> None:
    stage = Copier(tmp_path)
    (tmp_path / "copy.done").write_text(json.dumps({"key": "0", "command": ["x"], "seconds": 1}))
    with pytest.raises(UserError, match=r"copy\.done: does not say of which inputs"):
        stage.run()


def test_the_hash_of_a_folder_follows_every_byte_of_its_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(5 << 20))
    before = content_hash(tmp_path)
    path.write_bytes(bytes(2 << 20) + b"x" + bytes((3 << 20) - 1))  # in the middle, of the same length
    assert content_hash(tmp_path) != before
    path.write_bytes(bytes(5 << 20))
    assert content_hash(tmp_path) == before
    with pytest.raises(UserError, match="none: cannot be read"):
        content_hash(tmp_path / "none")
