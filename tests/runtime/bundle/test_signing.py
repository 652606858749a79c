"""A signature proves who signed a bundle, and that nothing in it has changed since."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from probrt.runtime import cli
from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.signing import check_signature, check_signing_key, sign
from probrt.runtime.errors import BundleError, UsageError


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """PEM files: the private and the public key of an owner, and the public key of another owner."""
    paths = {name: tmp_path / f"{name}.pem" for name in ("private", "public", "other")}
    owner, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    private = (form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = (form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    paths["private"].write_bytes(owner.private_bytes(*private))
    paths["public"].write_bytes(owner.public_key().public_bytes(*public))
    paths["other"].write_bytes(other.public_key().public_bytes(*public))
    return paths


def test_a_signature_holds_until_something_changes(
    bundle: Bundle, keys: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "signed"
    shutil.copytree(bundle.path, folder)
    with pytest.raises(BundleError, match="is not signed; export it with --sign"):
        check_signature(folder, keys["public"])
    sign(folder, keys["private"])
    assert cli.call(["verify", str(folder), "--key", str(keys["public"])]) == 0
    assert "signed by the owner of" in capsys.readouterr().out
    assert cli.call(["verify", str(folder), "--key", str(keys["other"])]) == 2
    assert "the signature does not hold" in capsys.readouterr().err
    # A manifest that lists other bytes is consistent in itself, but it is not what was signed.
    manifest = folder / "probrt.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"unit": "rad"', b'"unit": "deg"'))
    assert cli.call(["verify", str(folder)]) == 0
    with pytest.raises(BundleError, match="does not hold"):
        check_signature(folder, keys["public"])
    (folder / "probrt.sig").write_text("{}")
    with pytest.raises(BundleError, match="does not hold"):
        check_signature(folder, keys["public"])


def test_files_that_are_no_keys_are_refused(bundle: Bundle, keys: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "signed"
    shutil.copytree(bundle.path, folder)
    for wrong in (tmp_path / "absent.pem", keys["public"]):
        with pytest.raises(UsageError, match=r"--sign .*; it takes an elliptic private key"):
            sign(folder, wrong)
    sign(folder, keys["private"])
    with pytest.raises(UsageError, match="it takes an elliptic public key"):
        check_signature(folder, tmp_path / "absent.pem")


@pytest.mark.parametrize(
    "make_key", [lambda: rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate]
)
def test_keys_of_another_kind_are_refused_before_an_export(make_key: Callable[[], Any], tmp_path: Path) -> None:
    path = tmp_path / "private.pem"
    path.write_bytes(make_key().private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    with pytest.raises(UsageError, match=r"--sign .*: a key of another kind; it takes an elliptic private key"):
        check_signing_key(path)
