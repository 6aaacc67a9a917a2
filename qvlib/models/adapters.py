"""A tuned model that is its base with a LoRA switched on: policy and reference in one memory.

Switched off, the LoRA's layers hand their input to the base's own, so that the reference is the
base to the last bit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from qvlib.base.errors import QvlibError, one_line

FILE, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter, not a whole model."""
    return (Path(folder) / FILE).is_file()


def _weights(folder: str | Path) -> set[str]:
    """The names of an adapter's weights: of safetensors alone, all finite."""
    try:
        with safe_open(Path(folder) / WEIGHTS, "pt") as file:
            names = set(file.keys())
            wrong = [name for name in names if not bool(file.get_tensor(name).isfinite().all())]
    except (OSError, SafetensorError) as error:
        raise QvlibError(
            f"{folder}: no adapter can be read from {WEIGHTS} ({one_line(error)}); make the stage "
            "anew that it is of"
        ) from None
    if wrong:
        raise QvlibError(
            f"{folder}: {min(wrong)} holds numbers that are not finite; make the stage anew that "
            "it is of"
        )
    return names


class Switched:
    """A causal model that calls its base with one adapter on; between calls all adapters are off.

    base: taken over in place; called by itself it gives what it gave before.

    Raises:
        QvlibError: the adapter's weights are not there, not whole or not finite.
    """

    def __init__(self, base: PreTrainedModel, folder: str | Path) -> None:
        known = vars(base).get("_switched")
        weights = _weights(folder)
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
        own = get_peft_model_state_dict(known, adapter_name=self._name, save_embedding_layers=False)
        missing = sorted(own.keys() - weights)
        if missing:
            raise QvlibError(
                f"{folder}: {len(missing)} weights of its adapter are missing, such as "
                f"{missing[0]}; make the stage anew that it is of"
            )

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
