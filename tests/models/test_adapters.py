"""Adapters as files: a base with an adapter over it is the model that was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from peft import PeftModel

from arbor.commands.adapter import command
from mcts.errors import UserError
from models.training.adapters import ADAPTER, extract
from models.training.folders import load_causal, load_policy_value, write_folder
from tests.conftest import save_model_folder

RANK = 4
IDS = torch.arange(2, 40).view(2, -1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base, and a model whose linear layers differ from it by products of rank 4, with a head of its own."""
    base, trained = (tmp_path_factory.mktemp("adapters") / name for name in ("base", "trained"))
    save_model_folder(base)
    module = load_policy_value(base)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in module.causal.named_parameters():
            if "_proj" in name:
                weight += 0.1 * torch.randn(len(weight), RANK) @ torch.randn(RANK, weight.shape[1]) / RANK
        module.head.summary.weight.normal_()
    write_folder(module.causal, module.causal.state_dict(), module.head, base, trained, torch.float32)
    return base, trained


def answers(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and values of a folder."""
    module = load_policy_value(folder).eval()
    with torch.no_grad():
        found = module.causal(IDS, output_hidden_states=True)
        return found.logits, module.values(found.hidden_states[-1])


def run(*words: str | Path) -> int:
    return CliRunner().invoke(command, [str(word) for word in words]).exit_code


def test_an_adapter_over_its_base_is_the_trained_model(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, trained = folders
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    assert run("--base", base, "--model", trained, "--rank", RANK, "--dtype", "float32", "--output", adapter) == 0
    assert run("--base", base, "--adapter", adapter, "--output", merged) == 0
    for own, other, plain in zip(answers(merged), answers(trained), answers(base), strict=True):
        assert torch.allclose(own, other, atol=1e-4)
        assert not torch.allclose(own, plain, atol=1e-2)
    over = PeftModel.from_pretrained(load_causal(base), str(adapter)).eval()
    with torch.no_grad():
        assert torch.allclose(over(IDS).logits, answers(trained)[0], atol=1e-4)


def test_a_lower_rank_holds_the_largest_part_of_the_change(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shares = [extract(*folders, tmp_path / str(rank), rank, "bfloat16") for rank in (1, 2, RANK)]
    assert 1 > shares[0] > shares[1] > 0.1 > 0.01 > shares[2]
    sizes = [(tmp_path / str(rank) / ADAPTER).stat().st_size for rank in (1, RANK)]
    assert sizes[1] > 2 * sizes[0]


def test_what_an_adapter_cannot_hold_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, _ = folders
    module = load_policy_value(base)
    with pytest.raises(UserError, match="the weights are the same"):
        extract(base, base, tmp_path / "a", RANK, "float32")
    with torch.no_grad():
        module.causal.model.norm.weight += 1
    write_folder(module.causal, module.causal.state_dict(), module.head, base, tmp_path / "norm", torch.float32)
    with pytest.raises(UserError, match=r"norm\.weight has changed"):
        extract(base, tmp_path / "norm", tmp_path / "a", RANK, "float32")
    assert run("--base", base, "--adapter", tmp_path / "nowhere", "--output", tmp_path / "m") != 0
    assert run("--base", base, "--output", tmp_path / "m") != 0
