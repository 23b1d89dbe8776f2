"""Run the tests with the lowest versions that setup.py allows, all but PyTorch's and FuxiCTR's.

    python tests/lowest_versions.py                  all that `make test` runs
    python tests/lowest_versions.py tests/data -x    pytest's arguments

The versions are installed into a folder of their own, which is deleted at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import requires

from packaging.requirements import Requirement

AS_THEY_ARE = ("torch", "fuxictr")  # by the gigabyte; one version
EXTRAS = ("", "serving", "export")


def lowest_versions() -> list[str]:
    """`name==version` of what setup.py asks for."""
    found = {}
    for each in map(Requirement, requires("fuxictr_miss") or ()):
        wanted = each.marker is None or any(each.marker.evaluate({"extra": x}) for x in EXTRAS)
        bounds = [one.version for one in each.specifier if one.operator == ">="]
        if wanted and bounds and each.name not in AS_THEY_ARE:
            found[each.name] = f"{each.name}=={bounds[0]}"
    return sorted(found.values())


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(lowest_versions()), flush=True)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder]
        subprocess.run([*install, *lowest_versions()], check=True)
        there = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        tests = [sys.executable, "-m", "pytest", *sys.argv[1:]]
        return subprocess.run(
            tests, env={**os.environ, "PYTHONPATH": there}, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
