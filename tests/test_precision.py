"""Float64 throughout: the same function, with nothing left in float32."""

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from qvlib.core.types import State, Task
from qvlib.models import small, training
from qvlib.models.precision import in_own_precision

IDS = torch.arange(1, 61).view(2, 30)
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}

READERS = tuple(
    f"{name}.weight"
    for name in (  # of the hidden channels, in their columns
        "embed_tokens",
        "q_proj",
        "k_proj",
        "v_proj",
        "gate_proj",
        "up_proj",
        "lm_head",
    )
)
WRITERS = tuple(f"{name}.weight" for name in ("o_proj", "down_proj", "norm"))  # in their rows


def llama(dtype):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).to(getattr(torch, dtype)).eval()


def parts(model):
    """The precisions of what the model's modules give to each other."""
    dtypes = set()

    def see(module, given, made):
        dtypes.update(
            x.dtype for x in (made if isinstance(made, tuple) else (made,)) if torch.is_tensor(x)
        )

    handles = [module.register_forward_hook(see) for module in model.modules()]
    logits = model(input_ids=IDS).logits
    for handle in handles:
        handle.remove()
    return logits, dtypes


def test_it_is_the_same_function_but_for_float32s_rounding():
    was, now = llama("float64"), in_own_precision(llama("float64"))
    before, (after, dtypes) = was(input_ids=IDS).logits, parts(now)
    assert dtypes == {torch.float64}
    assert 1e-12 < (before - after).abs().max() < 1e-4  # what float32 had left
    assert [n for n, _ in was.named_parameters()] == [n for n, _ in now.named_parameters()]


def test_the_sums_no_longer_hang_on_their_order():
    """The hidden channels in another order, as another processor might sum them.

    The difference is no more than float64's rounding.
    """
    order = torch.randperm(SIZES["hidden_size"], generator=torch.Generator().manual_seed(1))

    def reordered(model):
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith(READERS):
                    weight.copy_(weight[:, order])
                elif name.endswith(WRITERS):
                    weight.copy_(weight[order])
        return model

    def moved(prepare):
        one, other = prepare(llama("float64")), reordered(prepare(llama("float64")))
        return (one(input_ids=IDS).logits - other(input_ids=IDS).logits).abs().max()

    assert moved(in_own_precision) < 1e-12 < 1e-10 < moved(lambda model: model)


@pytest.mark.parametrize(
    "model",
    [llama("float32"), GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)).double()],
    ids=["float32", "another kind"],
)
def test_other_models_are_left_as_they_are(model):
    modules = list(model.modules())
    assert list(in_own_precision(model).modules()) == modules


DEMONSTRATIONS = [
    small.Demonstration(State(Task(str(i), f"find the {word} {i % 7}"), f"page of {word}"), word)
    for i, word in enumerate(["boat", "green shoe", "lamp", "big red car"] * 60)
]


def cloned(tokenizer, nudge):
    """Weights of an agent cloned from weights that are ``nudge`` apart, at a high rate."""
    model = small.make_model(tokenizer, 32, 2, 2, seed=0, dtype="float64")
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + nudge * torch.rand_like(weight))
    steps = small.clone(model, tokenizer, DEMONSTRATIONS, epochs=6, lr=2e-2, batch=8, seed=0)
    assert len(list(steps)) == 180
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize("steadied", [True, False])
def test_training_does_not_grow_what_processors_round_differently(monkeypatch, steadied):
    if not steadied:
        monkeypatch.setattr(training, "steady", lambda model: None)
    tokenizer = small.train_tokenizer(DEMONSTRATIONS, 300)
    with torch.random.fork_rng():
        apart = (cloned(tokenizer, 0.0) - cloned(tokenizer, 1e-15)).abs().max()
    assert apart < 1e-13 if steadied else apart > 1e-11


def test_gradients_of_other_precisions_stay_as_they_are():
    for dtype, rounded in ((torch.float64, True), (torch.float32, False)):
        layer = torch.nn.Linear(2, 1, dtype=dtype)
        layer.weight.grad = torch.full_like(layer.weight, 1.001)
        training.steady(layer)  # its bias has none
        assert (layer.weight.grad == 1.0).all().item() is rounded and layer.bias.grad is None
