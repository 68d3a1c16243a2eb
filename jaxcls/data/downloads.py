"""Downloads files from the addresses that TFDS registers, with its download manager, which verifies their checksums.

TFDS needs TensorFlow to prepare most of its data sets, but not for its addresses, checksums and downloads; the files
are decoded by jaxcls.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxcls._utils.errors import InputError
from jaxcls.data.sources import AbsentError, checksums

# Seconds after which a server that does not answer counts as out of reach.
TIMEOUT = 5.0


def fetch(name: str, urls: Mapping[str, str], registered: Mapping[str, Any]) -> tuple[Path, dict[str, Path]]:
    """Downloads files into TFDS's folder, unless they are there already.

    TFDS verifies what it downloads, but not what is in its cache: verify the content of the files.

    Args:
      name: the name of the data set in TFDS.
      urls: a name for each file -> its address.
      registered: address -> TFDS's record of its size and checksum, from :func:`registered`.

    Returns:
      The folder, and the path of each file by its name.

    Raises:
      AbsentError: the files cannot be downloaded.
    """
    # Imports in half a second.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import resource
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    downloads = tfds_directory() / "downloads"
    cached = all(
        resource.is_locally_cached(downloads / name / resource.get_dl_fname(url, registered[url].checksum))
        for url in urls.values()
    )
    # TFDS retries for minutes: ten times with growing pauses and no timeout.
    if not cached:
        _check_reachable(next(iter(urls.values())))
    try:
        manager = tfds.download.DownloadManager(
            download_dir=downloads, dataset_name=name, url_infos=registered, force_checksums_validation=True
        )
        files = {file: Path(path) for file, path in manager.download(dict(urls)).items()}
    except (OSError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        raise AbsentError(f"the download failed: {str(error).partition(chr(10))[0]}") from error
    return downloads / name, files


def fetch_archive(name: str, suffix: str) -> tuple[Path, str]:
    """Downloads the archive of a data set whose address ends in `suffix`; returns its path and SHA-256.

    Raises:
      AbsentError: it cannot be downloaded.
      InputError: its content is not the registered one.
    """
    addresses = registered(name)
    url = next(url for url in addresses if url.endswith(suffix))
    archive = fetch(name, {suffix: url}, addresses)[1][suffix]
    (digest,) = checksums([archive]).values()
    if digest != addresses[url].checksum:
        raise InputError(f"{archive}: its SHA-256 is not the registered one. Delete it and run again.")
    return archive, digest


def tfds_directory() -> Path:
    """Returns the folder of TFDS's data sets.

    Raises:
      AbsentError: it would be in the home directory, and there is none.
    """
    import tensorflow_datasets as tfds

    try:
        return Path(tfds.core.constants.get_default_data_dir()).expanduser()
    except RuntimeError:
        raise AbsentError("TFDS's folder is unknown, as there is no home directory; set TFDS_DATA_DIR") from None


def registered(name: str) -> Mapping[str, Any]:
    """Returns the addresses that TFDS registers for a data set, each with the size and SHA-256 of its content.

    They are read from the package's files: ``tfds.builder_cls`` imports every data set of the same field first, and
    fails if one of them needs a package that TFDS does not require (its text data sets need h5py).

    Raises:
      AbsentError: the installed TFDS does not have the data set.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import load_url_infos

    package = Path(tfds.__file__).parent
    for path in (package / "url_checksums" / f"{name}.txt", package / "datasets" / name / "checksums.tsv"):
        if path.is_file():
            return load_url_infos(path)
    raise AbsentError(f"the installed tensorflow-datasets {tfds.__version__} does not register {name}")


def _check_reachable(url: str) -> None:
    """Raises AbsentError unless an address answers within TIMEOUT seconds."""
    from http.client import HTTPException
    from urllib.parse import urlsplit
    from urllib.request import build_opener

    host = urlsplit(url).netloc
    reasons = [f"{host} did not answer within {TIMEOUT:g} seconds"]

    def request() -> None:
        try:
            # Not urlopen, which keeps the proxy settings of its first call.
            build_opener().open(url, timeout=TIMEOUT).close()
            reasons.clear()
        except (OSError, HTTPException) as error:
            reasons[0] = f"{host} is out of reach: {error}"

    # A thread, because no socket timeout bounds name resolution, or the sum over addresses.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if reasons:
        raise AbsentError(reasons[0])
