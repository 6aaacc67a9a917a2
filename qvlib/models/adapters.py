"""A tuned model that is its base with a LoRA switched on: policy and reference in one memory.

Switched off, the LoRA's layers hand their input to the base's own, so that the reference is the
base to the last bit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

FILE = "adapter_config.json"


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter, not a whole model."""
    return (Path(folder) / FILE).is_file()


class Switched:
    """A causal model that calls its base with one adapter on; between calls all adapters are off.

    base: taken over in place; called by itself it gives what it gave before.
    """

    def __init__(self, base: PreTrainedModel, folder: str | Path) -> None:
        known = vars(base).get("_switched")
        # A module's name must not hold a dot, as a path may.
        self._name = hashlib.blake2b(str(folder).encode(), digest_size=8).hexdigest()
        if known is None:
            known = PeftModel.from_pretrained(base, folder, adapter_name=self._name)
            # Not as a submodule: a model does not contain itself.
            object.__setattr__(base, "_switched", known)
        elif self._name not in known.peft_config:
            known.load_adapter(folder, adapter_name=self._name)
        self._peft = known.eval()
        self._peft.base_model.disable_adapter_layers()

    def __call__(self, **arguments: Any) -> Any:
        self._peft.base_model.set_adapter(self._name, inference_mode=True)
        self._peft.base_model.enable_adapter_layers()
        try:
            return self._peft.get_base_model()(**arguments)
        finally:
            self._peft.base_model.disable_adapter_layers()

    def eval(self) -> Switched:
        """As a module's: this one is for inference alone."""
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peft.get_base_model(), name)
