"""The training loop, on accelerate: any number of processes, resumable to the update.

Every process knows the whole update and takes its share of it, so the means are taken over all processes and all
accumulation steps: the losses and the weights do not depend on how many there are (up to the rounding of sums).

Not covered by tests here: GPUs. FSDP2 is, on CPUs, and so is DeepSpeed ZeRO-3 where deepspeed is installed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import ProjectConfiguration, set_seed
from torch import Tensor
from tqdm import tqdm
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from mcts.errors import UserError
from models.engines.text import load_tokenizer
from models.training.data import Batch, Totals, Unit, make_batch, read_units, tree_tokens
from models.training.folders import build, save_merged
from models.training.losses import PolicyValue, check_tree_attention
from models.training.optimizers import make_optimizers
from models.training.plan import Plan, share_of
from models.training.settings import TrainSettings, rate_factor
from models.training.stages import write_text

OWN = ("settings", "metrics", "logs", "checkpoint", "model", "reference")  # what --overwrite deletes


class Trainer:
    """One training: `run` leaves a model folder in `output/model` and returns its path.

    output/ also holds settings.json (of what run this is), metrics.jsonl (losses, one line a report), logs/
    (TensorBoard) and checkpoint/ (the newest state, until the training is finished). Raises UserError.
    """

    def __init__(self, settings: TrainSettings, *, overwrite: bool = False) -> None:
        self.settings, self.weights = settings, settings.weights
        self.output = Path(settings.output)
        self.accelerator = Accelerator(
            cpu=settings.device == "cpu",
            mixed_precision=settings.precision,
            log_with="tensorboard" if settings.tensorboard else None,
            project_config=ProjectConfiguration(str(self.output), logging_dir=str(self.output / "logs")),
        )
        self.model_folder = self.output / "model"
        self._claim(overwrite)

    @property
    def main(self) -> bool:
        return self.accelerator.is_main_process

    def _claim(self, overwrite: bool) -> None:
        """Makes the output folder this training's own. Raises UserError rather than overwrite another one, or what is
        no training at all."""
        path, fingerprint = self.output / "settings.json", self.settings.fingerprint()
        known = _fingerprint(path)
        foreign = self.output.exists() and any(self.output.iterdir()) and known != fingerprint
        if foreign and known is None:
            raise UserError(f"{self.output}: holds other files than a training's; choose another output")
        if foreign and not overwrite:
            raise UserError(f"{self.output}: holds another training; choose another output, or --overwrite it")
        if foreign:
            self._inputs()  # the old model goes when the new one can begin, not before
        self.accelerator.wait_for_everyone()
        if self.main and not (path.exists() and not foreign):
            for old in self.output.iterdir() if foreign else ():
                if old.name.partition(".")[0] in OWN:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            self.output.mkdir(parents=True, exist_ok=True)
            keys = {"fingerprint": fingerprint, "settings": self.settings.model_dump()}
            write_text(path, json.dumps(keys, indent=1))
        self.accelerator.wait_for_everyone()

    def run(self) -> Path:
        if not self.model_folder.exists():
            set_seed(self.settings.seed)
            self._prepare()
            self._train()
            self._finish()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()  # the processes cannot talk to each other after it
        return self.model_folder

    # --- before the first update

    def _inputs(self) -> tuple[PolicyValue, list[Unit], list[Unit], list[Unit]]:
        """The module, and the units of `examples`, `replay` and `eval_examples`. Raises UserError."""
        settings = self.settings
        module = build(settings)
        load_tokenizer(Path(settings.model_dir))  # goes beside the trained weights
        vocabulary = module.causal.config.get_text_config().vocab_size

        def units(paths: Sequence[str]) -> list[Unit]:
            return read_units(map(Path, paths), vocabulary, settings.max_tokens, by_group) if paths else []

        by_group = settings.draw == "question"
        return module, units(settings.examples), units(settings.replay), units(settings.eval_examples)

    def _prepare(self) -> None:
        settings = self.settings
        module, own, replay, self.held_out = self._inputs()
        config = module.causal.config
        self.sharing = settings.draw == "question" and settings.tree_attention != "never"
        if self.sharing:
            check_tree_attention(config, max(len(s.token_ids) for unit in own for s in unit.all_sequences()))
        self.cost = _Cost(sum(p.numel() for p in module.parameters()), config.get_text_config())
        parts = self.accelerator.num_processes * settings.accumulation
        if settings.batch_size < parts:
            raise UserError(f"batch_size {settings.batch_size}: fewer than processes × accumulation = {parts}")
        self._prepare_engine(module)
        if self.settings.needs_reference:
            own, replay = self._with_reference(own, "examples"), self._with_reference(replay, "replay")
        self.plan = Plan(own, replay, settings)

    def _prepare_engine(self, module: torch.nn.Module) -> None:
        optimizers = make_optimizers(module, self.settings)
        self.rates = [[group["lr"] for group in one.param_groups] for one in optimizers]
        if len(optimizers) > 1 and self.accelerator.distributed_type in (
            DistributedType.DEEPSPEED,
            DistributedType.FSDP,
        ):
            raise UserError("optimizer muon+adamw: sharded training (FSDP, DeepSpeed) takes one optimiser; use adamw")
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            keys = self.accelerator.state.deepspeed_plugin.deepspeed_config
            keys["train_micro_batch_size_per_gpu"] = 1  # batches are ours; the engine only counts steps
            keys["gradient_accumulation_steps"] = self.settings.accumulation
            keys["gradient_clipping"] = self.settings.clip
            keys["train_batch_size"] = self.settings.accumulation * self.accelerator.num_processes
        self.module, *self.optimizers = self.accelerator.prepare(module, *optimizers)

    def _with_reference(self, units: list[Unit], name: str) -> list[Unit]:
        """The units with the log-probabilities of their pairs under the model that training starts from, which are
        computed once and kept beside the checkpoints."""
        path = self.output / f"reference.{name}.json"
        missing = not path.exists()
        self.accelerator.wait_for_everyone()  # nobody makes it while another still looks
        if missing:
            known = self._reference(units)
            if self.main:
                write_text(path, json.dumps(known))
            self.accelerator.wait_for_everyone()
        known, filled = iter(json.loads(path.read_text(encoding="utf-8"))), []
        for unit in units:
            pairs = tuple(replace(pair, reference=tuple(next(known))) for pair in unit.pairs)
            filled.append(replace(unit, pairs=pairs))
        return filled

    @torch.no_grad()
    def _reference(self, units: list[Unit]) -> list[list[float]]:
        parts, own = self.accelerator.num_processes, self.accelerator.process_index
        found = torch.zeros(sum(len(unit.pairs) for unit in units), 2, device=self.accelerator.device)
        self.module.eval()
        pairs = [Unit(pairs=(pair,)) for unit in units for pair in unit.pairs]
        for start in range(0, len(pairs), 8 * parts):
            mine = range(start + own, min(start + 8 * parts, len(pairs)), parts)
            _, steps = self.module(self._batch([pairs[i] for i in mine]), self.weights)
            found[list(mine)] = steps.to(found.dtype)
        return self.accelerator.reduce(found, "sum").tolist()

    # --- updates

    def _batch(self, units: Sequence[Unit]) -> Batch:
        shared = self.sharing and (self.settings.tree_attention == "always" or self.cost.sharing_pays(units))
        return make_batch(units, shared).to(self.accelerator.device)

    def _train(self) -> None:
        updates, settings = self.plan.updates, self.settings
        first = self._resume()
        self._open_logs(first)
        bar = tqdm(range(first, updates), initial=first, total=updates, unit="update", disable=not self.main)
        recent: list[Tensor] = []
        for update in bar:
            recent.append(self._update(update))
            done = update + 1
            if done % settings.log_every == 0 or done == updates:
                terms = torch.stack(recent).mean(0)
                bar.set_postfix_str(self._report(done, "train", terms))
                recent.clear()
            if self.held_out and (done % settings.eval_every == 0 or done == updates):
                self._report(done, "eval", self.evaluate(self.held_out))
            if done % settings.save_every == 0 and done < updates:
                self._save(done)

    def _update(self, update: int) -> Tensor:
        """One step of the optimisers; returns the terms [k], means over the whole update."""
        self.module.train()
        units, steps = self.plan.update(update), self.settings.accumulation
        processes, totals = self.accelerator.num_processes, Totals.of(units)
        own = share_of(units, processes, self.accelerator.process_index)
        sums = torch.zeros(len(self.weights.names), device=self.accelerator.device)
        factor = rate_factor(update, self.plan.updates, self.settings)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        for step in range(steps):
            last = step == steps - 1
            self.accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed steps in the last backward pass
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                terms, _ = self.module(self._batch(share_of(own, steps, step)), self.weights)
                loss = self.weights.combine(self.weights.means(terms, totals)) * processes  # the wrappers take means
                if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
                    loss = loss * steps
                self.accelerator.backward(loss)
            sums += terms.detach()
        self.accelerator.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return self.weights.means(self.accelerator.reduce(sums, "sum"), totals)

    @torch.no_grad()
    def evaluate(self, units: Sequence[Unit]) -> Tensor:
        """The terms [k] on some units, means over all of them."""
        self.module.eval()
        parts, sums = (
            self.accelerator.num_processes,
            torch.zeros(len(self.weights.names), device=self.accelerator.device),
        )
        size = max(parts, self.settings.batch_size // self.settings.accumulation)
        for start in range(0, len(units), size):
            mine = share_of(units[start : start + size], parts, self.accelerator.process_index)
            sums += self.module(self._batch(mine), self.weights)[0]
        return self.weights.means(self.accelerator.reduce(sums, "sum"), Totals.of(units))

    # --- what is kept

    def _open_logs(self, first: int) -> None:
        if self.main:
            path = self.output / "metrics.jsonl"
            kept = [line for line in _lines(path) if json.loads(line)["update"] <= first]
            write_text(path, "".join(kept))
        if self.settings.tensorboard:
            self.accelerator.init_trackers("")

    def _report(self, done: int, name: str, terms: Tensor) -> str:
        found = dict(zip(self.weights.names, terms.tolist(), strict=True)) | {
            "loss": float(self.weights.combine(terms))
        }
        if self.settings.tensorboard:
            self.accelerator.log({f"{name}/{key}": value for key, value in found.items()}, step=done)
        if self.main:
            with (self.output / "metrics.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"update": done, "kind": name, **found}) + "\n")
        return " ".join(f"{key} {value:.4f}" for key, value in found.items() if value)

    def _save(self, done: int) -> None:
        """Keeps the newest state; it appears under its name only when it is complete."""
        folder = self.output / "checkpoint"
        unfinished = folder / "unfinished"
        if self.main:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(unfinished))
        self.accelerator.wait_for_everyone()
        if self.main:
            unfinished.rename(folder / f"{done:08d}")
            for old in _checkpoints(folder)[:-1]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        """Loads the newest checkpoint; returns how many updates are done."""
        found = _checkpoints(self.output / "checkpoint")
        if not found:
            return 0
        self.accelerator.load_state(str(found[-1]))
        return int(found[-1].name)

    def _finish(self) -> None:
        state = self.accelerator.get_state_dict(self.module)
        unset_hf_deepspeed_config()  # one process writes, and loads the model in one piece to do so
        if self.main:
            save_merged(self.settings, state, self.model_folder)
            shutil.rmtree(self.output / "checkpoint", ignore_errors=True)


class _Cost:
    """A rule of thumb for what a batch costs, to decide where shared prefixes pay: products with the weights, and
    attention, of which plain causal rows need half."""

    def __init__(self, parameters: int, config: Any) -> None:
        embedding = config.vocab_size * config.hidden_size
        self.token = 2.0 * max(1, parameters - embedding)
        self.pair = 4.0 * config.hidden_size * config.num_hidden_layers

    def sharing_pays(self, units: Sequence[Unit]) -> bool:
        if not units:
            return False
        shared = max(map(tree_tokens, units))
        lengths = [len(one.token_ids) for unit in units for one in unit.all_sequences()]
        together = len(units) * shared * (self.token + self.pair * shared)
        apart = len(lengths) * max(lengths) * (self.token + self.pair * max(lengths) / 2)
        return together < apart


def _fingerprint(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lines(path: Path) -> Iterator[str]:
    """The whole lines of a file that may not be there."""
    if path.exists():
        yield from (line for line in path.read_text(encoding="utf-8").splitlines(True) if line.endswith("\n"))


def _checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())
