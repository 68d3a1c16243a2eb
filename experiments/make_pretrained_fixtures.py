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
import copy
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

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


def vit() -> None:
    """ViT on images of another size, DeiT, DINOv2, and timm's with joined projections and with registers."""
    from transformers import DeiTConfig, Dinov2Config, ViTConfig
    from transformers import DeiTForImageClassification as DeiT
    from transformers import Dinov2ForImageClassification as Dinov2
    from transformers import ViTForImageClassification as ViT

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
    small, other = torch.randn(2, 16, 16, 3), torch.randn(2, 20, 12, 3)
    write("vit", ViT(ViTConfig(**sizes, intermediate_size=12, qkv_bias=False)), other, run_vit, save_transformers)
    write("deit", DeiT(DeiTConfig(**sizes, intermediate_size=12)), small, run_vit, save_transformers)
    write("dinov2", Dinov2(Dinov2Config(**sizes, mlp_ratio=2)), other, run_dinov2, save_transformers)
    write_of_timm = functools.partial(
        write_timm, embed_dim=8, depth=2, num_heads=2, patch_size=4, img_size=(16, 12), dynamic_img_size=True
    )
    write_of_timm("vit_tiny_patch16_224", small[:, :, :12])
    write_of_timm("vit_small_patch14_reg4_dinov2", other)


