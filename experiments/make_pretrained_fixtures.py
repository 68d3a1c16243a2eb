"""Writes the small checkpoints of tests/models/pretrained/fixtures, and what their own libraries compute with them.

In an environment with torch, transformers and timm (2.14, 5.24 and 1.0.31 wrote what is committed), which needs neither
jax nor jaxcls:

    python experiments/make_pretrained_fixtures.py [FAMILY ...]

A fixture is a folder in its library's format, with random weights, and expected.safetensors, computed in float64:

    inputs            token ids (N, width) or images (N, H, W, 3)
    outputs           what the backbone computes of them, before the classifier
    logits            of the classifier, if it is a linear layer on the outputs
    cotangents        random numbers in the shape of the outputs, 0 at padding
    gradient.NAME     the gradient of (outputs * cotangents).sum() with respect to the tensor NAME, in evaluation mode
    training_outputs  those in training mode, of networks with batch normalization
    updated.NAME      its running statistics after that: 0.9 of the old ones, 0.1 of the batch's, with biased variances
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

FIXTURES = Path(__file__).parents[1] / "tests" / "models" / "pretrained" / "fixtures"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", choices=FAMILIES, default=list(FAMILIES), metavar="FAMILY")
    for family in parser.parse_args().families:
        torch.manual_seed(0)
        FAMILIES[family]()


def bert() -> None:
    """BERT, RoBERTa and DistilBERT as classifiers, each with another activation."""
    from transformers import BertConfig, DistilBertConfig, RobertaConfig
    from transformers import BertForSequenceClassification as Bert
    from transformers import DistilBertForSequenceClassification as DistilBert
    from transformers import RobertaForSequenceClassification as Roberta

    sizes = {"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 24, "max_position_embeddings": 13}  # fmt: skip
    distilled = {"vocab_size": 24, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24,
                 "max_position_embeddings": 13}  # fmt: skip
    models = {
        "bert": Bert(BertConfig(**sizes)),
        "roberta": Roberta(RobertaConfig(**sizes, type_vocab_size=1, layer_norm_eps=1e-5, hidden_act="gelu_new")),
        "distilbert": DistilBert(DistilBertConfig(**distilled, activation="relu")),
    }
    for name, model in models.items():
        padding = model.config.pad_token_id
        tokens = torch.randint(2, 24, (3, 9))
        tokens[0, 5:] = tokens[1, 7:] = padding
        write(name, model, tokens, run_text, save_transformers, padding=padding)


def run_text(model: Any, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    mask = (tokens != model.config.pad_token_id).long()
    return {"outputs": model.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state}


def save_transformers(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)


def write(
    name: str,
    model: Any,
    inputs: torch.Tensor,
    run: Callable[[Any, torch.Tensor], Mapping[str, torch.Tensor]],
    save: Callable[[Any, Path], Any],
    *,
    padding: int | None = None,
    train: bool = False,
) -> None:
    """Writes one fixture.

    Args:
      name: of the folder.
      model: the network; its weights become random.
      inputs: token ids, or images (N, H, W, 3).
      run: ``(model, inputs) -> {"outputs": ..., "logits": ...}``, the logits optional; images come as (N, 3, H, W).
      save: ``(model, folder)`` writes config.json and model.safetensors.
      padding: the token of padding, for texts.
      train: write the results in training mode too.
    """
    randomize(model)
    save(model, FIXTURES / name)
    model = model.double().eval()
    arguments = inputs if inputs.ndim == 2 else inputs.double().permute(0, 3, 1, 2)
    results = dict(run(model, arguments))
    cotangents = torch.randn(results["outputs"].shape).double()
    if padding is not None:
        cotangents *= (inputs != padding)[..., None]
    (results["outputs"] * cotangents).sum().backward()
    gradients = {f"gradient.{key}": p.grad for key, p in model.named_parameters() if p.grad is not None}
    expected = {"inputs": inputs, **results, "cotangents": cotangents, **gradients}
    if train:
        expected.update(training(model, arguments, run))
    precise = {key: value.detach().to(torch.float32 if value.is_floating_point() else torch.int32).contiguous()
               for key, value in expected.items()}  # fmt: skip
    save_file(precise, FIXTURES / name / "expected.safetensors")


def randomize(model: Any) -> None:
    """Adds random numbers to the weights, since many initial ones are 0 or 1, and to the running statistics."""
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = 0.1 * torch.randn(tensor.shape)
                tensor += noise.abs() if key.endswith("running_var") else noise


def training(model: Any, inputs: torch.Tensor, run: Callable[..., Mapping[str, torch.Tensor]]) -> dict[str, Any]:
    """Returns the outputs in training mode and the running statistics after it."""
    updated = {}

    def update(key: str) -> Callable[..., None]:
        def hook(layer: Any, arguments: Any) -> None:
            rows = arguments[0].transpose(0, 1).flatten(1)
            updated[f"updated.{key}.running_mean"] = 0.9 * layer.running_mean + 0.1 * rows.mean(1)
            updated[f"updated.{key}.running_var"] = 0.9 * layer.running_var + 0.1 * rows.var(1, unbiased=False)

        return hook

    for key, layer in model.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_pre_hook(update(key))
    return {"training_outputs": run(model.train(), inputs)["outputs"], **updated}


FAMILIES: dict[str, Callable[[], None]] = {"bert": bert}

if __name__ == "__main__":
    main()
