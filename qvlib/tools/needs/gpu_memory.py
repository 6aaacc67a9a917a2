"""How much memory of a GPU a run takes, by the sizes of its models; nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qvlib.base.errors import QvlibError
from qvlib.models.names import SMALL, SMOLLM2, files_of, is_remote
from qvlib.pipeline.params import Params
from qvlib.tools.needs.fitting import fitting

BYTES = {"bfloat16": 2, "float32": 4, "float64": 8}
WINDOW = 8192  # tokens of a call: ``LocalModel.batch_tokens``
KEPT = 27  # numbers a token that a layer keeps for the pass backward, in hidden sizes
MOST = 10  # candidates of the arm that has most


@dataclass(frozen=True)
class Shape:
    """A model's size: parameters, layers, hidden size, width of a layer's keys (and of its values).

    adapter: parameters of a LoRA of rank 1 on every linear layer but the output.
    """

    parameters: int
    layers: int
    hidden: int
    keys: int
    adapter: int


# The config.json beside each on the hub, its parameters counted without weights (transformers
# 5.23, meta device).
KNOWN = {
    "microsoft/phi-3-mini-4k-instruct": Shape(3_821_079_552, 32, 3072, 3072, 1_572_864),
    "meta-llama/llama-3.1-8b-instruct": Shape(8_030_261_248, 32, 4096, 1024, 2_621_440),
    "microsoft/phi-1_5": Shape(1_418_270_720, 24, 2048, 2048, 884_736),  # the paper says 1.3 B
    SMOLLM2: Shape(134_515_008, 30, 576, 192, 305_280),
}


def memory(params: Params) -> dict[str, dict[str, float]]:
    """Bytes on the GPU in each part of a run.

    Of weights, training (gradients and AdamW's two moments) and working (keys, values,
    activations). A model of P parameters, L layers, hidden size h, keys of width k, b bytes a
    number: weights P b, of each copy that ``fitting`` holds or trains; training 3 P b of what is
    trained, of a LoRA of rank r its own parameters, of frozen features the heads alone; keys and
    values 2 L k b a token, of the kept prompts (``cache_tokens``) and of a call: its prompts (at
    most ``WINDOW`` tokens) and n copies of them for n replies; activations ``KEPT`` L h b a token
    of a pass of training, counted on a Phi (a Llama keeps 21, a Phi-3 24), of each copy.

    Raises:
        QvlibError: a model whose size, or an estimator whose training is not known.
    """
    if not params.q_model.q_base and is_remote(params.agent.agent):
        raise QvlibError(
            f"q_base is empty, and {params.agent.agent} cannot be tuned here; name a local model, "
            f"such as q_base: {SMOLLM2}"
        )
    own = BYTES[params.dtype]
    exact = BYTES["float32" if params.dtype == "bfloat16" else params.dtype]
    names = [
        ("agent", params.agent.agent),
        *(
            [("other_agent", params.other_agent.other_agent)]
            if params.other_agent.other_demonstrations
            else []
        ),
    ]
    agents = [(shape(params, name, which), own) for which, name in names if not is_remote(name)]
    q = shape(params, params.q_model.q_base or params.agent.agent)
    how = fitting(params, q.hidden)
    one = how.lora * q.adapter if how.lora else q.parameters
    trained = how.trained * one + how.heads
    longest = params.agent.prompt_tokens + params.sampling.max_action_tokens
    call = max(longest, min(WINDOW, params.run.batch_size * longest))

    def keys(model: Shape, size: int, tokens: float) -> float:
        return 2.0 * model.layers * model.keys * size * tokens

    parts = {}
    if not is_remote(params.agent.agent):
        model, size = agents[0]
        parts["collecting"] = {
            "weights": float(model.parameters * size),
            "training": 0.0,
            "working": keys(
                model, size, params.agent.cache_tokens + (1 + params.search.expand_n) * call
            ),
        }
    sequence = how.sequence(params)
    read = max(sequence, min(WINDOW, how.batch * sequence))
    copies = how.held + how.trained
    parts["training Q"] = {
        "weights": (copies * q.parameters + (one if how.lora else 0) + how.heads + how.followed)
        * float(exact),
        "training": 3.0 * trained * exact,
        "working": float(KEPT) * q.layers * q.hidden * exact * read * how.trained
        or keys(q, exact, call),  # what is not trained is read as it is played
    }
    models = 1 + params.q_model.control_shuffles
    reference = 0 if not params.q_model.q_base and own == exact else 1
    scorers = [(q, exact)] * (models + reference)
    parts["playing"] = {
        "weights": sum(model.parameters * size for model, size in agents)
        + float(reference * q.parameters + models * (how.own * one + how.heads)) * exact,
        "training": 0.0,
        "working": sum(
            keys(model, size, params.agent.cache_tokens) for model, size in (*agents, *scorers)
        )
        + max(keys(model, size, (1 + MOST) * call) for model, size in (*agents, *scorers)),
    }
    return parts


def shape(params: Params, name: str, which: str = "agent") -> Shape:
    """The size of a model that a parameter names; ``small`` is that of ``which``.

    From the table or from its config.json on this machine.

    Raises:
        QvlibError: neither has it.
    """
    if name.lower() in KNOWN:
        return KNOWN[name.lower()]
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from qvlib.models.small import config_of

    if name == SMALL:
        other = which == "other_agent"
        width, layers = (
            (params.other_agent.other_width, params.other_agent.other_layers)
            if other
            else (params.agent.agent_width, params.agent.agent_layers)
        )
        config: Any = config_of(params.agent.vocabulary, width, layers, params.agent.agent_heads)
    else:
        try:
            config = AutoConfig.from_pretrained(
                files_of(name), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError):
            raise QvlibError(
                f"{name}: its size is not known: it is none of {', '.join(KNOWN)}, and no "
                "config.json of it lies on this machine; fetch the model, or name its folder"
            ) from None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linear = [
        m
        for m in model.modules()
        if isinstance(m, torch.nn.Linear) and m is not model.get_output_embeddings()
    ]
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        model.num_parameters(),
        config.num_hidden_layers,
        config.hidden_size,
        heads * head,
        sum(m.in_features + m.out_features for m in linear),
    )
