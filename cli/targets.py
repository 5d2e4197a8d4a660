"""Modules and what is in them, named on the command line: ``shop.billing:inbox``."""

import importlib
import sys
from pathlib import Path

import click

from ..messaging.errors import PostroomError


def is_dotted(text: str) -> bool:
    """Whether ``text`` is a dotted name."""
    return all(part.isidentifier() for part in text.split("."))


def attribute_of(module: str, attribute: str) -> object:
    """What ``attribute``, perhaps dotted, names in ``module``. Raises click.UsageError."""
    found = imported(module)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise click.UsageError(f"The module {module!r} has no {attribute!r}.") from None
    return found


def imported(module: str) -> object:
    """The module, from the working directory or from what is installed. Raises click.UsageError, in one sentence."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise click.UsageError(
                f"There is no module {error.name!r} in the working directory, nor is it installed."
            ) from error
        raise click.UsageError(f"Importing {module!r} failed: {error}.") from error
    except PostroomError as error:
        raise click.UsageError(f"Importing {module!r} failed: {error}") from error
    except Exception as error:
        raise click.UsageError(f"Importing {module!r} failed: {type(error).__name__}: {error}.") from error
    except SystemExit as error:
        raise click.UsageError(f"Importing {module!r} failed: it calls sys.exit({error.code!r}).") from error
