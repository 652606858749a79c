"""`probrt verify`: checks every byte of a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.errors import BundleError, ProbrtError


def verify(
    bundle: Annotated[str, typer.Argument(help="A version folder, or a model folder (newest version).")],
    key: Annotated[Path | None, typer.Option(help="The public key (PEM) of the owner who signed the bundle.")] = None,
) -> int:
    """Check every byte of a bundle: manifest, listing, links, the digest of each file, and what its graphs may do."""
    from probrt.runtime.bundle.signing import check_signature
    from probrt.runtime.bundle.vetting import vet

    opened = Bundle.open(bundle)
    faults = []
    for file in opened.manifest.files:
        try:
            vet(opened, file)
        except ProbrtError as error:
            faults.append(str(error))
    if faults:
        raise BundleError("; ".join(faults))
    signature = ""
    if key is not None:
        check_signature(opened.path, key)
        signature = f", signed by the owner of {key}"
    size = sum(file.bytes for file in opened.manifest.files)
    print(f"{opened.label}: {len(opened.manifest.files)} files, {size} bytes, all as exported{signature}")
    return 0
