"""Every reader of files that others may have written, with valid and damaged content for each."""

import csv
import gzip
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import made_records
import numpy as np
import pyarrow
import tomli_w
from damage import damaged, edited
from idx_files import write_idx
from jax import export
from PIL import Image
from pyarrow import feather, parquet

import jaxcls
from jaxcls import tasks
from jaxcls._utils import files
from jaxcls._utils.errors import InputError
from jaxcls.checkpoints import CheckpointError, CheckpointManager
from jaxcls.checkpoints.directory import Damaged
from jaxcls.checkpoints.record import Record, hashed, pack, unpack
from jaxcls.data import predictions, preprocessing
from jaxcls.data.datasets import radiographs
from jaxcls.data.formats import boxes, coco, idx, images, texts, voc
from jaxcls.data.preprocessing import images as image_preprocessing
from jaxcls.data.preprocessing import tables as table_preprocessing
from jaxcls.data.preprocessing import texts as text_preprocessing
from jaxcls.export import loader
from jaxcls.reports import html_report, run_directory
from jaxcls.tasks import build, predictor, text_csv, user_data
from jaxcls.tasks import csv as csv_task
from jaxcls.training import debugging, settings
from jaxcls.training.settings import Settings

ENDS = (InputError, CheckpointError, loader.ExportError)


class FileReader:
    """A reader of one file; `contents` holds valid contents."""

    name = "file"

    def __init__(self, folder):
        self.folder = Path(folder)
        self.path = self.folder / self.name
        self.contents = self.valid_contents()

    def valid(self):
        """Reads valid content, which must not raise."""
        for content in self.contents:
            self.path.write_bytes(content)
            self.open(self.path)

    def read(self, rng):
        """Reads damaged content."""
        self.path.write_bytes(damaged(rng, rng.choice(self.contents)))
        self.open(self.path)


class Idx(FileReader):
    def valid_contents(self):
        contents = []
        for array in (
            np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
            np.ones(5, np.int32),
            np.ones((1, 2), np.float64),
        ):
            for name in ("plain", "packed.gz"):
                write_idx(self.folder / name, array)
                contents.append((self.folder / name).read_bytes())
        return contents

    def open(self, path):
        assert isinstance(idx.read_idx(path), np.ndarray)


class Npz(FileReader):
    """MedMNIST's files."""

    def valid_contents(self):
        draw = np.random.default_rng(0)
        arrays = {}
        for split, count in {"train": 3, "val": 1, "test": 2}.items():
            arrays[f"{split}_images"] = draw.integers(0, 256, (count, 4, 4), np.uint8)
            arrays[f"{split}_labels"] = draw.integers(0, 2, (count, 1), np.uint8)
        contents = []
        for save in (np.savez, np.savez_compressed):
            file = io.BytesIO()
            save(file, **arrays)
            contents.append(file.getvalue())
        return contents

    def open(self, path):
        radiographs.read_medmnist(path, name="toy", class_names=("no", "yes"), size=8)


class Table(FileReader):
    """A CSV, Parquet or Feather file of the user, from the file to the inputs of a model."""

    def valid_contents(self):
        rows = [["color", "size", "y"], *([color, size, label] for color, size, label in ROWS)]
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
        plain = "\n".join(",".join(row) for row in rows).encode()
        table = pyarrow.table(dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True)))
        files_ = [io.BytesIO(), io.BytesIO()]
        parquet.write_table(table, files_[0])
        feather.write_feather(table, files_[1])
        contents = [file.getvalue() for file in files_]
        return [plain, text.getvalue().encode(), gzip.compress(plain, mtime=0), *contents]

    def open(self, path):
        options = Settings(task="csv", data=path, label_column=("y",), test_fraction=0.25)
        dataset = csv_task.load(options)
        fitted = table_preprocessing.fit(dataset.train.inputs)
        fitted.transform(dataset.test.inputs)
        csv_task.read(path, options, fitted)


class TextTable(FileReader):
    """A CSV file of texts."""

    def valid_contents(self):
        return ["\n".join(["text,y", *(f'"a {c}, {s} thing",{y}' for c, s, y in ROWS)]).encode()]

    def open(self, path):
        text_csv.TASK.load(
            Settings(task="text_csv", data=path, label_column=("y",), text_column="text", test_fraction=0.25)
        )


