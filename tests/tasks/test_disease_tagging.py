"""The disease_tagging task: the layouts of its three sources, pitfalls, and errors."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image
from radiograph_layouts import write_chexpert, write_medmnist

from jaxcls import tasks
from jaxcls._utils.errors import InputError
from jaxcls.data.datasets import radiographs
from jaxcls.data.formats import tables
from jaxcls.data.samples import disease_tagging as sample
from jaxcls.data.splits import grouped
from jaxcls.training.settings import Settings

TASK = tasks.get("disease_tagging")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small data set in each of the layouts."""
    root = tmp_path_factory.mktemp("written")
    writers = {"nih": sample.write, "chexpert": write_chexpert, "medmnist": write_medmnist}
    for name, write in writers.items():
        (root / name).mkdir()
        write(root / name, **{"images": 120} if name == "nih" else {})
    return root


@pytest.fixture
def copy(written, tmp_path):
    """Makes a copy of one of them, to edit."""
    return lambda name: shutil.copytree(written / name, tmp_path / name)


def load(folder, **settings):
    chosen = {"task": "disease_tagging", "data_dir": folder, "image_size": 16, "uncertain": "ignore"}
    return TASK.load(Settings(**{**chosen, "test_fraction": 0.25, **settings}))


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_sample_has_the_quirks_of_chestxray14(written):
    nih = written / "nih"
    lines = (nih / "Data_Entry_2017.csv").read_text().splitlines()
    assert all(line.endswith(",") for line in lines)
    assert {path.parent.name for path in nih.glob("*/images")} == {"images_001", "images_002"}
    rows = list(csv.DictReader(lines))
    findings = [row["Finding Labels"] for row in rows]
    assert 0.4 < findings.count("No Finding") / len(rows) < 0.75
    assert any("|" in words for words in findings)
    assert len({row["Patient ID"] for row in rows}) < len(rows)


def test_no_finding_is_a_row_without_labels(written):
    dataset = load(written / "nih")
    rows = list(csv.DictReader((written / "nih" / "Data_Entry_2017.csv").read_text().splitlines()))
    tests = set((written / "nih" / "test_list.txt").read_text().split())
    for part, member in [(dataset.train, False), (dataset.test, True)]:
        expected = [row for row in rows if (row["Image Index"] in tests) == member]
        findings = ["|".join(sorted(np.array(dataset.class_names)[row == 1])) or "No Finding" for row in part.labels]
        assert findings == [row["Finding Labels"] for row in expected]
        assert part.groups.tolist() == [row["Patient ID"] for row in expected]
    assert len(dataset.class_names) == 14
    assert (dataset.train.labels.dtype, dataset.train.inputs.shape[1:]) == (np.float32, (16, 16, 1))


@pytest.mark.parametrize("lists", [True, False], ids=["official lists", "no lists"])
def test_no_patient_is_in_two_splits(copy, lists):
    folder = copy("nih")
    if not lists:
        (folder / "train_val_list.txt").unlink()
        (folder / "test_list.txt").unlink()
    dataset = load(folder)
    train_rows, validation_rows = TASK.split(dataset.train, 0.3, seed=0)
    assert TASK.split is grouped
    parts = [{*dataset.train.groups[train_rows]}, {*dataset.train.groups[validation_rows]}, {*dataset.test.groups}]
    assert len(set.union(*parts)) == sum(map(len, parts)) < 120
    assert ("no official lists, so 25%" in dataset.provenance.note) != lists


def test_patients_in_both_lists_are_counted(copy):
    folder = copy("nih")
    assert "; 0 patients are in both" in load(folder).provenance.note
    replace(folder / "Data_Entry_2017.csv", ",0,1,", f",0,{load(folder).test.groups[0]},")
    assert "; 1 patients are in both" in load(folder).provenance.note


def test_the_table_of_2020_and_images_in_any_folder_are_read(copy):
    folder = copy("nih")
    before = load(folder)
    (folder / "Data_Entry_2017.csv").rename(folder / "Data_Entry_2017_v2020.csv")
    for path in list(folder.glob("*/images/*.png")):
        (folder / "images").mkdir(exist_ok=True)
        path.rename(folder / "images" / path.name)
    after = load(folder)
    np.testing.assert_array_equal(after.test.inputs, before.test.inputs)
    np.testing.assert_array_equal(after.test.labels, before.test.labels)


@pytest.mark.parametrize(("policy", "value"), [("ignore", np.nan), ("ones", 1.0), ("zeros", 0.0)])
def test_uncertain_labels_follow_the_policy(written, policy, value):
    dataset = load(written / "chexpert", uncertain=policy)
    table = tables.read_csv(written / "chexpert" / "CheXpert-v1.0-small" / "train.csv")
    stated = np.stack([table[name] for name in dataset.class_names], axis=1)
    assert (stated == -1).any()
    # A finding that is not mentioned is negative.
    expected = np.where(stated == -1, value, np.nan_to_num(stated))
    np.testing.assert_array_equal(dataset.train.labels, expected)
    assert f"uncertain labels: {policy}" in dataset.provenance.note


def test_chexpert_tests_on_its_validation_file_without_the_label_no_finding(written):
    dataset = load(written / "chexpert")
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (60, 20)
    assert "No Finding" not in dataset.class_names
    assert len(dataset.class_names) == 13
    assert np.isfinite(dataset.test.labels).all()
    assert all(patient.startswith("patient") for patient in dataset.train.groups)
    assert len(np.unique(dataset.train.groups)) < 60
    np.testing.assert_array_equal(load(written / "chexpert" / "CheXpert-v1.0-small").train.inputs, dataset.train.inputs)


