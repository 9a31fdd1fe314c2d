"""The trainer as a person runs it: continued after a kill, with adapters, on what it must refuse."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from mcts.config import load_keys
from mcts.errors import UserError
from mcts.model import Context, Sampling
from models.engines.transformers.engine import TransformersModel
from models.engines.value_head import load_value_head
from models.training.data import Batch
from models.training.losses import OBJECTIVES, PolicyValue
from models.training.optimizers import Muon
from models.training.settings import TrainSettings
from models.training.trainer import Trainer
from tests.conftest import write_jsonl
from tests.models.training_runs import example_lines, make_folder, metrics, same_weights, settings, weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("training"))


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """Accelerate keeps one state a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A training without interruption, with evaluation."""
    output = folder / "whole"
    keys = {"eval_examples": [str(folder / "held_out.jsonl")], "tensorboard": True}
    Trainer(settings(folder, output, objective="svpo", **keys)).run()
    return output


def test_training_lowers_every_term_and_evaluates(whole: Path) -> None:
    rows = metrics(whole)
    assert [row["update"] for row in rows] == list(range(1, 13))
    for term in ("policy", "value", "preference"):
        assert sum(row[term] for row in rows[-3:]) < 0.9 * sum(row[term] for row in rows[:3]), term
    assert rows[0]["preference"] == pytest.approx(0.6931, abs=1e-3)  # a model prefers nothing over itself
    assert [row["update"] for row in metrics(whole, "eval")] == [6, 12]
    assert list((whole / "logs").rglob("events.out.tfevents.*"))


def test_the_model_is_loaded_by_transformers_and_by_the_engine(whole: Path) -> None:
    AutoModelForCausalLM.from_pretrained(whole / "model")
    assert TransformersModel.load(whole / "model", need_value=True).encode("a")
    assert json.loads((whole / "model" / "config.json").read_text())["value_model"] is True
    assert not (whole / "checkpoint").exists()


def test_a_training_killed_anywhere_ends_with_the_same_weights(folder: Path, whole: Path, tmp_path: Path) -> None:
    keys = settings(folder, tmp_path / "killed", objective="svpo", save_every=2, updates=12, draw="example")
    config = tmp_path / "keys.json"  # JSON is YAML
    config.write_text(json.dumps(keys.model_dump()))
    command = [sys.executable, "scripts/train.py", "--config", str(config)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "killed" / "checkpoint"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None and not list(checkpoints.glob("0*")):
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert list(checkpoints.glob("0*")) and not (tmp_path / "killed" / "model").exists()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert same_weights(tmp_path / "killed", whole, 1e-6)
    assert [row["update"] for row in metrics(tmp_path / "killed")] == list(range(1, 13))


@pytest.mark.parametrize("optimizer", ["adamw", "muon+adamw"])
def test_a_continued_training_is_the_uninterrupted_one_for_every_optimizer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    keys = {"optimizer": optimizer, "updates": 5, "save_every": 2, "value_dropout": 0.3}
    Trainer(settings(folder, tmp_path / "a", **keys)).run()
    stopped = Trainer(settings(folder, tmp_path / "b", **keys))
    update = stopped._update

    def broken(number: int) -> torch.Tensor:
        if number == 3:
            raise KeyboardInterrupt
        return update(number)

    monkeypatch.setattr(stopped, "_update", broken)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    Trainer(settings(folder, tmp_path / "b", **keys)).run()
    assert same_weights(tmp_path / "a", tmp_path / "b", 1e-6)


def test_muon_in_float32_takes_the_steps_of_torch() -> None:
    random = torch.Generator().manual_seed(0)
    shapes = [(8, 8), (24, 8), (8, 24)]
    starts = [torch.randn(shape, generator=random) for shape in shapes]
    moved = []
    for kind in (torch.optim.Muon, Muon):
        ours = [nn.Parameter(start.clone()) for start in starts]
        optimizer, gradients = kind(ours, lr=0.02, weight_decay=0.1), torch.Generator().manual_seed(1)
        for _ in range(4):
            for one in ours:
                one.grad = torch.randn(one.shape, generator=gradients)
            optimizer.step()
        moved.append([one.detach() - start for one, start in zip(ours, starts, strict=True)])
    for theirs, own in zip(*moved, strict=True):  # 8 bits of a bfloat16 are a step's error, in the norm
        assert float((own - theirs).norm()) < 0.02 * float(theirs.norm())


def test_trees_train_as_unrolled_paths_do(folder: Path, tmp_path: Path) -> None:
    for sharing in ("never", "always"):
        keys = {"draw": "question", "tree_attention": sharing, "updates": 4, "batch_size": 3, "objective": "svpo"}
        Trainer(settings(folder, tmp_path / sharing, **keys)).run()
    for one, other in zip(metrics(tmp_path / "never"), metrics(tmp_path / "always"), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_adapters_are_merged_and_checkpoints_are_sharded(folder: Path, tmp_path: Path) -> None:
    keys = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.0}, "gradient_checkpointing": True, "precision": "bf16"}
    Trainer(settings(folder, tmp_path / "out", shard_size="100KB", **keys)).run()
    model = tmp_path / "out" / "model"
    assert (model / "model.safetensors.index.json").exists() and not (model / "adapter_config.json").exists()
    base, now = load_file(folder / "base" / "model.safetensors"), weights(tmp_path / "out")
    moved = {name for name in base if not torch.equal(base[name], now[name])}
    assert any("q_proj" in name for name in moved) and not any("norm" in name for name in moved)
    rows = metrics(tmp_path / "out")
    assert sum(row["loss"] for row in rows[-3:]) < sum(row["loss"] for row in rows[:3])
    TransformersModel.load(model, need_value=True)


def test_the_head_learns_alone_where_the_model_is_frozen(folder: Path, tmp_path: Path) -> None:
    keys = {"frozen": True, "policy_weight": 0.0, "value_weight": 1.0, "learning_rate": 1e-2, "value_dropout": 0.0}
    Trainer(settings(folder, tmp_path / "out", **keys)).run()
    base, now = load_file(folder / "base" / "model.safetensors"), weights(tmp_path / "out")
    assert all(torch.equal(base[name], now[name]) for name in base)
    rows = metrics(tmp_path / "out")
    assert sum(row["value"] for row in rows[-3:]) < 0.95 * sum(row["value"] for row in rows[:3])
    with pytest.raises(ValidationError, match="only the value head learns"):
        settings(folder, tmp_path / "out", frozen=True)


def test_a_frozen_model_computes_a_state_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"frozen": True, "policy_weight": 0.0, "value_dropout": 0.0, "accumulation": 2, "epochs": 9, "updates": None}
    passes, hidden = Counter[str](), PolicyValue.hidden
    for name in ("once", "always"):

        def counted(module: PolicyValue, batch: Batch, name: str = name) -> torch.Tensor:
            passes[name] += 1
            return hidden(module, batch)

        monkeypatch.setattr(PolicyValue, "hidden", counted)
        if name == "always":
            monkeypatch.setattr(PolicyValue, "_known", lambda module, batch, at, seen: module.hidden(batch)[at])
        Trainer(settings(folder, tmp_path / name, **keys)).run()
    assert passes["once"] == 8 and passes["always"] >= 72  # 24 paths, 3 a pass
    assert same_weights(tmp_path / "once", tmp_path / "always", 1e-6)
    one, other = (load_value_head(tmp_path / name / "model").summary.weight for name in passes)
    assert torch.allclose(one, other, rtol=0, atol=1e-5) and not torch.equal(one, torch.zeros_like(one))


def test_a_published_folder_continues_training(folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "published"
    shutil.copytree(folder / "base", base)
    (base / "value_head.safetensors").unlink()
    head = {"v_head.summary.weight": torch.randn(1, 64), "v_head.summary.bias": torch.randn(1)}
    torch.save(head, base / "value_head.pth")
    Trainer(settings(folder, tmp_path / "out", model_dir=str(base), updates=1, learning_rate=1e-6)).run()
    trained = load_value_head(tmp_path / "out" / "model").summary.weight
    assert torch.allclose(trained, head["v_head.summary.weight"], atol=1e-4) and trained.shape == (1, 64)


def test_examples_are_replayed_at_their_share(folder: Path) -> None:
    from models.training.data import Kept, read_units
    from models.training.plan import Plan

    keys = settings(folder, folder / "none", replay=["x"], replay_share=0.25, batch_size=10, seed=3)
    own = read_units([folder / "examples.jsonl"], 300, Kept(100), by_group=False)
    replay = read_units([folder / "held_out.jsonl"], 300, Kept(100), by_group=False)
    plan = Plan(own, replay, keys)
    seen = [unit for update in range(plan.per_epoch) for unit in plan.update(update)]
    assert len(seen) == 48 and sum(any(unit is one for one in replay) for unit in seen) == 12
    assert {id(unit) for unit in own} <= {id(unit) for unit in seen}
    assert [u.tokens for u in Plan(own, replay, keys).update(2)] == [u.tokens for u in plan.update(2)]


def test_nothing_trained_is_overwritten_without_being_asked(folder: Path, whole: Path, tmp_path: Path) -> None:
    before = weights(whole)
    with pytest.raises(UserError, match="another training"):
        Trainer(settings(folder, whole, learning_rate=1.0))
    Trainer(settings(folder, tmp_path / "x", updates=1)).run()
    first = weights(tmp_path / "x")
    Trainer(settings(folder, tmp_path / "x", updates=1)).run()  # finished: nothing to do
    assert all(torch.equal(weights(tmp_path / "x")[name], first[name]) for name in first)
    Trainer(settings(folder, tmp_path / "x", updates=2), overwrite=True).run()
    assert len(metrics(tmp_path / "x")) == 2
    assert all(torch.equal(weights(whole)[name], before[name]) for name in before)


def test_overwriting_keeps_what_cannot_be_replaced_and_what_is_no_training(folder: Path, tmp_path: Path) -> None:
    output, bad = tmp_path / "x", tmp_path / "bad.jsonl"
    bad.write_text("{broken\n")
    Trainer(settings(folder, output, updates=1)).run()
    (output / "notes.txt").write_text("mine")
    before = weights(output)
    for change, words in (({"examples": [str(bad)]}, "bad.jsonl:1"), ({"model_dir": "none"}, "no such folder")):
        with pytest.raises(UserError, match=words):
            Trainer(settings(folder, output, **change), overwrite=True)
        assert all(torch.equal(weights(output)[name], before[name]) for name in before)
    Trainer(settings(folder, output, updates=2), overwrite=True).run()
    assert (output / "notes.txt").read_text() == "mine" and len(metrics(output)) == 2
    (tmp_path / "project" / "model").mkdir(parents=True)
    with pytest.raises(UserError, match="other files than a training's"):
        Trainer(settings(folder, tmp_path / "project"), overwrite=True)
    assert (tmp_path / "project" / "model").exists()


@pytest.mark.parametrize(
    ("item", "words"),
    [("examples=[]", "'examples'"), ("shard_size=huge", "'shard_size'"), ("learning_rate=.inf", "'learning_rate'")],
)
def test_keys_that_would_fail_at_the_end_are_refused_at_the_start(tmp_path: Path, item: str, words: str) -> None:
    (tmp_path / "c.yaml").write_text("model_dir: a\noutput: b\nexamples: [x.jsonl]\n")
    with pytest.raises(UserError, match=words):
        load_keys(TrainSettings, tmp_path / "c.yaml", [item])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{broken", ["x.jsonl:2", "not valid JSON"]),
        ('{"kind": "path", "token_ids": [99999999999999999999], "loss_mask": [1]}', ["x.jsonl:2", "not an example"]),
        ('{"kind": "path", "token_ids": [1], "loss_mask": [0], "targets": [[0, NaN]]}', ["x.jsonl:2", "-1 to 1"]),
        ('{"kind": "path", "token_ids": [1, 2], "loss_mask": [1]}', ["x.jsonl:2", "one length"]),
        ('{"kind": "path", "token_ids": [1, 9999], "loss_mask": [0, 1]}', ["x.jsonl:2", "vocabulary"]),
        ('{"kind": "path", "token_ids": [1], "loss_mask": [0], "targets": [[4, 1.0]]}', ["x.jsonl:2", "target"]),
        ('{"kind": "pair", "prefix": [1]}', ["x.jsonl:2", "chosen"]),
    ],
)
def test_bad_example_lines_are_named(folder: Path, tmp_path: Path, line: str, words: list[str]) -> None:
    good = json.dumps(example_lines(1)[0])
    (tmp_path / "x.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(UserError) as error:
        Trainer(settings(folder, tmp_path / "out", examples=[str(tmp_path / "x.jsonl")])).run()
    assert all(word in str(error.value) for word in words), error.value


def test_unknown_keys_and_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model_dir: a\noutput: b\nexamples: [none.jsonl]\nlearning_rate: 4e-5\n")
    assert load_keys(TrainSettings, tmp_path / "c.yaml").learning_rate == 4e-5
    with pytest.raises(UserError, match="did you mean 'batch_size'"):
        load_keys(TrainSettings, tmp_path / "c.yaml", ["batch_sise=3"])
    with pytest.raises(UserError, match=r"none\.jsonl"):
        Trainer(load_keys(TrainSettings, tmp_path / "c.yaml", [f"output={tmp_path / 'o'}"]))
    too_long = settings(folder, tmp_path / "p", max_tokens=3, max_too_long=1.0)
    with pytest.raises(UserError, match="24 of 24 examples are longer than max_tokens 3"):
        Trainer(too_long).run()


@pytest.mark.parametrize("updates", [1, 4])  # after one the weights are 1e30: numbers, but no model
def test_a_diverged_training_stops_with_one_line_and_leaves_no_model(
    folder: Path, tmp_path: Path, updates: int
) -> None:
    with pytest.raises(UserError, match=r"diverged; lower learning_rate \(1e\+30\)") as error:
        Trainer(settings(folder, tmp_path / "out", learning_rate=1e30, warmup=0.0, updates=updates)).run()
    assert "\n" not in str(error.value) and not (tmp_path / "out" / "model").exists()
    assert "NaN" not in (tmp_path / "out" / "metrics.jsonl").read_text()


def test_weights_that_are_no_numbers_are_not_trained_or_searched_with(folder: Path, tmp_path: Path) -> None:
    for name, file in (("model.norm.weight", "model"), ("v_head.summary.bias", "value_head")):
        base = tmp_path / file
        shutil.copytree(folder / "base", base)
        tensors = load_file(base / f"{file}.safetensors")
        tensors[name].view(-1)[0] = float("nan")
        save_file(tensors, base / f"{file}.safetensors", metadata={"format": "pt"})
        for load in (
            lambda base=base: TransformersModel.load(base, need_value=True),
            lambda base=base, file=file: Trainer(settings(folder, tmp_path / f"of {file}", model_dir=str(base))).run(),
        ):
            with pytest.raises(UserError, match=f"{name} is not finite"):
                load()


async def test_a_model_whose_numbers_overflow_ends_a_search_with_a_clear_line(folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "huge"
    shutil.copytree(folder / "base", base)
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] *= 3e38  # the states overflow, the weights do not
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    model = TransformersModel.load(base, need_value=True)
    context = Context(None, (1, 2, 3))
    with pytest.raises(UserError, match="the value head gives nan"):
        await model.sample(context, 1, Sampling(max_tokens=3))
    with pytest.raises(UserError, match="as a log-probability"):
        await TransformersModel.load(base, need_value=False).sample(context, 1, Sampling(max_tokens=3))


def test_examples_that_are_too_long_are_counted_and_most_of_them_may_not_be(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = sorted(len(line["token_ids"]) for line in example_lines(12) if line["kind"] == "path")
    middle = lengths[len(lengths) // 2]
    too_long = sum(length > middle for length in lengths)
    Trainer(settings(folder, tmp_path / "a", max_tokens=middle, updates=1)).run()
    said = f"{too_long} of 24 examples are longer than max_tokens {middle} and left out"
    assert said in capsys.readouterr().err
    (data,) = metrics(tmp_path / "a", "data")
    assert data["examples"] == {"used": 24 - too_long, "too_long": too_long, "of_other_kinds": 12}
    with pytest.raises(UserError, match=rf"max_too_long \(0.5\).*max_tokens \d+ keeps 95 % of them, {lengths[-1]} all"):
        Trainer(settings(folder, tmp_path / "b", max_tokens=lengths[1])).run()
    assert not (tmp_path / "b" / "model").exists()
    Trainer(settings(folder, tmp_path / "b", max_tokens=lengths[1], max_too_long=1.0, updates=1), overwrite=True).run()


def test_an_objective_uses_the_kinds_of_lines_that_it_names(folder: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "paths.jsonl", [line for line in example_lines(12) if line["kind"] == "path"])
    write_jsonl(tmp_path / "pairs.jsonl", [line for line in example_lines(12) if line["kind"] == "pair"])
    Trainer(settings(folder, tmp_path / "all", updates=2)).run()
    Trainer(settings(folder, tmp_path / "own", updates=2, examples=[str(tmp_path / "paths.jsonl")])).run()
    assert same_weights(tmp_path / "all", tmp_path / "own", 0)
    with pytest.raises(UserError, match=r"no example of kind path in it \(12 of other kinds\)"):
        Trainer(settings(folder, tmp_path / "none", examples=[str(tmp_path / "pairs.jsonl")])).run()


def test_an_objective_of_another_package_has_a_term_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, fresh in (("_entries", dict(OBJECTIVES._entries)), ("_places", {}), ("_discovered", False)):
        monkeypatch.setattr(OBJECTIVES, name, fresh)
    (tmp_path / "outside_objective.py").write_text(
        "from models.training.losses import Objective, Term, Weights, register_objective\n"
        "doubt = Term('doubt', 2.0, lambda asked: (1 - asked.values.abs()).sum(), lambda totals: totals.value)\n"
        "MINE = register_objective('doubting')(Objective(Weights(policy=0.0, value=0.0, more=(doubt,))))\n"
    )
    information = tmp_path / "outside_objective-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-objective\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[arbor.objectives]\ndoubting = outside_objective:MINE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = {"objective": "doubting", "value_weight": None, "updates": 8}
    Trainer(settings(folder, tmp_path / "out", **keys)).run()
    rows = metrics(tmp_path / "out")
    assert rows[-1]["doubt"] < rows[0]["doubt"] and rows[0]["loss"] == pytest.approx(2 * rows[0]["doubt"])
    with pytest.raises(ValidationError, match="unknown objective 'doubtin'; did you mean 'doubting'"):
        settings(folder, tmp_path / "x", objective="doubtin")


def test_weights_are_saved_in_the_precision_of_the_base_or_the_one_that_is_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    model.save_pretrained(half)
    for path in (folder / "base").iterdir():
        if not (half / path.name).exists():
            shutil.copy(path, half)
    for name, base, keys, expected in (
        ("a", half, {}, torch.bfloat16),
        ("b", half, {"save_dtype": "float32"}, torch.float32),
        ("c", folder / "base", {}, torch.float32),
        ("d", half, {"lora": {"rank": 2, "alpha": 2, "dropout": 0.0}, "precision": "bf16"}, torch.bfloat16),
    ):
        AcceleratorState._reset_state(reset_partial_state=True)
        Trainer(settings(folder, tmp_path / name, model_dir=str(base), updates=1, **keys)).run()
        found: dict[bool, set[torch.dtype]] = {}
        for key, one in weights(tmp_path / name).items():
            found.setdefault(key.startswith("v_head"), set()).add(one.dtype)
        assert found == {False: {expected}, True: {torch.float32}}
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / name / "model", dtype="auto")
        assert loaded.dtype == expected


def test_the_environment_of_a_launcher_changes_no_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(settings(folder, tmp_path / "a", updates=3)).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "7")
    Trainer(settings(folder, tmp_path / "b", updates=3)).run()
    assert same_weights(tmp_path / "a", tmp_path / "b", 0)


def test_a_finished_training_goes_on_as_a_longer_one_would_have_gone(folder: Path, tmp_path: Path) -> None:
    keys = {"schedule": "constant", "warmup": 0.0, "keep_state": True, "value_dropout": 0.2}
    Trainer(settings(folder, tmp_path / "long", updates=7, **keys)).run()
    Trainer(settings(folder, tmp_path / "grown", updates=4, **keys)).run()
    with pytest.raises(UserError, match="another training"):
        Trainer(settings(folder, tmp_path / "grown", updates=7, learning_rate=1e-3, **keys))
    Trainer(settings(folder, tmp_path / "grown", updates=7, **keys)).run()
    assert same_weights(tmp_path / "long", tmp_path / "grown", 1e-6)
    assert [row["update"] for row in metrics(tmp_path / "grown")] == list(range(1, 8))
    with pytest.raises(UserError, match="another training"):
        Trainer(settings(folder, tmp_path / "grown", updates=5, **keys))


def test_the_weights_of_the_lowest_held_out_loss_are_kept(folder: Path, tmp_path: Path) -> None:
    keys = {"eval_examples": [str(folder / "held_out.jsonl")], "eval_every": 2, "learning_rate": 3e-2, "updates": 8}
    Trainer(settings(folder, tmp_path / "best", keep="best", **keys)).run()
    losses = {row["update"]: row["loss"] for row in metrics(tmp_path / "best", "eval")}
    best = min(losses, key=losses.__getitem__)
    assert best < 8  # so high a rate forgets the held-out examples
    kept = Trainer(settings(folder, tmp_path / "judge", model_dir=str(tmp_path / "best" / "model"), **keys))
    kept._prepare()
    assert float(kept.weights.combine(kept.evaluate(kept.held_out))) == pytest.approx(losses[best], rel=1e-5)
    with pytest.raises(ValidationError, match="keep: best needs eval_examples"):
        settings(folder, tmp_path / "x", keep="best")
