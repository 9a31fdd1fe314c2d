"""scripts/train.py under FSDP2 or ZeRO-3 on CPUs, which accelerate offers on accelerators only. Run by its test.

python tests/models/train_sharded.py SETTINGS.json [STOP]: with STOP the process ends after its first checkpoint.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState
from torch.distributed.fsdp import FSDPModule

from models.training.settings import TrainSettings
from models.training.trainer import Trainer

initialise, initialise_part, save = AcceleratorState.__init__, PartialState.__init__, Trainer._save


def initialise_parts(self: PartialState, *args: Any, **keys: Any) -> None:
    """DeepSpeed's processes know of each other; on CPUs accelerate does not ask."""
    initialise_part(self, *args, **keys)
    places = {"num_processes": "WORLD_SIZE", "process_index": "RANK", "local_process_index": "LOCAL_RANK"}
    self.__dict__ |= {name: int(os.environ[place]) for name, place in places.items()} | {"backend": "gloo"}


def initialise_sharded(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **keys: Any) -> None:
    """What accelerate does where there are several GPUs."""
    initialise(self, *args, fsdp_plugin=fsdp_plugin, **keys)
    if fsdp_plugin is not None:
        PartialState._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": fsdp_plugin}
        self.__dict__ |= PartialState._shared_state


def save_and_stop(self: Trainer, done: int) -> None:
    save(self, done)
    os._exit(0)


PartialState.__init__ = initialise_parts  # type: ignore[method-assign]
AcceleratorState.__init__ = initialise_sharded  # type: ignore[method-assign]
if "STOP" in sys.argv:
    Trainer._save = save_and_stop  # type: ignore[method-assign]
trainer = Trainer(TrainSettings.model_validate(json.loads(Path(sys.argv[1]).read_text())))
trainer.run()
if trainer.main and (sharded := sum(isinstance(module, FSDPModule) for module in trainer.module.modules())):
    own = sum(one.to_local().numel() for one in trainer.module.parameters())
    print(json.dumps({"sharded": sharded, "share": own / sum(one.numel() for one in trainer.module.parameters())}))