class SampleSubmission(FileReader):
    def valid_contents(self):
        return [b"id,cat,dog\n1,0.5,0.5\n2,0.5,0.5\n"]

    def open(self, path):
        ids = np.array(["1", "2"], object)
        predictions.read_sample_submission(path, ids, "multiclass", ("cat", "dog"), source=Path("test.csv"))


class TextArchive(FileReader):
    """A gzipped tar archive, damaged before or after compression."""

    def valid_contents(self):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, headers in (("a/pos/1.txt", {}), ("a/pos/2.txt", {"comment": "x" * 120}), ("a/" + "n" * 150, {})):
                member = tarfile.TarInfo(name)
                member.size, member.pax_headers = 5, headers
                archive.addfile(member, io.BytesIO(b"words"))
        self.compressed = gzip.compress(file.getvalue(), mtime=0)
        return [file.getvalue()]

    def valid(self):
        self.path.write_bytes(self.compressed)
        self.open(self.path)

    def read(self, rng):
        content = damaged(rng, self.compressed)
        if rng.random() < 0.8:
            content = gzip.compress(damaged(rng, self.contents[0]), compresslevel=1, mtime=0)
        self.path.write_bytes(content)
        self.open(self.path)

    def open(self, path):
        texts.read_archive(path, ["a/pos"])


class Lines(FileReader):
    def valid_contents(self):
        return ["one\ntwo\r\ncaf\N{LATIN SMALL LETTER E WITH ACUTE}\n".encode()]

    def open(self, path):
        texts.read_lines(path)


class Images(FileReader):
    def valid_contents(self):
        contents = []
        draw = np.random.default_rng(0)
        for name, options in (
            ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("GIF", {}), ("BMP", {}), ("WEBP", {}),
            ("PPM", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}),
        ):  # fmt: skip
            file = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (9, 7, 3), np.uint8)).save(file, name, **options)
            contents.append(file.getvalue())
        return contents

    def open(self, path):
        assert images.decode_path(path, size=8, channels=3)[1].images.shape == (1, 8, 8, 3)


class Coco(FileReader):
    """Box annotations in COCO's JSON."""

    def valid_contents(self):
        objects = [[boxes.Object(0, (1, 2, 3, 4), False), boxes.Object(1, (0, 0, 5, 5), False)], []]
        annotated = boxes.annotated(["a.png", "b.png"], [(8, 9), (6, 7)], objects, {0: "cat", 1: "dog"})
        coco.write(self.path, annotated)
        self.record = json.loads(self.path.read_bytes())
        return [self.path.read_bytes()]

    def read(self, rng):
        if rng.random() < 0.5:
            super().read(rng)
        else:
            self.path.write_text(json.dumps(edited(rng, self.record)))
            self.open(self.path)

    def open(self, path):
        coco.read(path, boxes.Repairs(strict=False))
        coco.read(path)


class Voc(FileReader):
    """A Pascal VOC folder with a damaged XML file."""

    name = "Annotations/1.xml"

    def valid_contents(self):
        for folder in ("Annotations", "JPEGImages"):
            (self.folder / folder).mkdir()
        (self.folder / "JPEGImages" / "1.jpg").touch()
        box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>4</xmax><ymax>5.5</ymax></bndbox>"
        size = "<size><width>9</width><height>8</height><depth>3</depth></size>"
        thing = f"<object><name>cat</name><difficult>0</difficult>{box}</object>"
        return [f"<annotation>{size}{thing}{thing}</annotation>".encode()]

    def open(self, path):
        voc.read(self.folder, ["1"], repairs=boxes.Repairs(strict=False))
        voc.read(self.folder, ["1"])


class Toml(FileReader):
    """Settings from a TOML file, and from a record."""

    def valid_contents(self):
        return [tomli_w.dumps(SETTINGS).encode()]

    def open(self, path):
        settings.from_toml(path)

    def read(self, rng):
        if rng.random() < 0.5:
            super().read(rng)
        elif isinstance(record := edited(rng, SETTINGS), dict):
            settings.from_record(record, where="record")


