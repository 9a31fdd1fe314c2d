import json
import random
from dataclasses import replace
from itertools import repeat

import pytest
import torch

from mcts.tree import TOO_DEEP, Node
from models.tiny.learning import IGNORED, Example, Muon, batches, collate, fit, losses, orthogonalized, schedule
from models.tiny.train import Recipe, interleave, new_model, outcomes, path_record, paths, stage, train
from models.transformers_engine import TransformersModel
from models.value_head import ValueHead

TINY = Recipe(hidden=32, layers=1, feed_forward=32, head_dim=16, batch=4, policy_updates=2, problems=2, widths=(2, 1))


class Vocabulary:
    eos_token_id = pad_token_id = 0

    def __len__(self) -> int:
        return 40


def small_model():
    torch.manual_seed(0)
    return new_model(TINY, Vocabulary()), ValueHead(TINY.hidden, dropout=0.0)


def test_batches_pad_on_the_right_and_learn_only_what_is_marked():
    batch = collate([Example((5, 6, 7), (False, True, True), ((2, 0.5),)), Example((8,), (False,))])
    assert batch.token_ids.shape == (2, 16)
    assert batch.labels[0, :4].tolist() == [IGNORED, 6, 7, IGNORED]
    assert (batch.labels[1] == IGNORED).all()
    assert batch.targets.isnan().sum() == 31
    assert batch.targets[0, 2] == 0.5


def test_every_example_is_in_exactly_one_batch():
    examples = [Example((i,) * (1 + i % 30), (True,) * (1 + i % 30)) for i in range(1, 100)]
    seen = [row[0].item() for batch in batches(examples, 8, random.Random(0)) for row in batch.token_ids]
    assert sorted(seen) == list(range(1, 100))


def test_loss_of_an_example_does_not_depend_on_its_neighbours_in_the_batch():
    model, head = small_model()
    short = Example((1, 2, 3), (False, True, True), ((2, 1.0),))
    long = Example(tuple(range(1, 39)), (False,) * 38)
    alone, together = losses(model, head, collate([short])), losses(model, head, collate([short, long]))
    assert torch.allclose(torch.stack(alone), torch.stack(together), atol=1e-5)


def test_batch_without_policy_or_value_targets_costs_nothing():
    model, head = small_model()
    policy, value = losses(model, head, collate([Example((1, 2, 3), (False,) * 3)]))
    assert policy == 0
    assert value == 0


@pytest.mark.parametrize("shape", [(2, 24, 8), (1, 8, 24)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape):
    torch.manual_seed(0)
    singular = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
    assert (singular > 0.5).all()
    assert (singular < 1.3).all()


def test_muon_moves_a_matrix_against_its_gradient():
    weight = torch.nn.Parameter(torch.zeros(4, 4))
    weight.grad = torch.eye(4)
    Muon([weight], lr=0.1).step()
    assert (weight.diag() < -0.05).all()


def test_learning_rate_rises_stays_and_falls():
    factors = [schedule(update, 100) for update in range(100)]
    assert factors[0] == pytest.approx(0.05)
    assert factors[30] == 1
    assert factors[-1] < 0.02
    assert factors[30:] == sorted(factors[30:], reverse=True)


def test_fit_learns_policy_and_value_together_and_reports():
    model, head = small_model()
    good = Example((1, 2, 3, 4, 5, 6), (False, True, True, True, True, True), ((2, 0.9), (5, -0.9)))
    before = [loss.item() for loss in losses(model, head, collate([good]))]
    reports: list[str] = []
    fit(
        model, head, repeat(collate([good] * 4)), 60,
        rates=(0.02, 3e-3), value_weight=1.0, report=reports.append, report_every=25,
    )  # fmt: skip
    policy, value = (loss.item() for loss in losses(model, head, collate([good])))
    assert policy < 0.3 * before[0]
    assert value < 0.2 * before[1]
    assert [line.split("/")[0] for line in reports] == ["25", "50", "60"]


def test_interleaved_batches_keep_the_share():
    mixed = list(interleave(["own"] * 60, repeat("replayed"), 0.4))
    assert mixed.count("own") == 60
    assert mixed.count("replayed") == 40


def small_tree() -> Node:
    root = Node(token_ids=(1, 2))
    left, right = (Node(f"0.{i}", root, 1, token_ids=(3, 4, 5 + i)) for i in range(2))
    root.children = [left, right]
    left.children = [
        Node(f"0.0.{i}", left, 2, token_ids=(7,), final_answer=a, terminal=True) for i, a in enumerate("12")
    ]
    right.children = [Node("0.1.0", right, 2, token_ids=(9,), final_answer=TOO_DEEP, terminal=True)]
    return root


def test_a_state_is_worth_the_mean_outcome_of_its_leaves():
    root = small_tree()
    assert outcomes(root, "1") == [1, -1, -1]
    assert root.value == pytest.approx(-1 / 3)
    assert root.children[0].value == 0
    assert root.children[1].value == -1


def test_values_are_read_at_the_last_token_of_question_and_steps_but_not_of_failures():
    root = small_tree()
    outcomes(root, "1")
    first, _, last = (path_record(path) for path in paths(root))
    assert first["token_ids"] == [1, 2, 3, 4, 5, 7]
    assert first["targets"] == [(1, root.value), (4, 0.0), (5, 1.0)]
    assert last["targets"] == [(1, root.value), (4, -1.0)]


def test_an_interrupted_stage_is_made_again_and_a_finished_one_is_not(tmp_path):
    def broken(folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path, "policy", broken)
    made = stage(tmp_path, "policy", lambda folder: (folder / "whole").touch())
    assert [path.name for path in made.iterdir()] == ["whole"]
    assert stage(tmp_path, "policy", broken) == made


def test_training_from_nothing_gives_a_model_that_the_engine_loads(tmp_path, capsys):
    train(TINY, tmp_path / "out", tmp_path / "runs")
    model = TransformersModel.load(tmp_path / "out", need_value=True)
    assert model.encode("12") == (*model.encode("1"), *model.encode("2"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["value_model"] is True
    first = capsys.readouterr().out
    assert all(name in first for name in ("policy [", "2/2 policy", "rollouts [", "value [", "s left"))
    train(TINY, tmp_path / "again", tmp_path / "runs")
    assert "left" not in capsys.readouterr().out
    assert (tmp_path / "again" / "model.safetensors").exists()


def test_recipes_that_differ_keep_their_stages_apart():
    assert replace(TINY, seed=2).key() != TINY.key() == replace(TINY).key()
