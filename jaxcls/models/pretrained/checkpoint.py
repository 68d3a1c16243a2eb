"""Checkpoints in the layout of Hugging Face: a folder, or a name that `huggingface_hub` downloads once.

config.json               the architecture and its sizes, of transformers or of timm
model.safetensors         the weights; or model.safetensors.index.json and the shards that it lists
tokenizer.json            of a text encoder, in the format of the `tokenizers` library
preprocessor_config.json  of an image encoder of transformers: size, mean and deviation
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcls._utils import files, schemas
from jaxcls._utils.errors import InputError, listed

_INDEX = "model.safetensors.index.json"
_DOWNLOADED = ["config.json", "*.safetensors", _INDEX, "tokenizer.json", "preprocessor_config.json"]
# Formats that can run code when they are opened, or that other frameworks read.
_LEGACY = (".bin", ".pth", ".pt", ".h5", ".msgpack")
_FILE_NAME = re.compile(r"[\w.-]+\.safetensors")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
      folder: its files.
      name: as the user gave it: the folder, or the name on the hub.
      revision: the commit that was downloaded; None for a folder.
      config: the content of config.json.
    """

    folder: Path
    name: str
    revision: str | None
    config: Mapping[str, Any]

    @functools.cached_property
    def sha256(self) -> dict[str, str]:
        """The SHA-256 of the files that decide what the network computes, by name."""
        names = [name for name in ("config.json", "tokenizer.json", "preprocessor_config.json") if self._has(name)]
        sums = {}
        for name in [*names, *self._weight_files]:
            with self._path(name).open("rb") as file:
                sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return sums

    def tensors(self) -> dict[str, np.ndarray]:
        """Reads all weights by name; float16 and bfloat16 become float32.

        Raises:
          InputError: a file is missing or damaged, or holds weights that are not finite.
        """
        from safetensors import SafetensorError, safe_open

        tensors: dict[str, np.ndarray] = {}
        for name in self._weight_files:
            path = self._path(name)
            try:
                # NumPy has no bfloat16, which JAX gives it.
                with safe_open(path, framework="flax") as file:
                    for key in file.keys():  # noqa: SIM118 (not a mapping)
                        value = np.asarray(file.get_tensor(key))
                        tensors[key] = value.astype(np.float32) if value.dtype.kind in "fV" else value
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path} is damaged ({error}); download it again.") from None
        damaged = [key for key, value in tensors.items() if not np.isfinite(value).all()]
        if damaged:
            raise InputError(f"{self.name}: {listed(damaged, most=3)} has values that are not finite.")
        return tensors

    @property
    def tokenizer(self) -> str:
        """The content of tokenizer.json."""
        if not self._has("tokenizer.json"):
            raise InputError(
                f"{self.name} has no tokenizer.json. Where transformers is installed, "
                "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes it from older files."
            )
        return self._read("tokenizer.json").decode("utf-8", "replace")

    @functools.cached_property
    def pixels(self) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
        """The size in pixels of an image's side, and mean and deviation of its channels on a scale of 0 to 1."""
        if "pretrained_cfg" in self.config:
            schema = {"input_size": [int, int, int], "mean": [float, float, float], "std": [float, float, float]}
            record = self.config["pretrained_cfg"]
            schemas.check(record, schema | {str: schemas.ANYTHING}, f"pretrained_cfg in {self.name}/config.json")
            return record["input_size"][1], tuple(record["mean"]), tuple(record["std"])
        if not self._has("preprocessor_config.json"):
            raise InputError(f"{self.name} has no preprocessor_config.json, which says how to scale images.")
        path = self.folder / "preprocessor_config.json"
        size = (int, {"height": int, str: schemas.ANYTHING}, {"shortest_edge": int, str: schemas.ANYTHING})
        schema = {"image_mean": [float, float, float], "image_std": [float, float, float], "size": size}
        record = schemas.parse(self._read(path.name), schema | {str: schemas.ANYTHING}, str(path))
        crop = record.get("crop_size") if record.get("do_center_crop") else None
        side = crop or record["size"]
        if isinstance(side, dict):
            side = side.get("height") or side.get("shortest_edge")
        return side, tuple(record["image_mean"]), tuple(record["image_std"])

    @property
    def record(self) -> dict[str, Any]:
        """What a run keeps of it: the revision on the hub, the SHA-256 of each file, and its config.json."""
        return {"revision": self.revision, "sha256": self.sha256, "config": dict(self.config)}

    @functools.cached_property
    def _weight_files(self) -> list[str]:
        if self._has("model.safetensors"):
            return ["model.safetensors"]
        if self._has(_INDEX):
            schema = {"weight_map": {str: str}, str: schemas.ANYTHING}
            index = schemas.parse(self._read(_INDEX), schema, f"{self.name}/{_INDEX}")
            names = sorted({*index["weight_map"].values()})
            if all(_FILE_NAME.fullmatch(name) and self._has(name) for name in names):
                return names
            raise InputError(f"{self.name} lacks some of the files that {_INDEX} lists: {listed(names)}.")
        legacy = [
            path.name for suffix in ("bin", "pth", "pt", "h5", "msgpack") for path in self.folder.glob(f"*.{suffix}")
        ]
        advice = f" {legacy[0]} is not read, since opening it may run code: convert it first" if legacy else ""
        raise InputError(
            f"{self.name} has no model.safetensors.{advice}; see 'Fine-tune a pretrained model' in the docs."
        )

    def _has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def _path(self, name: str) -> Path:
        return files.inside(self._root, self.folder / name)

    def _read(self, name: str) -> bytes:
        return files.content(self.folder / name, folder=self._root)

    @property
    def _root(self) -> Path:
        """The folder that no link may lead out of: the hub's cache links from a folder for each commit to its files."""
        return self.folder if self.revision is None else self.folder.parent.parent


def find(name: str | Path, revision: str | None = None) -> Checkpoint:
    """Returns the checkpoint in a folder or of a name on the Hugging Face hub; its weights are not read yet.

    Args:
      name: a folder, or a name such as 'sentence-transformers/all-MiniLM-L6-v2', which is downloaded to the cache of
        `huggingface_hub` unless it is there.
      revision: a branch, tag or commit on the hub; by default the newest on its main branch.

    Raises:
      InputError: there is none, it cannot be downloaded, or its config.json is damaged.
    """
    folder, commit = Path(name), None
    if not folder.is_dir():
        folder = _downloaded(str(name), revision)
        # The cache has a folder for each commit.
        commit = folder.name
    elif revision is not None:
        raise InputError(f"{name} is a folder, which has no revision {revision}; leave it out.")
    if not (folder / "config.json").exists():
        raise InputError(f"{name} has no config.json; give a folder in Hugging Face's layout.")
    unparsed = Checkpoint(folder, str(name), commit, {})
    config = schemas.parse(unparsed._read("config.json"), {str: schemas.ANYTHING}, f"{name}/config.json")
    return dataclasses.replace(unparsed, config=config)


def _downloaded(name: str, revision: str | None) -> Path:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise InputError(f"{name}: there is no such folder, and it is no name on the Hugging Face hub, owner/model.")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise InputError(f"{name} is no folder; to download it, pip install 'jaxcls[hub]'.") from None
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=_DOWNLOADED))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise InputError(
            f"{name}: there is no such folder, and the hub answers: {str(error).splitlines()[0]}"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        raise InputError(
            f"{name} is no folder, it is not in the cache of huggingface_hub, and the hub cannot be reached "
            f"({type(error).__name__}). Where there is a network, hf download {name} prints a folder: give that."
        ) from None
