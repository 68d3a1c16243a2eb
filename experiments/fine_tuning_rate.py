"""Fine-tuning of a text encoder in jaxcls and in PyTorch with transformers: examples a second and peak memory.

    python experiments/fine_tuning_rate.py --checkpoint all-MiniLM-L6-v2/ --oracle PYTHON

PYTHON is one with torch and transformers. Both train all weights of the checkpoint with AdamW in float32, with dropout
of the checkpoint's own rate, on the same batches of sentences of the sentiment sample (or of these joined to longer
texts), padded to the same width, in processes that take turns: one round of each, then the next. Writes
fine_tuning_rate.md: medians of the rounds, and the peak memory of the processes. jaxcls runs the loop of its command.

Expected: jaxcls trains at least as many examples a second as PyTorch in every row.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from processes import machine

import jaxcls
from jaxcls.data.formats.tables import read_csv
from jaxcls.data.preprocessing import texts
from jaxcls.models.pretrained import checkpoint as checkpoints

SENTENCES = Path(jaxcls.__file__).parent / "data" / "samples" / "sentiment" / "sentences.csv.gz"
TABLE = Path(__file__).with_suffix(".md")
STEPS = 8

# Both take the checkpoint, the batches (.npz: tokens (steps, batch, width), labels) and the number of rounds. They wait
# for a line before each round, and print what a round took, in JSON.
PYTORCH = """
import json, resource, sys, time
import numpy as np, torch
from transformers import BertModel
folder, batches, rounds = sys.argv[1:]
data = np.load(batches)
tokens, labels = (torch.from_numpy(data[name]).long() for name in ("tokens", "labels"))
present = (tokens != 0).long()
encoder = BertModel.from_pretrained(folder, add_pooling_layer=False)
head = torch.nn.Linear(encoder.config.hidden_size, 2)
parameters = [*encoder.parameters(), *head.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=5e-5, weight_decay=0.01, fused=True)
encoder.train()
for _ in range(int(rounds)):
    sys.stdin.readline()
    start = time.perf_counter()
    for batch, mask, label in zip(tokens, present, labels):
        features = encoder(input_ids=batch, attention_mask=mask).last_hidden_state
        pooled = (features * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        loss = torch.nn.functional.cross_entropy(head(pooled), label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "loss": loss.item()}), flush=True)
"""

JAXCLS = """
import json, resource, sys, time
import jax, numpy as np
from jaxcls import losses, optimizers
from jaxcls.data import batching
from jaxcls.models import pretrained
from jaxcls.training import loop
from jaxcls.training.experiment import Experiment
from jaxcls.training.objective import OutputSpec
folder, batches, rounds = sys.argv[1:]
data = np.load(batches)
tokens, labels = data["tokens"], data["labels"]
experiment = Experiment(
    model=pretrained.load(folder, 2, dropout=None),
    objective=OutputSpec("multiclass", losses.get("sparse_categorical_crossentropy")),
    optimizer=optimizers.adamw(5e-5, weight_decay=0.01),
)
state = experiment.init()
examples = batching.examples(tokens.reshape(-1, tokens.shape[-1]), labels.reshape(-1))
config = loop.FitConfig(1, tokens.shape[1])
for _ in range(int(rounds)):
    sys.stdin.readline()
    start = time.perf_counter()
    state, history = loop.train(experiment, state, examples, None, config)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "loss": history[-1]["loss"]}), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a folder in Hugging Face's layout")
    parser.add_argument("--oracle", required=True, help="a Python with torch and transformers")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128], help="tokens of a text")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds; one more comes first and is left out")
    arguments = parser.parse_args()
    lines = [HEAD.format(machine(), arguments.batch_size, arguments.rounds)]
    for width in arguments.widths:
        ours, theirs = measure(arguments, width)
        (rate, memory), (peer_rate, peer_memory) = ours, theirs
        lines.append(
            f"| {width} | {rate:.1f} | {peer_rate:.1f} | {rate / peer_rate:.2f} | {memory / 2**30:.2f} | "
            f"{peer_memory / 2**30:.2f} |"
        )
        print(lines[-1])
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(arguments: argparse.Namespace, width: int) -> list[tuple[float, float]]:
    """The median rate and the peak memory of jaxcls and of PyTorch."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "batches.npz")
        np.savez(path, **batches(arguments.checkpoint, arguments.batch_size, width))
        words = [str(arguments.checkpoint), str(path), str(arguments.rounds + 1)]
        environment = os.environ | {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
        programs = [
            subprocess.Popen(
                [python, "-c", program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=environment,
            )
            for python, program in ((sys.executable, JAXCLS), (arguments.oracle, PYTORCH))
        ]  # fmt: skip
        rounds: list[list[dict[str, Any]]] = [[], []]
        for _ in range(arguments.rounds + 1):
            for program, results in zip(programs, rounds, strict=True):
                assert program.stdin is not None
                assert program.stdout is not None
                program.stdin.write("\n")
                program.stdin.flush()
                results.append(json.loads(program.stdout.readline()))
        for program in programs:
            program.communicate()
    examples = STEPS * arguments.batch_size
    return [
        (statistics.median(examples / result["seconds"] for result in results[1:]), results[-1]["peak"])
        for results in rounds
    ]


def batches(folder: Path, batch_size: int, width: int) -> dict[str, Any]:
    """Tokens of texts that fill a half to the whole of the width, and random labels."""
    checkpoint = checkpoints.find(folder)
    random = np.random.default_rng(0)
    sentences = random.permutation(read_csv(SENTENCES, text=["text"])["text"])
    joined = [" ".join(group) for group in np.array_split(sentences, len(sentences) * 24 // width)]
    preprocessor = texts.pretrained(
        checkpoint.tokenizer, np.array(joined, object), padding=0, vocabulary_size=checkpoint.config["vocab_size"],
        max_length=width, where=checkpoint.name,
    )  # fmt: skip
    tokens = preprocessor.transform(np.array(joined, object))[:, :width]
    fitting = tokens[(tokens != 0).sum(axis=1) >= width // 2]
    chosen = fitting[random.integers(len(fitting), size=(STEPS, batch_size))]
    return {"tokens": chosen, "labels": random.integers(2, size=(STEPS, batch_size)).astype(np.int32)}


HEAD = """# The rate of fine-tuning a text encoder

Written by `python experiments/fine_tuning_rate.py` on {}.
All weights of all-MiniLM-L6-v2, AdamW, float32, batches of {}, medians of {} rounds that take turns; examples a second,
and GiB of memory at the peak of the process.

| tokens of a text | jaxcls | PyTorch | jaxcls / PyTorch | memory of jaxcls | memory of PyTorch |
|---|---|---|---|---|---|"""


if __name__ == "__main__":
    main()
