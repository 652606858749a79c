"""The packages that something was made with, and their licences, as a CycloneDX bill of materials.

https://cyclonedx.org/docs/1.6/json/ defines the format. Without a serial number and a time, which it leaves free, the
same packages give the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from probrt.runtime.bundle.manifest import DocumentRecord

# What packages without an SPDX expression call their licences.
_SPDX_OF = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD",
    "bsd license": "BSD",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
}
# Packages whose metadata give no licence, read from the licence file that they hold.
_FROM_THEIR_FILES = {"namex": "Apache-2.0", "sigstore-models": "MIT"}
# A short text that is an SPDX expression already.
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")
# Names that say too little for an SPDX expression.
_NOT_SPDX = ("BSD", "unknown")


@dataclass(frozen=True, order=True)
class Package:
    """A Python package; licence: an SPDX expression, or the name that the package gives."""

    name: str
    version: str
    licence: str

    @property
    def purl(self) -> str:
        """The package's URL, which names it in a bill of materials."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_package(name: str) -> Package:
    """Returns an installed package; raises importlib.metadata.PackageNotFoundError if there is none of that name."""
    name = normalize_name(name)
    return Package(name, importlib.metadata.version(name), find_licence(name))


def find_licence(name: str) -> str:
    """Returns the licence of an installed package: its expression, its short text or its classifier."""
    metadata = importlib.metadata.metadata(name)
    texts: list[str] = [*metadata.get_all("License-Expression", []), *metadata.get_all("License", []), ""]
    classifiers: list[str] = [text for text in metadata.get_all("Classifier", []) if "License ::" in text]
    for candidate in (text.rpartition(" :: ")[2].strip() for text in (texts[0], *classifiers)):
        if candidate.lower() in _SPDX_OF:
            return _SPDX_OF[candidate.lower()]
        if _EXPRESSION.fullmatch(candidate):
            return candidate
    return _FROM_THEIR_FILES.get(name, "unknown")


def list_installed(name: str, extras: Iterable[str]) -> list[Package]:
    """Returns an installed package and everything that it and its extras need here, in the order of their names."""
    from packaging.requirements import Requirement

    packages: dict[str, Package] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(normalize_name(name), extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            packages[name] = read_package(name)
        except importlib.metadata.PackageNotFoundError:  # needed on other systems only
            continue
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = normalize_name(requirement.name)
                waiting += [(needed, needed_extra) for needed_extra in ("", *requirement.extras)]
    return sorted(packages.values())


def write_sbom(folder: Path, model: str, training: Mapping[str, Any]) -> DocumentRecord:
    """Writes the bill of materials of a bundle: what the export runs with, and the versions that trained the model.

    training: the manifest's provenance of the model.
    """
    packages = {package.name: package for package in list_installed("probrt", ("export",))}
    versions = training.get("versions")
    trained_with = [
        replace(packages[name], version=version)
        for name, version in (versions.items() if isinstance(versions, Mapping) else ())
        if name in packages and isinstance(version, str)
    ]
    component = {"type": "machine-learning-model", "name": model}
    content = make_sbom(component, [*packages.values(), *trained_with])
    record = DocumentRecord(path="sbom.cdx.json", bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / record.path).write_bytes(content)
    return record


def normalize_name(name: str) -> str:
    """Returns the one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def make_sbom(component: Mapping[str, Any], packages: Iterable[Package]) -> bytes:
    """Encodes a bill of materials as JSON.

    component: what was made, a CycloneDX component with at least `type` and `name`. packages: what it was made with.
    """
    root = {"bom-ref": str(component["name"]), **component}
    libraries = sorted(set(packages))
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"lifecycles": [{"phase": "build"}], "component": root},
        "components": [_describe_package(package) for package in libraries],
        "dependencies": [{"ref": root["bom-ref"], "dependsOn": [package.purl for package in libraries]}],
    }
    return msgspec.json.encode(bom) + b"\n"


def _describe_package(package: Package) -> dict[str, Any]:
    is_expression = package.licence not in _NOT_SPDX
    licence = {"expression": package.licence} if is_expression else {"license": {"name": package.licence}}
    return {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "licenses": [licence],
    }
