"""The weights of EfficientNet-Lite are read from a pickle that cannot run anything."""

import pickle
import zipfile
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_of_anything_but_tensors_is_refused(zipped, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import convert_efficientnet_lite

    path = tmp_path / "weights.pth"
    content = pickle.dumps({"weight": print})
    path.write_bytes(content)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", content)
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        convert_efficientnet_lite.read(path.read_bytes())