class Preprocessors(FileReader):
    """The records of fitted preprocessors, from the record to transformed inputs."""

    def valid_contents(self):
        columns = {"size": np.array([1.0, 2.0, 3.0, np.nan]), "color": np.array([*"rbrr"], object)}
        words = np.array(["a film", "a good film"], object)
        pixels = np.zeros((2, 3, 3, 1), np.uint8)
        self.fitted = [
            (image_preprocessing.fit(pixels).as_record(), pixels),
            (table_preprocessing.fit(columns).as_record(), columns),
            (text_preprocessing.fit(words, vocabulary_size=300, max_length=8).as_record(), words),
        ]
        return []

    def valid(self):
        for record, inputs in self.fitted:
            preprocessing.from_record(record).transform(inputs)

    def read(self, rng):
        record, inputs = rng.choice(self.fitted)
        if record["type"] == "texts" and rng.random() < 0.7:
            tokenizer = edited(rng, json.loads(record["tokenizer"]))
            changed = {**record, "tokenizer": json.dumps(tokenizer)}
        else:
            changed = edited(rng, record)
        if isinstance(changed, dict) and isinstance(changed.get("type"), str):
            preprocessing.from_record(changed).transform(inputs)


class RunRecords:
    """All records of a finished run and its report. The checksums match, as an attacker would make them."""

    def __init__(self, folder):
        self.folder = Path(folder) / "run"
        self.folder.mkdir()
        self.runs = []
        cases = [
            ("binary", ["a", "b"]),
            ("multiclass", ["a", "b", "c"]),
            ("multilabel", ["a", "b", "c"]),
            ({"x": "multiclass", "y": "binary"}, {"x": ["a", "b", "c"], "y": ["d", "e"]}),
        ]
        for problem, names in cases:
            for kind in ("images", "texts", "tables"):
                made = made_records.made(problem, kind=kind, names=names, rows=20, side=4, epochs=2)
                self.runs.append(
                    {
                        "config.toml": {"task": "csv", "model": "mlp", "seed": 1},
                        "data.json": made.data,
                        "predictor.json": {
                            "problem": problem,
                            "class_names": names,
                            "preprocessor": {"type": "images", "shape": [4, 4, 1], "mean": [0.5], "deviation": [1.0]},
                        },
                        "environment.json": made.environment,
                        "results.json": made.results,
                        "summary.json": made.summary,
                        "metrics.jsonl": made.history,
                    }
                )
        self.runs = json.loads(json.dumps(self.runs))

    def write(self, records):
        for name, record in records.items():
            if isinstance(record, bytes):
                content = record
            elif name == "metrics.jsonl":
                lines = record if isinstance(record, list) else [record]
                content = "".join(json.dumps(line) + "\n" for line in lines).encode()
            elif name == "config.toml":
                content = tomli_w.dumps(record).encode()
            else:
                content = json.dumps(record).encode()
            (self.folder / name).write_bytes(content)
        sums = [
            f"{hashlib.sha256((self.folder / name).read_bytes()).hexdigest()}  {name}\n"
            for name in ("config.toml", "data.json", "predictor.json")
        ]
        (self.folder / "SHA256SUMS").write_text("".join(sums))

    def valid(self):
        for records in self.runs:
            self.write(records)
            self.open()

    def read(self, rng):
        records = dict(rng.choice(self.runs))
        name = rng.choice(["data.json", "environment.json", "metrics.jsonl", *["results.json", "summary.json"] * 4])
        if rng.random() < 0.1:
            name = rng.choice([*records])
            records[name] = damaged(rng, json.dumps(records[name]).encode())
        else:
            records[name] = edited(rng, records[name])
        self.write(records)
        if rng.random() < 0.05:
            sums = self.folder / "SHA256SUMS"
            sums.write_bytes(damaged(rng, sums.read_bytes()))
        self.open()

    def open(self):
        html = html_report.render(run_directory.read_records(self.folder))
        assert "<script" not in html
        html.encode()


