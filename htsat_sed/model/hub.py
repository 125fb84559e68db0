"""Downloading checkpoints from the Hugging Face Hub, by addresses such as ``hf://owner/name``."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from htsat_sed.errors import CheckpointError, UsageError
from htsat_sed.libraries import load

PREFIX = "hf://"
FILE = "model.safetensors"
_ADDRESS = re.compile(r"hf://(?P<name>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")

_logger = logging.getLogger("htsat_sed")


def hub_checkpoint(address: str) -> Path:
    """Find a checkpoint of the hub in the cache of huggingface_hub, or download it.

    A cached file is used without a connection, even if the hub has a newer version. Give a revision to get
    that version.

    Args:
        address: ``hf://owner/name`` for ``model.safetensors`` in that repository, or
            ``hf://owner/name/FILE``. ``hf://owner/name@revision`` selects a branch, tag or commit.

    Returns:
        Path of the file.

    Raises:
        UsageError: the address has another form, or huggingface_hub is not installed.
        CheckpointError: the file cannot be downloaded.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(
            f"wanted an address such as hf://owner/name or hf://owner/name/FILE, got {address!r}"
        )
    hub = load("huggingface_hub", purpose=f"the checkpoint {address}", extra="hub")
    wanted = {"repo_id": found["name"], "filename": found["file"] or FILE, "revision": found["revision"]}
    try:
        try:
            return Path(hub.hf_hub_download(**wanted, local_files_only=True))
        except hub.errors.LocalEntryNotFoundError:
            _logger.warning("downloading the checkpoint %s", address)
        return Path(hub.hf_hub_download(**wanted, endpoint=os.environ.get("HF_ENDPOINT")))
    except hub.errors.EntryNotFoundError as error:
        reason = f"cannot be reached, and is not in the cache: {_line(error)}"
        if not isinstance(error, hub.errors.LocalEntryNotFoundError):
            reason = f"has no file {wanted['filename']}: name one as hf://owner/name/FILE"
        raise CheckpointError(address, reason) from error
    except hub.errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            address, "no such repository, or it is private: set HF_TOKEN for a private one"
        ) from error
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        raise CheckpointError(address, f"cannot be downloaded: {_line(error)}") from error


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
