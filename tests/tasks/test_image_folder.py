"""User-supplied image folders: classes, splits, and errors."""

import shutil

import numpy as np
import pytest
from PIL import Image

from jaxcls._utils.errors import InputError
from jaxcls.data import duplicates
from jaxcls.data.dataset import describe
from jaxcls.data.datasets import image_folders
from jaxcls.data.formats import images
from jaxcls.data.samples import image_folder as sample
from jaxcls.tasks import build, predictor
from jaxcls.tasks.train import train_task
from jaxcls.training import memory
from jaxcls.training.settings import Settings


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    sample.write(folder, train=12, test=4)
    return folder


@pytest.fixture
def divided(written, tmp_path):
    """train/ and test/, each with one folder per class."""
    return shutil.copytree(written, tmp_path / "divided")


@pytest.fixture
def plain(written, tmp_path):
    """One folder per class."""
    return shutil.copytree(written / "train", tmp_path / "plain")


def load(**settings):
    task, resolved = resolved_for(**settings)
    return task, task.load(resolved)


def resolved_for(**settings):
    user_settings = Settings(task="image_folder", **{"image_size": 16, **settings})
    task = build.specialized(user_settings)
    return task, build.with_recipe(task, user_settings)


def test_each_folder_is_a_class_of_which_a_fraction_is_held_out(plain):
    task, dataset = load(data=plain)
    assert task.problem == "multiclass"
    assert dataset.class_names == sample.CLASSES
    assert dataset.validation is None
    assert len(dataset.train.labels) == 48
    assert sorted(np.bincount(dataset.test.labels).tolist()) == [2, 2, 2, 3, 3]
    assert dataset.train.inputs.shape[1:] == (16, 16, 3)
    assert "12 images held out for testing" in describe(dataset)


def test_held_out_examples_do_not_depend_on_the_seed(plain):
    first, second = (load(data=plain, seed=seed)[1].test for seed in (0, 1))
    np.testing.assert_array_equal(first.inputs, second.inputs)


def test_existing_splits_are_used(divided):
    shutil.copytree(divided / "test", divided / "val")
    _, dataset = load(data=divided)
    assert [len(part.labels) for part in (dataset.train, dataset.validation, dataset.test)] == [60, 20, 20]
    assert set(dataset.provenance.sha256) == {"train", "validation", "test"}
    np.testing.assert_array_equal(dataset.validation.inputs, dataset.test.inputs)


def test_separate_folders_for_validation_and_test(divided):
    _, dataset = load(data=divided / "train", validation_data=divided / "test", test_data=divided / "test")
    assert [len(part.labels) for part in (dataset.train, dataset.validation, dataset.test)] == [60, 20, 20]
    with pytest.raises(InputError, match="has a test folder: leave test_data out"):
        load(data=divided, test_data=divided / "test")


def test_two_classes_are_binary_with_the_second_as_positive(plain):
    for name in sample.CLASSES[2:]:
        shutil.rmtree(plain / name)
    task, dataset = load(data=plain)
    assert task.problem == "binary"
    assert task.recipe("default").loss == "binary_crossentropy"
    assert "the positive class is 'cross'" in dataset.provenance.note
    assert set(dataset.train.labels.tolist()) == {0, 1}


def test_a_class_may_be_called_train_and_images_may_be_in_subfolders(plain):
    (plain / "star").rename(plain / "train")
    (plain / "square" / "more").mkdir()
    image = next(path for path in sorted((plain / "square").iterdir()) if path.is_file())
    image.rename(plain / "square" / "more" / image.name)
    _, dataset = load(data=plain)
    assert dataset.class_names == ("circle", "cross", "square", "train", "triangle")
    assert len(dataset.train.labels) + len(dataset.test.labels) == 60


def layout_of(folder, *names):
    for number, name in enumerate(names):
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{number}.png").touch()
    layout = image_folders.layout(folder)
    labels = {role: [layout.class_names[label] for label in one.labels] for role, one in layout.splits.items()}
    left_out = sum(int(note.split()[1]) for note in layout.notes if "left out" in note)
    assert sum(map(len, labels.values())) + left_out == len(names)
    return labels, left_out


