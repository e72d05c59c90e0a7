"""A certificate authority of our own, and certificates that it signs."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFE = datetime.timedelta(days=2)


class Authority:
    """Its files are in ``directory``, which must exist; ``ca`` is its own certificate.

    The files of keys can be read by anyone: daemons run as other users, and the keys protect
    nothing.
    """

    def __init__(self, directory: Path, name: str = "lab") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.ca = directory / f"{name}-ca.pem"
        signed = self._signed(self._name, self._key.public_key(), is_ca=True)
        self.ca.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """A key and a certificate of ``name`` at 127.0.0.1 and localhost: their files."""
        key = ec.generate_private_key(ec.SECP256R1())
        private, public = (self._directory / f"{name}-{part}.pem" for part in ("key", "cert"))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        signed = self._signed(_name(name), key.public_key(), is_ca=False)
        public.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return private, public

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_ca: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _LIFE)
            .not_valid_after(now + _LIFE)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        )
        if not is_ca:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(self._key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
