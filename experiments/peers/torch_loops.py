"""PyTorch, eager and compiled, as its performance tuning guide recommends on a CPU.

The data is one tensor, and a batch a gather from it: no loader's processes or collation. Images are channels-last, the
optimizer is fused, gradients are set to None, attention is the fused one with one product for queries, keys and values.
In bfloat16 what computes is chosen by autocast; parameters and the loss are float32. On a GPU the data is in its
memory, float32 products are TF32, and compiled programs are CUDA graphs.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from peers import torch_detection, workloads
from peers.torch_residual import Block, norm
from peers.workloads import Train, Workload

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def eager(workload: Workload) -> tuple[int, Train]:
    return _loop(workload, compiled=False)


def compiled(workload: Workload) -> tuple[int, Train]:
    return _loop(workload, compiled=True)


def eager_bfloat16(workload: Workload) -> tuple[int, Train]:
    return _loop(workload, compiled=False, half=True)


def compiled_bfloat16(workload: Workload) -> tuple[int, Train]:
    return _loop(workload, compiled=True, half=True)


def _loop(workload: Workload, *, compiled: bool, half: bool = False) -> tuple[int, Train]:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if DEVICE == "cuda" else "highest")
    if workload.is_text:
        inputs = torch.from_numpy(workload.inputs)
    else:
        images = torch.from_numpy(workloads.normalized(workload.inputs))
        # Channels-last: (N, H, W, 1) in memory, viewed as (N, 1, H, W).
        inputs = images.permute(0, 3, 1, 2)
    if workload.model == "retinanet":
        labels = tuple(torch.from_numpy(workload.labels[name]) for name in ("boxes", "classes"))
        criterion = torch_detection.criterion()
    else:
        labels = (torch.from_numpy(workload.labels).long(),)
        criterion = _cross_entropy
    builders: dict[str, Callable[[], nn.Module]] = {
        "mlp": _mlp,
        "cnn": _CNN,
        "resnet": _ResNet,
        "transformer": _Transformer,
        "minilm": _MiniLM,
        "retinanet": torch_detection.RetinaNet,
    }
    inputs, labels = inputs.to(DEVICE), tuple(array.to(DEVICE) for array in labels)
    network = builders[workload.model]().to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), workloads.LEARNING_RATE, fused=True)

    def loss_of(batch: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            outputs = network(batch)
        return criterion(outputs, *labels)

    mode = "reduce-overhead" if DEVICE == "cuda" else None
    objective = torch.compile(loss_of, mode=mode) if compiled else loss_of

    def train(count: int, epochs: int, turn: Callable[[], None]) -> None:
        network.train()
        for _ in range(epochs):
            total = torch.zeros((), device=DEVICE)
            for rows in torch.randperm(count, device=DEVICE).split(workload.batch_size):
                loss = objective(*(array.index_select(0, rows) for array in (inputs, *labels)))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach()
            total.item()  # waits for the last step
            turn()

    return sum(parameter.numel() for parameter in network.parameters()), train


def _cross_entropy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs.float(), labels)


def _mlp() -> nn.Module:
    first, second = workloads.HIDDEN
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(28 * 28, first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, workloads.ARTICLES),
    )


class _CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first, second = workloads.CHANNELS
        self.conv1 = nn.Conv2d(1, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.dense = nn.Linear(7 * 7 * second, workloads.DENSE)
        self.head = nn.Linear(workloads.DENSE, workloads.ARTICLES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        # In memory order, so that nothing is copied.
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.head(F.relu(self.dense(x)))


class _ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        previous = workloads.WIDTHS[0]
        self.stem = nn.Conv2d(1, previous, 3, padding=1, bias=False)
        blocks = []
        for stage, width in enumerate(workloads.WIDTHS):
            blocks.append(Block(previous, width, 2 if stage else 1))
            previous = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = norm(previous)
        self.head = nn.Linear(previous, workloads.ARTICLES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.norm(self.blocks(self.stem(images)))).mean((2, 3)))


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(workloads.VOCABULARY, workloads.FEATURES)
        self.positions = nn.Parameter(torch.empty(workloads.LENGTH, workloads.FEATURES).normal_(std=0.02))
        self.layers = nn.ModuleList(_Layer() for _ in range(workloads.LAYERS))
        self.norm = nn.LayerNorm(workloads.FEATURES, eps=workloads.LAYER_NORM_EPSILON)
        self.dropout = nn.Dropout(workloads.DROPOUT)
        self.head = nn.Linear(workloads.FEATURES, workloads.SENTIMENTS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        present = tokens != 0
        x = self.dropout(self.tokens(tokens) + self.positions)
        for layer in self.layers:
            x = layer(x, present)
        weight = present[..., None].to(x.dtype)
        average = (self.norm(x) * weight).sum(1) / weight.sum(1).clamp(min=1)
        return self.head(self.dropout(average))


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = workloads.FEATURES
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=workloads.LAYER_NORM_EPSILON) for _ in range(2))
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(workloads.DROPOUT)

    def forward(self, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        count, length, width = x.shape
        heads = self.queries_keys_values(self.norm1(x)).view(count, length, 3, workloads.HEADS, -1)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=present[:, None, None, :])
        x = x + self.dropout(self.projection(attended.transpose(1, 2).reshape(count, length, width)))
        return x + self.dropout(self.narrow(F.gelu(self.widen(self.norm2(x)), approximate="tanh")))


class _MiniLM(nn.Module):
    """BERT, as in workloads.MINILM, with a classifier of the mean of its features."""

    def __init__(self) -> None:
        super().__init__()
        sizes = workloads.MINILM
        width = sizes["hidden_size"]
        self.words = nn.Embedding(sizes["vocab_size"], width)
        self.positions = nn.Embedding(sizes["max_position_embeddings"], width)
        self.types = nn.Embedding(sizes["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, eps=sizes["layer_norm_eps"])
        self.dropout = nn.Dropout(workloads.DROPOUT)
        block = nn.TransformerEncoderLayer(
            width, sizes["num_attention_heads"], sizes["intermediate_size"], workloads.DROPOUT, F.gelu,
            sizes["layer_norm_eps"], batch_first=True,
        )  # fmt: skip
        block.self_attn.dropout = 0.0  # as in jaxcls
        block.dropout = nn.Identity()  # BERT has none between the two products
        self.encoder = nn.TransformerEncoder(block, sizes["num_hidden_layers"], enable_nested_tensor=False)
        self.head = nn.Linear(width, workloads.SENTIMENTS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.words(tokens) + self.positions.weight[: tokens.shape[1]] + self.types.weight[0]
        padding = tokens == 0
        x = self.encoder(self.dropout(self.norm(x)), src_key_padding_mask=padding)
        weight = ~padding[..., None]
        return self.head(self.dropout((x * weight).sum(1) / weight.sum(1).clamp(min=1)))
