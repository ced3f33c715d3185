"""Every error edgegen raises on purpose.

    EdgegenError
    |-- CheckpointError      a source cannot be read as a checkpoint
    |-- ExportError          a checkpoint cannot become the graphs asked for
    |   `-- ParityError      the graphs do not say what the checkpoint says
    |-- BundleError          a bundle is damaged, hostile or too new
    |-- UnknownName          a table has no such name
    |-- DeviceError          a device failed to compile or run a graph
    |   `-- DeviceMissing    the device or its package is not installed here
    |-- CacheFull            the text outgrew the key-value cache
    `-- InputError           what was given to generate from cannot be used

Each message is one line that names the thing, what was expected, what came and the way out.
The command line prints that line and exits with status 2.
"""

from __future__ import annotations


class EdgegenError(Exception):
    """Base of all errors that are a user's to mend, not a programmer's."""


class CheckpointError(EdgegenError):
    """A source cannot be read as a checkpoint: missing files, wrong format, unknown layout."""


class ExportError(EdgegenError):
    """A checkpoint cannot be turned into the graphs asked for."""


class ParityError(ExportError):
    """The exported graphs differ from the checkpoint by more than the gate allows."""


class BundleError(EdgegenError):
    """A bundle is damaged, hostile, incomplete or written by a newer major version."""


class UnknownName(EdgegenError):
    """A table was asked for a name it does not have."""


class DeviceError(EdgegenError):
    """A device failed to compile or to run a graph."""


class DeviceMissing(DeviceError):
    """The device, its driver or its Python package is not present on this machine."""


class CacheFull(EdgegenError):
    """The key-value cache has no room for the tokens asked of it."""


class InputError(EdgegenError):
    """The text, audio, tokens or options given to a pipeline cannot be used."""


class EdgegenWarning(UserWarning):
    """Something was done that the caller may not expect, such as shortening the input."""
