"""Losses against numbers worked out by hand, and trees against unrolled paths."""

import math
import random

import numpy as np
import pytest
import torch

from models.engines.value_head import ValueHead
from models.training.data import Pair, Totals, Trajectory, Unit, make_batch, tree_tokens
from models.training.losses import (
    PolicyValue,
    Weights,
    policy_sum,
    preference_sum,
    ranking_sum,
    token_logprobs,
    value_sum,
)
from tests.conftest import random_model

VOCABULARY = 23


def path(ids, learned=None, targets=()):
    learned = [True] * len(ids) if learned is None else learned
    return Trajectory(np.array(ids, np.int32), np.array(learned, bool), tuple(targets))


def module_of(family="llama"):
    torch.manual_seed(3)
    head = ValueHead(64, dropout=0.0)
    return PolicyValue(random_model(family, VOCABULARY).float(), head).train()


def test_policy_loss_and_gradient_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]], requires_grad=True)
    loss = policy_sum(token_logprobs(logits, torch.tensor([1, 0])), torch.tensor([1.0, 2.0]))
    assert loss.item() == pytest.approx(-math.log(0.75) - 2 * math.log(0.5))
    loss.backward()
    expected = [[0.25, -0.25], [-1.0, 1.0]]  # weight · (probability - 1 at the token)
    assert torch.allclose(logits.grad, torch.tensor(expected), atol=1e-6)


def test_value_loss_and_gradient_by_hand():
    raw = torch.tensor([0.0, 0.5], requires_grad=True)
    loss = value_sum(torch.tanh(raw), torch.tensor([1.0, -1.0]), torch.tensor([1.0, 3.0]))
    tanh = math.tanh(0.5)
    assert loss.item() == pytest.approx(1 + 3 * (tanh + 1) ** 2, rel=1e-6)
    loss.backward()
    assert raw.grad.tolist() == pytest.approx([-2.0, 6 * (tanh + 1) * (1 - tanh**2)], rel=1e-5)


def test_preference_loss_and_gradient_by_hand():
    logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    reference = torch.tensor([[-1.5, -1.0]])
    loss = preference_sum(logprobs, reference, beta=0.2)
    margin = 0.2 * (0.5 - (-1.0))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-margin)), rel=1e-6)
    loss.backward()
    pull = 0.2 / (1 + math.exp(margin))
    assert logprobs.grad[0].tolist() == pytest.approx([-pull, pull], rel=1e-5)


def test_ranking_loss_asks_for_the_margin_and_no_more():
    values = torch.tensor([[0.9, 0.1], [0.2, 0.1]], requires_grad=True)
    loss = ranking_sum(values, margin=0.5)
    assert loss.item() == pytest.approx(0.4)
    loss.backward()
    assert values.grad.tolist() == [[0, 0], [-1, 1]]


@pytest.mark.parametrize("units", [[], [Unit((path([1, 2, 3], [False] * 3),))]])
def test_a_batch_that_asks_for_nothing_costs_zero_and_moves_nothing(units):
    module = module_of()
    sums, steps = module(make_batch(units, shared=False), Weights(preference=1.0, ranking=1.0))
    terms = Weights().means(sums, Totals.of(units))
    assert terms.tolist() == [0, 0, 0, 0] and steps.shape == (0, 2)
    Weights().combine(terms).backward()
    assert all((p.grad == 0).all() for p in module.parameters())  # present, so that no process waits for another


def test_wrong_paths_teach_the_value_only():
    right, wrong = path([1, 2, 3, 4], targets=[(3, 1.0)]), path([1, 2, 5, 6], [False] * 4, [(3, -1.0)])
    both, alone = (Unit((right, wrong)), Unit((right,)))
    module = module_of()
    first, second = (module(make_batch([unit], False), Weights())[0] for unit in (both, alone))
    assert first[0].item() == pytest.approx(second[0].item(), rel=1e-5)
    assert Totals.of([both]) == Totals(3, 2, 0)


def test_policy_term_is_the_models_own_cross_entropy():
    module, one = module_of(), path([4, 9, 2, 7, 7], [False, False, True, True, True])
    sums, _ = module(make_batch([Unit((one,))], False), Weights())
    ids = torch.tensor([one.token_ids.tolist()])
    labels = ids.clone()
    labels[0, :2] = -100
    expected = module.model(input_ids=ids, labels=labels).loss
    assert Weights().means(sums, Totals.of([Unit((one,))]))[0].item() == pytest.approx(expected.item(), rel=1e-5)


def branching_unit(rng, paths=5, pairs=2):
    """Random paths that part at random places, and pairs that grow out of them."""
    trunk = [rng.randrange(VOCABULARY) for _ in range(30)]

    def grown(at):
        return trunk[:at] + [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 14))]

    def one(ids, learn):
        ends = sorted({rng.randrange(len(ids)), len(ids) - 1})
        return path(ids, [learn and i > 2 for i in range(len(ids))], [(at, rng.uniform(-1, 1)) for at in ends])

    sequences = [one(grown(rng.randint(3, 30)), rng.random() < 0.6) for _ in range(paths)]
    sequences.append(sequences[0])  # the same path twice counts twice
    sequences.append(path(trunk[:9], [True] * 9, [(8, 0.3)]))  # a path that ends inside another
    found = []
    for _ in range(pairs):
        at = rng.randint(3, 30)
        sides = []
        for _ in range(2):
            ids = grown(at)
            sides.append(path(ids, [i >= at for i in range(len(ids))], [(len(ids) - 1, rng.uniform(-1, 1))]))
        found.append(Pair(*sides, reference=(rng.uniform(-9, 0), rng.uniform(-9, 0))))
    return Unit(tuple(sequences), tuple(found))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("seed", range(3))
def test_trees_give_the_loss_and_gradients_of_unrolled_paths(family, attention, seed):
    rng = random.Random(seed)
    units = [branching_unit(rng) for _ in range(3)]
    weights, found = Weights(value=0.7, preference=1.0, ranking=0.5), []
    module = module_of(family)
    module.model.set_attn_implementation(attention)
    for shared in (False, True):
        module.zero_grad()
        batch = make_batch(units, shared)
        sums, steps = module(batch, weights)
        terms = Weights().means(sums, Totals.of(units))
        weights.combine(terms).backward()
        found.append((terms.detach(), steps, [p.grad.clone() for p in module.parameters()], batch))
    (terms, steps, gradients, unrolled), (tree_terms, tree_steps, tree_gradients, tree) = found
    assert torch.allclose(terms, tree_terms, rtol=0, atol=1e-5)
    assert torch.allclose(steps, tree_steps, rtol=1e-5, atol=1e-4)  # sums of up to 14 log-probabilities
    scale = max(one.abs().max() for one in gradients).clamp(min=1.0)
    for one, other in zip(gradients, tree_gradients, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-5 * scale)
    assert tree.mask is not None and unrolled.mask is None
    assert tree.token_ids.numel() < unrolled.token_ids.numel()


def test_a_tree_holds_each_shared_prefix_once():
    unit = Unit((path([1, 2, 3, 4]), path([1, 2, 3, 5, 6]), path([1, 7])))
    assert tree_tokens(unit) == 7
    batch = make_batch([unit], shared=True)
    assert batch.token_ids[0, :7].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert batch.positions[0, :7].tolist() == [0, 1, 2, 3, 3, 4, 1]
    assert batch.mask[0, 0, 5, :7].tolist() == [True, True, True, False, True, True, False]
    weight = dict(zip(batch.policy_token.tolist(), batch.policy_weight.tolist(), strict=True))
    assert weight == {2: 2, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1}
