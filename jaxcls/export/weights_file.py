"""Exports the weights in the safetensors format, for use in another program.

model.safetensors  name -> array; its metadata is the content of model.json, with values that are not text as JSON
"""

import importlib.util
import json
from collections.abc import Mapping
from typing import Any

from jaxcls._utils.errors import InputError
from jaxcls.export.exportable import Exportable
from jaxcls.export.folder import named_arrays


def files(exportable: Exportable, record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns what the format adds to model.json (nothing), and its files by name.

    Raises:
      InputError: the safetensors library is not installed.
    """
    if importlib.util.find_spec("safetensors") is None:
        raise InputError("the format safetensors needs the package safetensors: pip install 'jaxcls[export]'.")
    from safetensors.numpy import save

    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in record.items()}
    return {}, {"model.safetensors": save(named_arrays(exportable.weights), metadata=metadata)}