class Prediction:
    """All that `predict` reads of a run: settings, preprocessor, thresholds and weights. The checksums match."""

    def __init__(self, folder):
        self.folder = Path(folder) / "run"
        self.runs = []
        columns = {"size": np.array([1.0, 2.0, 3.0, np.nan] * 5), "color": np.array([*"rbrr"] * 5, object)}
        words = np.array(["a film", "a good film"] * 5, object)
        for name, model, fitted in (
            ("csv", "mlp", table_preprocessing.fit(columns)),
            ("text_csv", "ngrams", text_preprocessing.fit(words, vocabulary_size=300, max_length=8)),
            ("fashion_mnist", "mlp", image_preprocessing.fit(np.zeros((2, 8, 8, 1), np.uint8))),
        ):
            task = user_data.for_problem(tasks.get(name), "multiclass")
            resolved = build.with_recipe(task, Settings(task=name, model=model))
            names = ("a", "b", "c")
            built = build.build_model(task, resolved, fitted, len(names))
            params, model_state = jax.tree.map(jax.numpy.asarray, built.init(jax.random.key(0)))
            run = self.folder / name
            with CheckpointManager(run / "model", max_to_keep=1) as checkpoints:
                checkpoints.save(
                    3, {"params": params, "model_state": model_state}, metadata={"thresholds": 0.5}, wait=True
                )
            records = {
                "config.toml": settings.as_record(resolved),
                "data.json": made_records.made().data,
                "predictor.json": {
                    "problem": "multiclass",
                    "class_names": [*names],
                    "preprocessor": fitted.as_record(),
                },
                "calibration.json": {
                    "method": "vector",
                    "split": "validation",
                    "examples": 4,
                    "thresholds": 0.5,
                    "outputs": {
                        "": {"scale": [1.5, 1.0, 0.5], "bias": [0.0] * 3, "sets": {"lac": [[0.5]] * 3, "aps": [[]] * 3}}
                    },
                },
            }
            self.runs.append((run, json.loads(json.dumps(records))))
            (run / "results.json").write_text("{}")

    def write(self, run, records):
        for name, record in records.items():
            text = tomli_w.dumps(record) if name == "config.toml" else json.dumps(record)
            (run / name).write_text(text, encoding="utf-8", errors="surrogatepass")
        (run / "SHA256SUMS").write_text(run_directory.checksums(run))

    def valid(self):
        for run, records in self.runs:
            self.write(run, records)
            learned = predictor.load(run)
            assert learned.class_names == ("a", "b", "c")
            assert learned.sets(0.9)(np.full((1, 3), 1 / 3)).all()

    def read(self, rng):
        run, records = rng.choice(self.runs)
        name = rng.choice(["config.toml", "data.json", "predictor.json", "predictor.json", "calibration.json"])
        changed = edited(rng, records[name])
        if name == "config.toml":
            # Only what TOML can represent; `Toml` above damages the text.
            items = changed.items() if isinstance(changed, dict) else ()
            changed = {key: value for key, value in items if _in_toml(key) and _in_toml(value)}
        self.write(run, {**records, name: changed})
        predictor.load(run).sets(0.9)


def _in_toml(value):
    match value:
        case str():
            return "\ud800" not in value
        case int():
            return abs(value) < 1 << 63
        case _:
            return isinstance(value, float)


class CheckpointRecord:
    """The record in the metadata of a checkpoint, with a matching digest, as an attacker would make it."""

    def __init__(self, folder):
        leaves = hashed({"w": jnp.ones(3)})
        packed = pack(Record(7, leaves, {"epoch": 1}, {"accuracy": 0.5}, {"seed": 1}))
        self.record, self.text = json.loads(packed["record"]), packed["record"]

    def valid(self):
        assert self.unpack(self.text) is not None

    def read(self, rng):
        if rng.random() < 0.7:
            self.unpack(json.dumps(edited(rng, self.record)))
        else:
            self.unpack(damaged(rng, self.text.encode()).decode("latin-1"))

    def unpack(self, text):
        try:
            result = unpack(7, {"record": text, "sha256": hashlib.sha256(text.encode()).hexdigest()})
        except Damaged:
            return None
        assert all(isinstance(name, str) and len(leaf) == 2 for name, leaf in result.leaves.items())
        return result


