"""What the user got wrong, said in one sentence; a command then ends with exit code 2."""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Callable, Iterable


class InputError(ValueError):
    """Input that cannot be used. The message says what is wrong, where, and what to do next."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """The error for a name that does not exist: the closest valid one first, then all of them."""
    names = sorted(valid)
    by_lower = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f" Did you mean {by_lower[close[0]]!r}?" if close else ""
    return InputError(f"Unknown {kind} {name!r}.{hint} Valid: {', '.join(names)}.")


def run_command(main: Callable[[], None]) -> None:
    """Run a command line's `main`; errors of the user or the machine end it with one sentence.

    Exit codes: 2 for an `InputError` or a full disk, 130 for Ctrl-C. Anything else is a defect of
    ours and keeps its traceback.
    """
    try:
        main()
    except InputError as error:
        sys.exit(_say(str(error)))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(
            _say(f"Cannot write{where}: {error.strerror}. Free some space or change the folder.")
        )
    except KeyboardInterrupt:
        print("\ninterrupted; finished files are whole", file=sys.stderr)
        sys.exit(130)


def _say(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
