"""Pictures with Content Credentials of our own, signed by certificates that are made here and that nobody trusts."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def sign_picture(data: bytes, action: Mapping[str, str], mime: str) -> bytes:
    """The picture with a manifest whose only assertion is the action."""
    import c2pa

    chain, key = make_certificates()
    info = c2pa.C2paSignerInfo(b"es256", chain, key, None)
    actions = {"label": "c2pa.actions.v2", "data": {"actions": [dict(action)]}}
    builder = c2pa.Builder(json.dumps({"claim_generator_info": [{"name": "tests"}], "assertions": [actions]}))
    signed = io.BytesIO()
    builder.sign(c2pa.Signer.from_info(info), mime, io.BytesIO(data), signed)
    return signed.getvalue()


def make_certificates() -> tuple[bytes, bytes]:
    """(leaf and root as PEM, the leaf's key as PEM)."""
    now = datetime.datetime.now(datetime.UTC)
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certify(name: str, key: ec.EllipticCurvePrivateKey, *, is_root: bool) -> x509.Certificate:
        usage = x509.KeyUsage(
            digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        made = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named("root of tests"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        )
        if not is_root:
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        return made.sign(root_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    chain = certify("signer of tests", leaf_key, is_root=False).public_bytes(pem)
    chain += certify("root of tests", root_key, is_root=True).public_bytes(pem)
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return chain, key


def _named(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "moderation"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
