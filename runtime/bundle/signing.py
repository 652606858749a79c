"""Signatures of bundles with key files, by the package model-signing, offline; `probrt.sig` lies in the bundle."""

from pathlib import Path
from typing import Any

from probrt.runtime.bundle.manifest import SIGNATURE
from probrt.runtime.errors import BundleError, MissingError, UsageError, one_line


def sign(folder: Path, key: Path) -> None:
    """Signs every file of a folder with a private key (PEM, elliptic curve); writes `probrt.sig` into it."""
    package = _package()
    try:
        config = package.signing.Config().use_elliptic_key_signer(private_key=key)
        config.set_hashing_config(_hashing(package)).sign(folder, folder / SIGNATURE)
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"--sign {key}: {one_line(error)[:200]}; it takes an elliptic private key in PEM") from None


def check_signature(folder: Path, key: Path) -> None:
    """Raises BundleError if a folder has no signature of the owner of a public key, or other files than were signed."""
    package = _package()
    if not (folder / SIGNATURE).exists():
        raise BundleError(f"{folder}: is not signed; export it with --sign")
    try:
        config = package.verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"--key {key}: {one_line(error)[:200]}; it takes an elliptic public key in PEM") from None
    try:
        config.set_hashing_config(_hashing(package)).verify(folder, folder / SIGNATURE)
    except Exception as error:  # a signature that is no signature fails in whichever of its layers it reaches
        raise BundleError(f"{folder}: the signature does not hold for {key} ({one_line(error)[:200]})") from None


def _hashing(package: Any) -> Any:
    return package.hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _package() -> Any:
    try:
        import model_signing
    except ImportError:
        raise MissingError("signatures need the package model-signing: pip install 'probrt[signing]'") from None
    return model_signing
