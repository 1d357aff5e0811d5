"""The frame around what is encrypted, and the keys: RFC 5869's derivation, ids that tell nothing."""

import base64

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from extract.core.sealed import Damaged
from extract.fetch import encryption
from extract.fetch.encryption import EncryptionError, Key

SECRETS = [bytes([n]) * 32 for n in (1, 2)]
TEXTS = [base64.b64encode(secret).decode() for secret in SECRETS]


def set_keys(monkeypatch, current="", *old):
    monkeypatch.setenv(encryption.KEY, current)
    monkeypatch.setenv(encryption.OLD_KEYS, ", ".join(old))


def test_a_frame_gives_back_what_was_put_in_and_says_nothing_of_it(monkeypatch):
    set_keys(monkeypatch, TEXTS[0])
    data = b"0xfeed and 12.5 BTC " * 50
    frames = [encryption.encrypt(data, Key(SECRETS[0])) for _ in range(2)]
    assert [encryption.decrypt(frame, "it") for frame in frames] == [data, data]
    assert frames[0] != frames[1] and b"0xfeed" not in frames[0] and b"BTC" not in frames[0]
    assert encryption.is_encrypted(frames[0]) and not encryption.is_encrypted(data)
    assert encryption.key_id(frames[0]) == Key(SECRETS[0]).id


def test_every_flipped_bit_is_damage_never_other_text_and_never_a_wrong_key(monkeypatch):
    set_keys(monkeypatch, TEXTS[0])
    frame = encryption.encrypt(b"amount", Key(SECRETS[0]))
    for place in range(len(encryption.MAGIC), len(frame)):
        for bit in range(8):
            flipped = bytearray(frame)
            flipped[place] ^= 1 << bit
            with pytest.raises(Damaged):
                encryption.decrypt(bytes(flipped), "it")
    for length in range(len(encryption.MAGIC), len(frame)):
        with pytest.raises(Damaged):
            encryption.decrypt(frame[:length], "it")


def test_another_key_or_none_is_said_with_ids_and_no_key(monkeypatch):
    frame, (mine, other) = encryption.encrypt(b"x", Key(SECRETS[0])), (Key(s).id for s in SECRETS)
    for current, words in ((TEXTS[1], f"{mine}.*the key that is set has the id {other}"),
                           ("", f"{mine}, and no key is set: put it into {encryption.KEY}")):  # fmt: skip
        set_keys(monkeypatch, current)
        with pytest.raises(EncryptionError, match=words) as said:
            encryption.decrypt(frame, "it")
        assert not any(text in str(said.value) for text in TEXTS)
    set_keys(monkeypatch, TEXTS[1], TEXTS[0])
    assert encryption.decrypt(frame, "it") == b"x"


def test_keys_are_32_bytes_and_what_is_none_is_not_quoted(monkeypatch):
    set_keys(monkeypatch)
    assert encryption.current() is None and encryption.known() == {}
    urlsafe = base64.urlsafe_b64encode(b"\xff" * 32).decode()
    set_keys(monkeypatch, urlsafe)
    assert encryption.current() == Key(b"\xff" * 32)
    for wrong in ("hunter2hunter2", base64.b64encode(b"short").decode(), TEXTS[0][:-4], "ä" * 44):
        set_keys(monkeypatch, wrong)
        with pytest.raises(EncryptionError, match="32 random bytes") as said:
            encryption.current()
        assert wrong not in str(said.value)
        set_keys(monkeypatch, TEXTS[0], wrong)
        with pytest.raises(EncryptionError, match=encryption.OLD_KEYS):
            encryption.known()
    assert "\\x01" not in repr(Key(SECRETS[0])) and TEXTS[0] not in repr(Key(SECRETS[0]))


def test_each_purpose_has_its_key_by_hkdf_expand():
    for purpose in (encryption.DUCKDB, encryption.PARQUET, encryption.LANDING):
        expected = HKDFExpand(hashes.SHA256(), 32, purpose.encode()).derive(SECRETS[0])
        assert Key(SECRETS[0]).derive(purpose) == expected


def test_the_key_of_a_connection_is_not_missed_silently_without_airflow(monkeypatch):
    set_keys(monkeypatch)
    monkeypatch.setenv(encryption.CONNECTION, "books_key")
    with pytest.raises(EncryptionError, match=f"'books_key'.*{encryption.KEY}"):
        encryption._without_airflow(None)
    assert encryption._without_airflow(TEXTS[0]) == TEXTS[0]


def test_a_folder_that_has_been_encrypted_takes_no_plain_text(monkeypatch, tmp_path):
    set_keys(monkeypatch)
    assert encryption.for_writing(tmp_path) is None and not list(tmp_path.iterdir())
    set_keys(monkeypatch, TEXTS[0])
    assert encryption.for_writing(tmp_path) == Key(SECRETS[0])
    for current, old in (("", ()), (TEXTS[1], ()), ("", (TEXTS[0],))):
        set_keys(monkeypatch, current, *old)
        with pytest.raises(EncryptionError, match="Nothing was changed|encrypt --off"):
            encryption.for_writing(tmp_path)
    set_keys(monkeypatch, TEXTS[1], TEXTS[0])
    assert encryption.for_writing(tmp_path) == Key(SECRETS[1])
    assert encryption.noted(tmp_path) == Key(SECRETS[1]).id
    (tmp_path / encryption.NOTE).write_text("{}")
    with pytest.raises(EncryptionError, match="does not say whether"):
        encryption.for_writing(tmp_path)
