"""Files of external data: found inside the model's folder, opened without following links."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from qdqc.ir.data import Buffer
from qdqc.ir.mapped import map_file
from qdqc.onnx_io.light import OWN_FILE

__all__ = ["ExternalError", "ExternalFiles"]

_LONGEST = 4096
_INSIDE = "external data must lie in the model's own folder, under a relative path"


class ExternalError(ValueError):
    """Why a location is refused; ``hint`` is the next step."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


class ExternalFiles:
    """Maps the files that a model may read: those in ``folder`` and below it.

    A location is a model's word and not trusted. It is resolved, held against the folder, opened
    without following a link in its last part, and looked at once more behind the open file: what
    is swapped in between is refused. A file with further hard links may be anybody's, and is
    refused as well. ``OWN_FILE`` is the model's ``own`` file, wherever it lies.
    """

    def __init__(self, folder: Path, own: Path | None = None) -> None:
        self.folder = folder.resolve()
        self._own = own
        self._maps: dict[Path, Buffer] = {}

    def map(self, location: str) -> Buffer:
        """The bytes of a file, mapped and not read. Raises ExternalError."""
        if location == OWN_FILE and self._own is not None:
            return self._of_own_file(self._own)
        path = self._resolved(location)
        view = self._maps.get(path)
        if view is None:
            view = self._maps[path] = self._opened(path, location)
        return view

    def _of_own_file(self, own: Path) -> Buffer:
        view = self._maps.get(own)
        if view is None:
            try:
                with own.open("rb") as file:
                    view = self._maps[own] = map_file(file.fileno(), own)
            except OSError as error:
                reason = f"can't be read: {error.strerror or error}"
                raise ExternalError(reason, "check the file and its permissions") from error
        return view

    def _resolved(self, location: str) -> Path:
        if not location or "\0" in location or len(location) > _LONGEST:
            raise ExternalError("has no usable external location", _INSIDE)
        parts = location.replace("\\", "/").split("/")
        if os.path.isabs(location) or ":" in parts[0] or location[0] in "/\\" or ".." in parts:
            raise _outside(location)
        try:
            path = (self.folder / location).resolve()
            inside = path.is_relative_to(self.folder)
            exists = inside and path.is_file()
        except (OSError, RuntimeError) as error:
            raise ExternalError(f"can't resolve '{location}': {error}", _INSIDE) from error
        if not inside:
            raise _outside(location)
        if not exists:
            raise ExternalError(
                f"keeps its data in '{location}', which is not there",
                f"put that file into {self.folder}, beside the model",
            )
        return path

    def _opened(self, path: Path, location: str) -> Buffer:
        flags = os.O_RDONLY
        for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
            flags |= getattr(os, name, 0)
        try:
            handle = os.open(path, flags)
        except OSError as error:
            reason = f"can't open '{location}': {error.strerror or error}"
            raise ExternalError(reason, "check the file and its permissions") from error
        with os.fdopen(handle, "rb"):
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or not self._is_still(path, status):
                raise _outside(location)
            if status.st_nlink > 1:
                raise ExternalError(
                    f"keeps its data in '{location}', a file that has other hard links",
                    "put a copy of the file beside the model",
                )
            return map_file(handle, path)

    def _is_still(self, path: Path, status: os.stat_result) -> bool:
        """Whether the path leads where it led before, to the file that is open."""
        try:
            again = path.resolve(strict=True)
            return again == path and os.path.samestat(again.stat(), status)
        except (OSError, RuntimeError):
            return False


def _outside(location: str) -> ExternalError:
    return ExternalError(f"points outside the model's folder: '{location}'", _INSIDE)