def test_an_uncertain_label_of_a_test_example_is_not_scored(copy):
    folder = copy("chexpert")
    replace(folder / "CheXpert-v1.0-small" / "valid.csv", ",0.0\n", ",-1.0\n")
    labels = load(folder, uncertain="ones").test.labels
    np.testing.assert_array_equal(np.argwhere(np.isnan(labels)), [[0, 12]])


def test_medmnist_has_validation_images(written):
    dataset = load(written / "medmnist", image_size=28)
    with np.load(written / "medmnist" / "chestmnist.npz") as arrays:
        for name, part in [("train", dataset.train), ("val", dataset.validation), ("test", dataset.test)]:
            np.testing.assert_array_equal(part.inputs[..., 0], arrays[f"{name}_images"])
            np.testing.assert_array_equal(part.labels, arrays[f"{name}_labels"])
    assert dataset.class_names == radiographs.CHESTXRAY14


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "Data_Entry_2017.csv").unlink(), "holds none of .*Data_Entry_2017"),
        (lambda f: shutil.copy(f / "Data_Entry_2017.csv", f / "Data_Entry_2017_v2020.csv"), "holds 2 tables"),
        (lambda f: replace(f / "Data_Entry_2017.csv", "Patient ID", "Patient"), "2017.csv: has no column 'Patient ID'"),
        (lambda f: replace(f / "Data_Entry_2017.csv", "No Finding,0,1,", "Efusion,0,1,"),
         "2017.csv: row 1: unknown finding 'Efusion'. Did you mean 'Effusion'?"),
        (lambda f: replace(f / "Data_Entry_2017.csv", "No Finding,0,1,", "No Finding|Mass,0,1,"),
         "row 1: 'No Finding' is combined with a finding"),
        (lambda f: replace(f / "Data_Entry_2017.csv", "No Finding,0,1,", ",0,1,"), "row 1: unknown finding ''"),
        (lambda f: replace(f / "Data_Entry_2017.csv", ",0,1,", ",0,,"), "row 1 of column 'Patient ID' is '',"),
        (lambda f: replace(f / "Data_Entry_2017.csv", "00000002_000", "00000001_000"),
         "row 2 of column 'Image Index' is '00000001_000.png', the same as row 1"),
        (lambda f: (f / "images_001" / "images" / "00000002_000.png").unlink(),
         "2017.csv: there is no image 00000002_000.png; 1 of 120 are missing"),
        (lambda f: shutil.copy(f / "images_001" / "images" / "00000002_000.png", f / "images_002"),
         "there is an image of this name at"),
        (lambda f: (f / "images_001" / "images" / "00000002_000.png").write_bytes(b"GIF89a"), "002_000.png: .*damaged"),
        (lambda f: (f / "test_list.txt").unlink(), "holds train_val_list.txt alone"),
        (lambda f: (f / "test_list.txt").write_bytes(b"\xff\xfe0\0"), "test_list.txt: line 1 is not UTF-8"),
        (lambda f: (f / "test_list.txt").write_text((f / "train_val_list.txt").read_text()),
         r"test_list.txt: line 1: 0000000\d_000.png is in train_val_list.txt too"),
        (lambda f: (f / "test_list.txt").write_text(""), r"2017.csv: row \d+: .*png is in neither"),
    ],
)  # fmt: skip
def test_errors_of_chestxray14_name_the_row(copy, spoil, message):
    folder = copy("nih")
    spoil(folder)
    with pytest.raises(InputError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "valid.csv").unlink(), "valid.csv: cannot be read"),
        (lambda f: replace(f / "train.csv", "Lung Lesion", "Lesion"), "train.csv: has no column 'Lung Lesion'"),
        (lambda f: replace(f / "valid.csv", ",0.0\n", ",2.0\n"),
         "valid.csv: row 1 of column 'Support Devices' is '2', but must be one of 1, 0, -1, or blank"),
        (lambda f: replace(f / "valid.csv", ",0.0\n", ",maybe\n"), "row 1 of column 'Support Devices' is 'maybe'"),
        (lambda f: replace(f / "train.csv", "/patient00001/", "/person/"), "train.csv: row 1: .* is not like CheXpert"),
        (lambda f: replace(f / "train.csv", "/patient00001/", "/../patient00001/"), "row 1: .* is not like CheXpert"),
        (lambda f: shutil.rmtree(f / "train" / "patient00002"), r"row \d: there is no image .*patient00002"),
    ],
)  # fmt: skip
def test_errors_of_chexpert_name_the_row(copy, spoil, message):
    folder = copy("chexpert")
    spoil(folder / "CheXpert-v1.0-small")
    with pytest.raises(InputError, match=message):
        load(folder)


def test_images_of_12_bits_in_16_keep_their_levels(copy):
    folder = copy("nih")
    deep = np.random.default_rng(0).integers(0, 4096, (16, 16), np.uint16)
    for path in folder.glob("*/images/*.png"):
        Image.fromarray(deep).save(path)
    (folder / "train_val_list.txt").unlink()
    (folder / "test_list.txt").unlink()
    dataset = load(folder)
    assert dataset.white == 4095
    np.testing.assert_allclose(dataset.test.inputs[0, ..., 0], np.rint(deep / 4095 * 255), atol=1)
