"""Writes the table of all pinned packages into docs/licences.md.

    python docs/write_licences.py [--sbom FILE]

--sbom writes the same list as a CycloneDX bill of materials of the distribution instead.
Names and versions are those of constraints.txt, the licences those of the installed packages. A package that only
other systems or other versions of Python install keeps the licence that the page has.
"""

import argparse
import importlib.metadata
import re
from pathlib import Path

from probrt.exporter.sbom import Package, make_sbom, normalize_name, read_package

ROOT = Path(__file__).parent.parent
PAGE, LOCK = ROOT / "docs" / "licences.md", ROOT / "constraints.txt"
START, END = "<!-- packages -->\n", "<!-- end of packages -->\n"
_LINE = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", re.MULTILINE)
# Packages that only Windows installs.
_ELSEWHERE = {"colorama": "BSD-3-Clause"}


def read_lock(text: str) -> list[tuple[str, str]]:
    """Returns the names and versions of a lock file, in its order."""
    return [(normalize_name(name), version) for name, version in _LINE.findall(text)]


def list_pinned(lock: str, page: str) -> list[Package]:
    """Returns the pinned packages; `page` is the text of the page as it is."""
    known = dict(re.findall(r"^\\| ([a-z0-9-]+) \\| [^|]+ \\| ([^|]+) \\|$", page.partition(START)[2], re.MULTILINE))
    packages = []
    for name, version in read_lock(lock):
        try:
            licence = read_package(name).licence
        except importlib.metadata.PackageNotFoundError:
            licence = known.get(name) or _ELSEWHERE[name]
        packages.append(Package(name, version, licence))
    return packages


def write_table(page: str, packages: list[Package]) -> str:
    """Returns the page with a new table."""
    rows = [f"| {package.name} | {package.version} | {package.licence} |\n" for package in packages]
    table = "".join(["| package | version | licence |\n", "|---|---|---|\n", *rows])
    return page.partition(START)[0] + START + table + END + page.partition(END)[2]


def main() -> None:
    """Writes the page or the bill of materials."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sbom", type=Path)
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    packages = list_pinned(LOCK.read_text(encoding="utf-8"), page)
    if options.sbom is None:
        PAGE.write_text(write_table(page, packages), encoding="utf-8")
        return
    probrt = read_package("probrt")
    component = {
        "type": "library",
        "name": "probrt",
        "version": probrt.version,
        "licenses": [{"expression": probrt.licence}],
    }
    options.sbom.parent.mkdir(parents=True, exist_ok=True)
    options.sbom.write_bytes(make_sbom({**component, "bom-ref": probrt.purl, "purl": probrt.purl}, packages))
    print(f"{options.sbom}: {len(packages)} packages")


if __name__ == "__main__":
    main()
