"""Errors of the user, reported in one sentence; the command ends with exit code 2."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Input that cannot be used. The message says what is wrong, where, and what to do next."""


def closest(name: str, valid: Iterable[str], number: int = 1) -> list[str]:
    """The valid names most similar to a mistyped one, the closest first, ignoring case."""
    by_lower = {candidate.lower(): candidate for candidate in sorted(valid)}
    found = difflib.get_close_matches(name.lower(), by_lower, n=number, cutoff=0.5)
    return [by_lower[lower] for lower in found]


def hint(name: object, valid: Iterable[str], number: int = 1) -> str:
    """A question about the valid names most similar to an unknown one, after a space; "" if none.

    >>> hint("user", ["user_id", "label"])
    " Did you mean 'user_id'?"
    """
    close = " or ".join(map(repr, closest(str(name), valid, number)))
    return f" Did you mean {close}?" if close else ""


class DivergedError(InputError):
    """A training with a NaN or infinite loss, prediction or metric; it has no result."""


def unknown(kind: str, name: object, valid: Iterable[str]) -> InputError:
    """The error for an unknown name: suggests the closest valid name and lists all."""
    names = sorted(valid)
    return InputError(f"Unknown {kind} {name!r}.{hint(name, names)} Valid: {', '.join(names)}.")


@contextmanager
def explained(
    errors: type[BaseException] | tuple[type[BaseException], ...], what: str, then: str
) -> Iterator[None]:
    """Make one sentence of a library's error: "<what> (<its reason>): <then>."

    with explained(OSError, f"{path} cannot be read", "build the data set again"):
        text = path.read_text()
    """
    try:
        yield
    except InputError:
        raise
    except errors as error:
        lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
        reason = " ".join(lines[0].split()) if lines else type(error).__name__
        raise InputError(f"{what} ({reason}): {then}.") from error


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main` and report errors of the user or the machine in one sentence.

    Exit codes: 2 for an `InputError` or an `OSError` (full disk, missing permission), 130 for
    Ctrl-C, 141 if the reader of a pipe has closed it. Any other exception is our bug and shows its
    traceback.
    """
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed, as a service's may be
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        sys.exit(_say(f"error: {error}", 2, error))
    except BrokenPipeError:  # as in `--list | head`; the interpreter would flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        where = f"{' and '.join(names)}: " if names else ""
        sys.exit(_say(f"error: {where}{error.strerror or error}.", 2, error))
    except KeyboardInterrupt as error:
        sys.exit(_say("interrupted; finished files are whole", 130, error))


def _say(message: str, exit_code: int, error: BaseException) -> int:
    """Close progress bars and print the message on stderr; return the exit code.

    Of several processes of torchrun only one prints: the first with an error, as
    `processes.session` notes at it, or the first of a machine if they have not met yet.
    """
    if getattr(error, "reported", os.environ.get("LOCAL_RANK", "0") != "0"):
        return exit_code
    if "tqdm" in sys.modules:
        for bar in list(sys.modules["tqdm"].tqdm._instances):
            bar.close()
    print(message, file=sys.stderr)
    return exit_code
