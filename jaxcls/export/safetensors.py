"""The weights of a run in the safetensors format, for whoever has a model of their own to put them in.

model.json, tokenizer.json, SHA256SUMS  see :mod:`jaxcls.export.folder`
model.safetensors                       name -> array; its metadata holds the names of the classes and the like
"""

import importlib.util
import json

from jaxcls._utils.errors import InputError
from jaxcls.export import folder
from jaxcls.export.exportable import Exportable


def files(exportable: Exportable) -> dict[str, bytes]:
    """The files of the artifact, by name.

    Raises:
      InputError: the safetensors library is not installed.
    """
    if importlib.util.find_spec("safetensors") is None:
        raise InputError("--format safetensors needs the package safetensors: pip install 'jaxcls[export]'.")
    from safetensors.numpy import save

    record = folder.describe(exportable, "safetensors")
    # The format takes texts alone.
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in record.items()}
    return {
        "model.json": (json.dumps(record, indent=2) + "\n").encode(),
        "model.safetensors": save(folder.named_weights(exportable), metadata=metadata),
        **folder.tokenizer(exportable),
    }