@pytest.mark.parametrize(
    ("names", "labels", "left_out"),
    [
        ("Training/a Training/b Testing/a", {"train": "ab", "test": "a"}, 0),
        ("train/a train/b Test/b", {"train": "ab", "test": "b"}, 0),
        ("TRAIN/a TRAIN/b Valid/b test_set/a", {"train": "ab", "validation": "b", "test": "a"}, 0),
        ("seg_train/seg_train/a seg_train/seg_train/b seg_test/seg_test/b seg_pred/seg_pred",
         {"train": "ab", "test": "b"}, 1),
        ("archive/images/train/a archive/images/train/b archive/images/val/a", {"train": "ab", "validation": "a"}, 0),
        ("x/x/train/a x/x/train/b x/x/valid/b test/test", {"train": "ab", "validation": "b"}, 1),
        ("a/train b/train a/test b/test/deeper", {"train": "ab", "test": "ab"}, 0),
        ("train/a train/b/deep/er extra", {"train": "ab"}, 1),
        ("train/a train/b train", {"train": "ab"}, 1),
        ("train/images/a train/images/b test/images/a", {"train": "ab", "test": "a"}, 0),
        ("a b test/a test/b", {"train": "ab", "test": "ab"}, 0),
        ("a b test", {"train": ["a", "b", "test"]}, 0),
        ("a b .", {"train": "ab"}, 1),
        ("train_station/in train_station/out airport/in",
         {"train": ["airport", "train_station", "train_station"]}, 0),
        ("train/e\u0301 train/b test/\u00e9", {"train": ["b", "\u00e9"], "test": ["\u00e9"]}, 0),
    ],
)  # fmt: skip
def test_splits_in_any_spelling_and_depth_and_what_is_left_out(tmp_path, names, labels, left_out):
    assert layout_of(tmp_path, *names.split()) == ({role: [*one] for role, one in labels.items()}, left_out)


@pytest.mark.parametrize("names", ["train test", "test/a test/b val/a", "train/a test/a"])
def test_splits_are_never_learned_as_classes(tmp_path, names):
    with pytest.raises(InputError, match="are splits by their names"):
        layout_of(tmp_path, *names.split())


