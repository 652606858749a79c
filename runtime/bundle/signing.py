"""Signs bundles with key files, and checks signatures, offline; uses the package model-signing.

The signature is the file `probrt.sig` of the bundle.
"""

from pathlib import Path
from typing import Any

from probrt.runtime.bundle.manifest import SIGNATURE
from probrt.runtime.errors import BundleError, MissingError, UsageError, one_line

# What the package raises for a file that is no key, or (AttributeError) a key of another kind, such as RSA or Ed25519.
_KEY_FAULTS = (ValueError, TypeError, AttributeError, OSError)


def sign(folder: Path, key: Path) -> None:
    """Signs every file of a folder with a private key (PEM, elliptic curve); writes `probrt.sig` there."""
    package = _import_package()
    try:
        config = package.signing.Config().use_elliptic_key_signer(private_key=key)
        config.set_hashing_config(_configure_hashing(package)).sign(folder, folder / SIGNATURE)
    except _KEY_FAULTS as error:
        raise _refuse_key("--sign", key, "private", error) from None


def check_signing_key(key: Path) -> None:
    """Raises UsageError for a private key that `sign` cannot use; costs nothing, before a long export."""
    package = _import_package()
    try:
        package.signing.Config().use_elliptic_key_signer(private_key=key)
    except _KEY_FAULTS as error:
        raise _refuse_key("--sign", key, "private", error) from None


def check_signature(folder: Path, key: Path) -> None:
    """Checks that the owner of a public key signed the files of a folder, as they are now. Raises BundleError."""
    package = _import_package()
    if not (folder / SIGNATURE).exists():
        raise BundleError(f"{folder}: is not signed; export it with --sign")
    try:
        config = package.verifying.Config().use_elliptic_key_verifier(public_key=key)
    except _KEY_FAULTS as error:
        raise _refuse_key("--key", key, "public", error) from None
    try:
        config.set_hashing_config(_configure_hashing(package)).verify(folder, folder / SIGNATURE)
    except Exception as error:  # a malformed signature may fail in any layer of the package
        raise BundleError(f"{folder}: the signature does not hold for {key} ({one_line(error)[:200]})") from None


def _refuse_key(option: str, key: Path, kind: str, error: Exception) -> UsageError:
    reason = "a key of another kind" if isinstance(error, AttributeError) else one_line(error)[:200]
    return UsageError(f"{option} {key}: {reason}; it takes an elliptic {kind} key in PEM")


def _configure_hashing(package: Any) -> Any:
    return package.hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _import_package() -> Any:
    try:
        import model_signing
    except ImportError:
        raise MissingError("signatures need the package model-signing: pip install 'probrt[signing]'") from None
    return model_signing