class CheckpointFiles:
    """The files of a checkpoint, including Orbax's metadata: what is restored equals what was saved."""

    def __init__(self, folder):
        self.state = {"w": jnp.arange(3.0), "b": jnp.zeros((2, 2))}
        self.saved, self.copy = Path(folder) / "saved", Path(folder) / "copy"
        with CheckpointManager(self.saved) as checkpoints:
            checkpoints.save(7, self.state, metadata={"epoch": 1}, wait=True)
        self.files = sorted(path.relative_to(self.saved) for path in (self.saved / "7").rglob("*") if path.is_file())

    def valid(self):
        self.open()

    def read(self, rng):
        name = rng.choice(
            [file for file in self.files if "METADATA" in file.name] if rng.random() < 0.7 else self.files
        )
        path = self.copy / name
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.saved, self.copy)
        content = path.read_bytes()
        if "METADATA" in name.name and rng.random() < 0.5:
            path.write_text(json.dumps(edited(rng, json.loads(content))))
        else:
            path.write_bytes(damaged(rng, content))
        self.open()

    def open(self):
        if not self.copy.exists():
            shutil.copytree(self.saved, self.copy)
        with CheckpointManager(self.copy) as checkpoints:
            restored = checkpoints.restore(like=self.state)
        assert restored is not None
        for name, leaf in self.state.items():
            np.testing.assert_array_equal(restored.state[name], leaf)


class ReplayFile(FileReader):
    """A training step that --debug saved."""

    def valid_contents(self):
        from flax import nnx

        compiled = jaxcls.compile(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
        self.state = compiled.init(0)
        self.batch = jaxcls.batch(np.ones((4, 3), np.float32), np.zeros(4, np.int32))
        about = {"settings": {"task": "csv", "seed": 1}, "rows": [1, 2]}
        finding = debugging.Finding("loss", "", (1,))
        return [debugging.save(self.folder / "x.npz", finding, self.state, self.batch, about).read_bytes()]

    def open(self, path):
        record = debugging.read_record(path)
        if "settings" in record:
            settings.from_record(record["settings"], where="record")
        debugging.load(path, self.state, self.batch)


class Export:
    """An exported folder with a damaged file, read by its loader."""

    def __init__(self, folder):
        self.folder = Path(folder) / "model"
        self.folder.mkdir()
        exported = export.export(jax.jit(lambda parameters, x: x.reshape(x.shape[0], -1)[:, 0] * parameters["w"]))
        (count,) = export.symbolic_shape("n")
        written = exported(
            {"w": jax.ShapeDtypeStruct((), np.float32)}, jax.ShapeDtypeStruct((count, 2, 2, 1), np.uint8)
        )
        parameters = io.BytesIO()
        np.savez(parameters, w=np.float32(1))
        record = {
            "format": "stablehlo", "problem": "binary", "class_names": ["a", "b"], "thresholds": 0.5,
            "synthetic": False, "preprocessor": {"type": "images", "shape": [2, 2, 1]}, "buckets": [],
            "programs": ["program.bin"], "batch_size": 4,
        }  # fmt: skip
        contents = {
            "program.bin": bytes(written.serialize()),
            "parameters.npz": parameters.getvalue(),
            "model.json": json.dumps(record).encode(),
        }
        self.whole = contents | {loader.SUMS: files.sha256sums(contents).encode()}

    def write(self, contents):
        for name, content in contents.items():
            (self.folder / name).write_bytes(content)

    def valid(self):
        self.write(self.whole)
        self.open()

    def read(self, rng):
        name = rng.choice([*self.whole])
        self.write({**self.whole, name: damaged(rng, self.whole[name])})
        self.open()

    def open(self):
        loader.load(self.folder)


ROWS = [("red", "1.5", "yes"), ("blue", "2", "no"), ("red", "-3", "yes"), ("green", "", "no")] * 5
SETTINGS = {"task": "csv", "seed": 1, "epochs": 3, "dropout": 0.5, "label_column": ["y"], "data": "x", "resume": True}
READERS = {
    "IDX": Idx,
    "MedMNIST npz": Npz,
    "CSV table": Table,
    "CSV of texts": TextTable,
    "sample submission": SampleSubmission,
    "archive of texts": TextArchive,
    "lines of text": Lines,
    "images": Images,
    "COCO annotations": Coco,
    "VOC annotations": Voc,
    "TOML settings": Toml,
    "preprocessor records": Preprocessors,
    "run records and report": RunRecords,
    "a run to predict with": Prediction,
    "checkpoint record": CheckpointRecord,
    "checkpoint files": CheckpointFiles,
    "replay file": ReplayFile,
    "exported folder": Export,
}