def run_vit(model: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    result = model.base_model(images, interpolate_pos_encoding=True)
    outputs = result.last_hidden_state[:, 0]
    return {"outputs": outputs, "logits": model.classifier(outputs)}


def run_dinov2(model: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    tokens = model.base_model(images).last_hidden_state
    return {"outputs": torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1), "logits": model(images).logits}


def resnet() -> None:
    """Both blocks, and an odd number of pixels between strides."""
    from transformers import ResNetConfig, ResNetForImageClassification

    images = torch.randn(3, 18, 10, 3)
    config = ResNetConfig(embedding_size=4, hidden_sizes=[8, 12], depths=[1, 2], downsample_in_first_stage=True)
    write("resnet", ResNetForImageClassification(config), images, run_pooled, save_transformers, train=True)
    write_timm("resnet18", images, layers=(1, 1, 1, 1), channels=(2, 2, 4, 4))


def convnext() -> None:
    """Both versions, and dense layers that are stored as convolutions."""
    from transformers import ConvNextConfig, ConvNextV2Config
    from transformers import ConvNextForImageClassification as ConvNext
    from transformers import ConvNextV2ForImageClassification as ConvNextV2

    images = torch.randn(2, 36, 32, 3)
    small = images[:, :16, :12]
    sizes = {"hidden_sizes": [4, 6], "depths": [1, 2], "num_stages": 2, "image_size": 16}
    write("convnext", ConvNext(ConvNextConfig(**sizes)), small, run_pooled, save_transformers)
    write("convnextv2", ConvNextV2(ConvNextV2Config(**sizes)), small, run_pooled, save_transformers)
    write_timm("convnext_atto", images, dims=(4, 4, 6, 6), depths=(1, 1, 1, 2))


def efficientnet() -> None:
    """EfficientNet with TensorFlow's padding, and EfficientNet-Lite with PyTorch's."""
    from timm.models.efficientnet import _gen_efficientnet, _gen_efficientnet_lite

    tensorflow = {"pad_type": "same", "bn_eps": 1e-3}
    write_mobile("tf_efficientnet_b0", functools.partial(_gen_efficientnet, **tensorflow), train=True)
    write_mobile("efficientnet_lite0", _gen_efficientnet_lite, gradients=False)


def mobilenet() -> None:
    """MobileNetV2 and V3."""
    from timm.models.efficientnet import _gen_mobilenet_v2
    from timm.models.mobilenetv3 import _gen_mobilenet_v3

    write_mobile("mobilenetv2_100", _gen_mobilenet_v2, gradients=False)
    write_mobile("mobilenetv3_small_100", _gen_mobilenet_v3, train=True)


def write_mobile(name: str, generate: Callable[..., Any], **options: Any) -> None:
    """Writes a network of inverted residual blocks with 8 channels nearly everywhere and few blocks."""
    from timm.models import _builder, efficientnet, mobilenetv3, save_for_hf

    sizes, features = {"channel_multiplier": 0.05, "depth_multiplier": 0.1}, {"num_features": 16}

    def build(*arguments: Any, **of_name: Any) -> Any:
        return _builder.build_model_with_cfg(*arguments, **of_name | features)

    def save(model: Any, folder: Path) -> None:
        # The weights in half precision take half the space; the gradients come in double precision.
        rounded = model.half() if model.classifier.weight.dtype == torch.float32 else model
        save_for_hf(rounded, folder, model_args=sizes | features, safe_serialization=True)

    # The number of features is no argument of timm's function.
    efficientnet.build_model_with_cfg = mobilenetv3.build_model_with_cfg = build
    # Odd sizes, since in these the two ways of padding differ everywhere.
    images = torch.randn(3, 21, 18, 3)
    write(name, generate(name, num_classes=2, **sizes), images, run_timm, save, **options)


def run_pooled(model: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    outputs = model.base_model(images).pooler_output.flatten(1)
    return {"outputs": outputs, "logits": model.classifier(outputs)}


def write_timm(name: str, images: torch.Tensor, *, train: bool = False, **sizes: Any) -> None:
    import timm

    model = timm.create_model(name, num_classes=2, **sizes)
    save = functools.partial(timm.models.save_for_hf, safe_serialization=True)
    write(name, model, images, run_timm, save, train=train)


def run_timm(model: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    pixels = model.forward_features(images)
    return {"outputs": model.forward_head(pixels, pre_logits=True), "logits": model.forward_head(pixels)}


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
    gradients: bool = True,
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
      gradients: write gradients.
    """
    randomize(model)
    save(model, FIXTURES / name)
    model = model.double().eval()
    arguments = inputs if inputs.ndim == 2 else inputs.double().permute(0, 3, 1, 2)
    results = dict(run(model, arguments))
    expected = {"inputs": inputs, **results}
    if gradients:
        cotangents = torch.randn(results["outputs"].shape).double()
        if padding is not None:
            cotangents *= (inputs != padding)[..., None]
        (results["outputs"] * cotangents).sum().backward()
        expected["cotangents"] = cotangents
        expected |= {f"gradient.{key}": value for key, value in named_gradients(model, save).items()}
    if train:
        expected.update(training(model, arguments, run))
    precise = {key: value.detach().to(torch.float32 if value.is_floating_point() else torch.int32).contiguous()
               for key, value in expected.items()}  # fmt: skip
    save_file(precise, FIXTURES / name / "expected.safetensors")


def named_gradients(model: Any, save: Callable[[Any, Path], Any]) -> dict[str, torch.Tensor]:
    """Returns the gradients under the names of tensors in a checkpoint, which are not always those of parameters."""
    of_gradients = copy.deepcopy(model)
    with torch.no_grad():
        for buffer in of_gradients.buffers():
            buffer.fill_(torch.nan if buffer.is_floating_point() else 0)
        for copied, parameter in zip(of_gradients.parameters(), model.parameters(), strict=True):
            copied.copy_(torch.nan if parameter.grad is None else parameter.grad)
    with tempfile.TemporaryDirectory() as folder:
        save(of_gradients, Path(folder))
        saved = load_file(Path(folder) / "model.safetensors")
    return {key: value for key, value in saved.items() if value.is_floating_point() and not value.isnan().any()}


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


FAMILIES: dict[str, Callable[[], None]] = {
    "bert": bert, "vit": vit, "resnet": resnet, "convnext": convnext, "efficientnet": efficientnet,
    "mobilenet": mobilenet,
}  # fmt: skip

if __name__ == "__main__":
    main()