def test_a_class_folder_behind_a_link_within_the_data_is_read(tmp_path):
    for name in ("pool/cats", "train/dog"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.png").touch()
    (tmp_path / "train" / "cat").symlink_to(tmp_path / "pool" / "cats")
    (tmp_path / "train" / "dog" / "loop").symlink_to(tmp_path)
    layout = image_folders.layout(tmp_path)
    assert layout.class_names == ("cat", "dog")
    assert len(layout.splits["train"].paths) == 2


def test_files_that_are_not_images_are_ignored_and_counted(plain):
    (plain / "notes.txt").touch()
    (plain / "star" / "labels.csv").touch()
    (plain / ".thumbnails").mkdir()
    (plain / "__MACOSX").mkdir()
    _, dataset = load(data=plain)
    assert len(dataset.class_names) == 5
    assert "2 files of" in dataset.provenance.note
    assert "notes.txt" in dataset.provenance.note


def test_the_same_image_in_two_classes_is_reported(plain):
    first = next(path for path in sorted((plain / "star").iterdir()))
    shutil.copy(first, plain / "circle" / f"copy{first.suffix}")
    _, dataset = load(data=plain)
    assert "warning: 1 images of" in dataset.provenance.note
    assert f"circle/copy{first.suffix} and star/{first.name}" in dataset.provenance.note


def empty(folder):
    for path in (folder / "star").iterdir():
        path.unlink()


def one_class(folder):
    for name in sample.CLASSES[1:]:
        shutil.rmtree(folder / name)


def corrupt(folder):
    (folder / "cross" / "zebra.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))


def huge(folder):
    Image.new("1", (30_000, 10_000)).save(folder / "cross" / "huge.png")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (empty, "star holds no images"),
        (one_class, "only the folder 'circle'"),
        (shutil.rmtree, "is not a folder"),
        (corrupt, r"zebra\.png"),
        (huge, r"huge\.png: has more than"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_errors_name_the_folder(plain, harm, message):
    harm(plain)
    with pytest.raises(InputError, match=message):
        load(data=plain)


def test_a_test_class_missing_in_train_is_rejected(divided):
    (divided / "test" / "star").rename(divided / "test" / "moon")
    with pytest.raises(InputError, match="moon: is not a class of"):
        load(data=divided)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data_dir": "x"}, "--task image_folder takes no --data-dir"),
        ({"source": "files"}, "needs --data"),
        ({"source": "tfds"}, "needs --data"),
        ({"test_data": "x"}, "goes with --data"),
        ({"label_column": ("x",)}, "takes no --label-column, which is for csv, text_csv"),
        ({"data": "x", "source": "sample"}, "--data goes with --source auto or files"),
    ],
)
def test_settings_of_other_tasks_are_rejected(settings, message):
    with pytest.raises(InputError, match=message):
        resolved_for(**settings)


def test_too_small_a_size_is_rejected(plain):
    with pytest.raises(InputError, match="--image-size is 4"):
        resolved_for(data=plain, image_size=4)


def test_the_sample_has_all_file_types_and_disjoint_splits(written):
    paths, others = images.list_files(written)
    assert (len(paths), others) == (80, [])
    modes = set()
    for path in paths:
        with Image.open(path) as image:
            modes.add((image.format, image.mode))
    assert {("JPEG", "RGB"), ("PNG", "RGB"), ("JPEG", "L"), ("PNG", "I;16"), ("JPEG", "CMYK")} <= modes
    dataset = image_folders.read(image_folders.layout(written), size=16, test_fraction=0.5)
    assert duplicates.shared(dataset.train.inputs, dataset.test.inputs) == 0
    assert "warning" not in dataset.provenance.note


def test_the_sample_is_deterministic(written, tmp_path):
    sample.write(tmp_path, train=12, test=4)
    for path in (path for path in written.rglob("*") if path.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(written)).read_bytes()


def test_without_data_the_synthetic_sample_is_used(monkeypatch):
    monkeypatch.setattr(sample.write, "__kwdefaults__", {"train": 6, "test": 2, "seed": 0})
    _, dataset = load()
    assert dataset.provenance.synthetic
    assert describe(dataset).startswith("image_folder: 30 + 10 synthetic examples")


def test_images_to_predict_are_read_as_in_training(divided):
    task, resolved = resolved_for(data=divided)
    queries = images.read_unlabeled(divided / "test", 16, 3)
    np.testing.assert_array_equal(queries.inputs, task.load(resolved).test.inputs)
    assert queries.ids[0].startswith("circle/circle_000")
    assert images.read_unlabeled(divided / "test" / queries.ids[0], 16, 3).inputs.shape == (1, 16, 16, 3)


def test_two_classes_are_learned_end_to_end(plain, tmp_path):
    for name in sample.CLASSES[2:]:
        shutil.rmtree(plain / name)
    result = train_task(
        Settings(
            task="image_folder", data=plain, image_size=8, model="mlp", epochs=1, batch_size=8, run_dir=tmp_path / "run"
        ),
        say=lambda line: None,
    )
    assert result.report["examples"] == 5


def test_images_of_12_bits_in_16_keep_their_levels(tmp_path):
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 4096, (12, 16, 16), np.uint16)
    for row, pixels in enumerate(deep):
        path = tmp_path / "data" / "ab"[row % 2] / f"{row:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    settings = Settings(
        task="image_folder", data=tmp_path / "data", image_size=16, model="mlp", epochs=1, batch_size=4,
        validation_fraction=0.3, run_dir=tmp_path / "run",
    )  # fmt: skip
    _, dataset = load(data=tmp_path / "data")
    assert dataset.white == 4095
    assert "white is 4,095" in dataset.provenance.note
    train_task(settings, say=lambda line: None)
    learned = predictor.load(tmp_path / "run")
    assert learned.experiment.preprocessor.white == 4095
    read = learned.read(tmp_path / "data").inputs
    expected = np.rint(np.concatenate([deep[::2], deep[1::2]]) / 4095 * 255)
    np.testing.assert_allclose(read[..., 0], expected, atol=1)


def test_images_that_are_decoded_in_training_give_the_same_bits(plain, tmp_path, monkeypatch):
    options = {"task": "image_folder", "data": plain, "image_size": 8, "model": "mlp", "epochs": 1, "batch_size": 8}
    lines, results = [], []
    for name in ("before", "during"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        results.append(train_task(Settings(**options, run_dir=tmp_path / f"run-{name}"), say=lines.append))
        monkeypatch.setattr(images, "SMALL", 0)
        monkeypatch.setattr(memory, "SMALL", 0)
        monkeypatch.setattr(images, "_SAMPLE", 1000)
    assert results[0].report["params_sha256"] == results[1].report["params_sha256"]
    assert results[0].report["metrics"] == results[1].report["metrics"]
    assert sum("the others are decoded in training" in line for line in lines) == 1
    assert sum("examples stay on the host" in line for line in lines) == 1
