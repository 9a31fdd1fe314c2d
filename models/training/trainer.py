"""The training loop, on accelerate: any number of processes, resumable to the update.

Every process knows the whole update and takes its share of it, so the means are taken over all processes and all
accumulation steps: the losses and the weights do not depend on how many there are (up to the rounding of sums).

Not covered by tests here: GPUs. FSDP2 is, on CPUs, and so is DeepSpeed ZeRO-3 where deepspeed is installed.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import GradientAccumulationPlugin, ProjectConfiguration, set_seed
from torch import Tensor
from tqdm import tqdm
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from mcts.errors import UserError
from mcts.jsonl import write_text_whole
from models.engines.text import load_tokenizer
from models.training.data import Batch, Kept, Totals, Unit, make_batch, read_units, tree_tokens
from models.training.folders import build, save_merged
from models.training.losses import PolicyValue, check_tree_attention
from models.training.optimizers import make_optimizers
from models.training.plan import Plan, share_of
from models.training.settings import EXAMPLE_FILES, TrainSettings, rate_factor

OWN = ("settings", "metrics", "logs", "checkpoint", "model", "best", "reference")  # what --overwrite deletes


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
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # whatever the environment says
        )
        self.model_folder = self.output / "model"
        self._claim(overwrite)

    @property
    def main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def _claim(self, overwrite: bool) -> None:
        """Makes the output folder this training's own. Raises UserError rather than overwrite another one, or what is
        no training at all."""
        path, fingerprint = self.output / "settings.json", self.settings.fingerprint()
        known = _settings(path)
        foreign = self.output.exists() and any(self.output.iterdir()) and known.get("fingerprint") != fingerprint
        longer = foreign and self._goes_on(known)
        if foreign and not known:
            raise UserError(f"{self.output}: holds other files than a training's; choose another output")
        if foreign and not (overwrite or longer):
            raise UserError(f"{self.output}: holds another training; choose another output, or --overwrite it")
        if foreign:
            self._inputs()  # the old model goes when the new one can begin, not before
        self.accelerator.wait_for_everyone()
        if self.main and not (path.exists() and not foreign):
            gone = ("model",) if longer else OWN
            for old in self.output.iterdir() if foreign else ():
                if old.name.partition(".")[0] in gone:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            self.output.mkdir(parents=True, exist_ok=True)
            keys = {"fingerprint": fingerprint, "settings": self.settings.model_dump()}
            write_text_whole(
                path, json.dumps(keys | {"without length": self.settings.fingerprint(length=False)}, indent=1)
            )
        self.accelerator.wait_for_everyone()

    def _goes_on(self, known: dict[str, Any]) -> bool:
        """Whether the folder holds a finished training with its state, of which this one is a longer form."""
        finished = self.model_folder.exists() and bool(_checkpoints(self.output / "checkpoint"))
        same = known.get("without length") == self.settings.fingerprint(length=False)
        before, now = known.get("settings", {}), self.settings
        longer = (now.updates or 0, now.epochs) > (before.get("updates") or 0, before.get("epochs", 0))
        return finished and same and longer

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

        self.kept = {name: Kept(settings.max_tokens, settings.kinds) for name in EXAMPLE_FILES}
        own, replay, held_out = (self._units(name, vocabulary) for name in EXAMPLE_FILES)
        return module, own, replay, held_out

    def _units(self, name: str, vocabulary: int) -> list[Unit]:
        """The units of the files that a key names; what is left out of them is said. Raises UserError."""
        paths, kept = getattr(self.settings, name), self.kept[name]
        if not paths:
            return []
        units = read_units(map(Path, paths), vocabulary, kept, self.settings.draw == "question")
        said = kept.check(f"{name} ({', '.join(paths)})", self.settings.max_too_long)
        for line in said if self.main else ():
            print(line, file=sys.stderr, flush=True)
        return units

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
        if settings.frozen and self.accelerator.num_processes == 1:  # sharded states need every process in every pass
            module.seen = {}
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
                write_text_whole(path, json.dumps(known))
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
        together: Tensor = self.accelerator.reduce(found, "sum")
        return together.tolist()

    # --- updates

    def _batch(self, units: Sequence[Unit]) -> Batch:
        shared = self.sharing and (self.settings.tree_attention == "always" or self.cost.sharing_pays(units))
        return make_batch(units, shared).to(self.accelerator.device)

    def _train(self) -> None:
        updates, settings = self.plan.updates, self.settings
        first = self._resume()
        self._open_logs(first)
        bar = tqdm(range(first, updates), initial=first, total=updates, unit="update", disable=not self.main)
        recent = _Recent()
        for update in bar:
            terms, norm = self._update(update)
            done = update + 1
            self._check(done, terms, norm)
            recent.add(terms, norm, sum(unit.tokens for unit in self.plan.update(update)))
            if done % settings.log_every == 0 or done == updates:
                bar.set_postfix_str(self._report(done, "train", **recent.take()))
            if self.held_out and (done % settings.eval_every == 0 or done == updates):
                self._evaluate_held_out(done)
            if (done % settings.save_every == 0) if done < updates else settings.keep_state:
                self._save(done)
        if first < updates:
            self._check(updates, self.evaluate(self._last_units()), 0.0)  # what the last step of the optimisers left

    def _last_units(self) -> list[Unit]:
        """A small share of the last update, one unit a process at least."""
        units = self.plan.update(self.plan.updates - 1)
        return units[: max(1, len(units) // self.settings.accumulation)]

    def _check(self, done: int, terms: Tensor, norm: float) -> None:
        """Stops a training whose loss, or whose gradient, is no number any more. The scaled gradients of fp16 overflow
        now and then; accelerate leaves such an update out."""
        loss = float(self.weights.combine(terms))
        if math.isfinite(loss) and (math.isfinite(norm) or self.settings.precision == "fp16"):
            return
        found = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradient is {norm}"
        raise self._diverged(f"{found} at update {done}")

    def _diverged(self, found: str) -> BaseException:
        """What ends all processes with exit code 2, one of them with a message."""
        own = self.settings
        muon = f"muon_learning_rate ({own.muon_learning_rate:g}) or " if own.optimizer == "muon+adamw" else ""
        remedy = f"lower {muon}learning_rate ({own.learning_rate:g}) or clip ({own.clip:g})"
        message = f"{self.output}: {found}: the training has diverged; {remedy}"
        return UserError(message) if self.main else SystemExit(2)

    def _update(self, update: int) -> tuple[Tensor, float]:
        """One step of the optimisers; returns the terms [k], means over the whole update, and the norm of the gradient
        before it was clipped."""
        self.module.train()
        units, steps = sorted(self.plan.update(update), key=lambda unit: unit.tokens), self.settings.accumulation
        processes, totals = self.accelerator.num_processes, Totals.of(units)
        own = share_of(units, processes, self.accelerator.process_index)
        bounds = [len(own) * step // steps for step in range(steps + 1)]  # neighbours in length: less padding
        sums = torch.zeros(len(self.weights.names), device=self.accelerator.device)
        factor = rate_factor(update, self.plan.updates, self.settings)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        for step in range(steps):
            last = step == steps - 1
            self.accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed steps in the last backward pass
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                terms, _ = self.module(self._batch(own[bounds[step] : bounds[step + 1]]), self.weights)
                loss = self.weights.combine(self.weights.means(terms, totals)) * processes  # the wrappers take means
                if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
                    loss = loss * steps
                self.accelerator.backward(loss)
            sums += terms.detach()
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return self.weights.means(self.accelerator.reduce(sums, "sum"), totals), _number(norm)

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
        path = self.output / "metrics.jsonl"
        if self.main:
            kept = [line for line in _lines(path) if json.loads(line)["update"] <= first]
            write_text_whole(path, "".join(kept))
            if not kept:
                self._log({"update": 0, "kind": "data", **{name: one.counts() for name, one in self.kept.items()}})
        self.accelerator.wait_for_everyone()
        rows = map(json.loads, _lines(path))
        self.best = min((row["loss"] for row in rows if row["kind"] == "eval"), default=math.inf)
        if self.settings.tensorboard:
            self.accelerator.init_trackers("")

    def _report(self, done: int, name: str, terms: Tensor, **others: float) -> str:
        found = dict(zip(self.weights.names, terms.tolist(), strict=True))
        found |= {"loss": float(self.weights.combine(terms)), **others}
        if self.settings.tensorboard:
            self.accelerator.log({f"{name}/{key}": value for key, value in found.items()}, step=done)
        self._log({"update": done, "kind": name, **found})
        return " ".join(f"{key} {value:.4g}" for key, value in found.items() if value)

    def _log(self, line: dict[str, Any]) -> None:
        if self.main:
            with (self.output / "metrics.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")

    def _evaluate_held_out(self, done: int) -> None:
        """Reports the losses on held-out examples and, with `keep: best`, keeps the weights of the lowest one."""
        terms = self.evaluate(self.held_out)
        self._check(done, terms, 0.0)
        self._report(done, "eval", terms)
        loss = float(self.weights.combine(terms))
        if self.settings.keep == "best" and loss < self.best:
            self.best = loss
            self._write_model(self.output / "best")

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
        best = self.output / "best"
        if self.settings.keep != "best":
            self._write_model(self.model_folder)
        elif self.main:
            best.rename(self.model_folder)
        if self.main and not self.settings.keep_state:
            shutil.rmtree(self.output / "checkpoint", ignore_errors=True)

    def _write_model(self, folder: Path) -> None:
        """Writes the weights as they are now as a model folder. Stops the training where they are no numbers."""
        state = self.accelerator.get_state_dict(self.module)
        unset_hf_deepspeed_config()  # one process writes, and loads the model in one piece to do so
        broken = save_merged(self.settings, state, folder) if self.main else None
        failed = torch.tensor(float(broken is not None), device=self.accelerator.device)
        if self.accelerator.reduce(failed, "sum").item():
            raise self._diverged(f"{broken} is not finite")


class _Recent:
    """What was done since the last report."""

    def __init__(self) -> None:
        self._terms: list[Tensor] = []
        self._norms: list[float] = []
        self._tokens, self._since = 0, time.monotonic()

    def add(self, terms: Tensor, norm: float, tokens: int) -> None:
        self._terms.append(terms)
        self._norms.append(norm)
        self._tokens += tokens

    def take(self) -> dict[str, Any]:
        """The means of the terms [k] and of the gradient's norm, and the tokens a second; then begins anew."""
        now = time.monotonic()
        found = {
            "terms": torch.stack(self._terms).mean(0),
            "gradient_norm": sum(self._norms) / len(self._norms),
            "tokens_per_second": self._tokens / (now - self._since),
        }
        self.__init__()  # type: ignore[misc]
        return found


def _number(norm: Any) -> float:
    """A norm as accelerate returns it: a tensor, sharded or not, a number, or None where it is not known."""
    if isinstance(norm, Tensor):
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return 0.0 if norm is None else float(norm)


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
        return bool(together < apart)


def _settings(path: Path) -> dict[str, Any]:
    """What the settings.json of a training says; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found) if "fingerprint" in found else {}
    except (OSError, ValueError, TypeError):
        return {}


def _lines(path: Path) -> Iterator[str]:
    """The whole lines of a file that may not be there."""
    if path.exists():
        yield from (line for line in path.read_text(encoding="utf-8").splitlines(True) if line.endswith("\n"))


def _checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())
