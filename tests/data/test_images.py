"""The image sets: digits, the MNIST family and CIFAR-10. Real files are tried where MINIGEN_DATA names them."""

import gzip
import hashlib
import io
import os
import tarfile

import numpy as np
import pytest

from minigen.data import DataError, cifar, load, mnist

REAL = os.environ.get("MINIGEN_DATA")


def needs(name: str):
    """Skip unless the real files of the data set `name` are there."""
    there = bool(REAL) and os.path.isdir(os.path.join(REAL, name))
    return pytest.mark.skipif(not there, reason=f"needs real files: set MINIGEN_DATA to a folder with {name}/")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An own MINIGEN_DATA; mirrors are taken away, so that nothing can be downloaded."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path))
    monkeypatch.setattr(cifar, "MIRRORS", ())
    for name, family in mnist.FAMILIES.items():
        bare = mnist.Family(family.description, family.licence, (), family.archives)
        monkeypatch.setitem(mnist.FAMILIES, name, bare)
    for name in (*mnist.FAMILIES, "cifar10"):
        (tmp_path / name).mkdir()
    return tmp_path


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


# ---- digits ----


def test_digits():
    train, test = load("digits"), load("digits", "test")
    assert train.x.shape == (1437, 8, 8, 1)
    assert test.x.shape == (360, 8, 8, 1)
    np.testing.assert_array_equal(np.bincount(test.y), np.full(10, 36))
    both = np.concatenate([train.x, test.x]).reshape(1797, 64)
    from sklearn.datasets import load_digits

    original = load_digits()
    assert {tuple(row) for row in both * 16} == {tuple(row) for row in original.data}  # none twice, none lost
    label = {tuple(row): digit for row, digit in zip(original.data, original.target, strict=True)}
    assert [label[tuple(row)] for row in train.x.reshape(-1, 64) * 16] == train.y.tolist()


def test_digits_split_is_fixed():
    """Results on digits can be compared between versions as long as these digests stay."""
    assert load("digits").sha256 == "d4eb2ea8fbe4fd2860ef260e0d36fca2b586275fa2411716327691b761905d72"
    assert load("digits", "test").sha256 == "63f0dd9eba10e3c063dd8b3e43a7d41052aa0abdc3e0e0aaa58e05e65af6b76a"


# ---- MNIST and its relatives ----


@needs("mnist")
@pytest.mark.parametrize(
    ("split", "n", "mean", "std"), [("train", 60_000, 0.1307, 0.3081), ("test", 10_000, 0.1325, 0.3105)]
)
def test_real_mnist(split, n, mean, std):
    data = load("mnist", split)
    assert data.x.shape == (n, 28, 28, 1)
    assert data.x.mean(dtype=np.float64) == pytest.approx(mean, abs=5e-5)
    assert data.x.std(dtype=np.float64) == pytest.approx(std, abs=5e-5)
    assert np.bincount(data.y)[1] == {60_000: 6742, 10_000: 1135}[n]
    np.testing.assert_array_equal(np.rint(data.x * 255) / np.float32(255), data.x)


@pytest.fixture
def fashion(folder):
    """write(images, labels): a fashion-mnist test split made of these arrays; good ones where None is given."""
    images = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), dtype=np.uint8)
    labels = (np.arange(10_000) % 10).astype(np.uint8)

    def write(images=images, labels=labels):
        (folder / "fashion-mnist" / "t10k-images-idx3-ubyte").write_bytes(idx(images))
        (folder / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
        return images, labels

    return write


def test_users_files(fashion, folder):
    images, labels = fashion()
    data = load("fashion-mnist", "test")
    assert data.x.dtype == np.float32
    np.testing.assert_array_equal(data.x[..., 0], images / np.float32(255))
    np.testing.assert_array_equal(data.y, labels)
    assert data.y.dtype == np.int64
    assert data.source == f"{folder / 'fashion-mnist'} (no checksum of the contents is known)"
    assert mnist.where("fashion-mnist", folder / "cache") is None  # the training files are not there


def test_half_the_side(fashion):
    """Each pixel is the mean of a 2 x 2 block, exactly: a sum of four grey levels over 1020."""
    fashion()
    whole, half = load("fashion-mnist", "test").x, mnist.load_half("fashion-mnist", "test")
    assert half.x.shape == (10_000, 14, 14, 1)
    assert half.x.dtype == np.float32
    mean = (whole[:, ::2, ::2] + whole[:, 1::2, ::2] + whole[:, ::2, 1::2] + whole[:, 1::2, 1::2]) / 4
    np.testing.assert_allclose(half.x, mean, atol=1e-6)
    np.testing.assert_array_equal(half.x, (np.rint(half.x * 1020) / 1020).astype(np.float32))
    assert half.levels == 1021


def test_users_files_that_are_wrong(fashion):
    labels = (np.arange(10_000) % 10).astype(np.uint8)
    fashion(labels=np.where(np.arange(10_000) == 77, 10, labels).astype(np.uint8))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz: label 10, expected 0 to 9"):
        load("fashion-mnist", "test")
    fashion(labels=labels[:-1])
    with pytest.raises(DataError, match=r"declares shape \(9999,\), expected \(10000,\)"):
        load("fashion-mnist", "test")
    fashion(images=np.zeros((10_000, 28, 27), np.uint8))
    with pytest.raises(DataError, match=r"declares shape \(10000, 28, 27\), expected \(10000, 28, 28\)"):
        load("fashion-mnist", "test")


def test_users_mnist_has_to_be_mnist(folder):
    """Contents that are well-formed and yet not MNIST's."""
    (folder / "mnist" / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((10_000, 28, 28), np.uint8)))
    with pytest.raises(DataError, match=r"SHA-256 of the contents is .*, expected 0fa7898d"):
        load("mnist", "test")


def test_damaged_cache(fashion, folder, monkeypatch, tmp_path):
    """What was downloaded has to be the published file, byte for byte, also where its contents' checksum is unknown."""
    fashion()
    monkeypatch.setenv("MINIGEN_DATA", "")
    (folder / "fashion-mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((1, 1), np.uint8))))
    with pytest.raises(DataError, match=r"SHA-256 of the file is .*, expected 346e55b9") as error:
        load("fashion-mnist", "test", cache=folder)
    assert "after deleting this one" in error.value.remedy


def test_nowhere_to_be_had(folder):
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: not on this machine") as error:
        load("kmnist", cache=folder / "cache")
    assert "put the file into a folder kmnist and set MINIGEN_DATA" in error.value.remedy


# ---- CIFAR-10 ----


def records(n: int, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).integers(0, 256, (n, 3073), dtype=np.uint8)
    made[:, 0] %= 10
    return made


@needs("cifar10")
def test_real_cifar():
    data = load("cifar10", "test")
    assert data.x.shape[1:] == (32, 32, 3)
    assert set(data.y.tolist()) == set(range(10))
    neighbours = np.corrcoef(data.x[:500, :, 1:].ravel(), data.x[:500, :, :-1].ravel())[0, 1]
    assert neighbours > 0.9  # rows, columns and channels are where they belong, or photographs would not be smooth


def test_cifar_layout(folder):
    first, third = records(4), records(3, seed=1)
    (folder / "cifar10" / "data_batch_1.bin").write_bytes(first.tobytes())
    (folder / "cifar10" / "data_batch_3.bin.gz").write_bytes(gzip.compress(third.tobytes()))
    data = load("cifar10", cache=folder / "cache")
    assert data.x.shape == (7, 32, 32, 3)
    assert "2 of 5 train batches" in data.description
    np.testing.assert_array_equal(data.y, np.concatenate([first, third])[:, 0])
    for n, row, column, channel in [(0, 0, 0, 0), (1, 5, 30, 2), (6, 31, 0, 1)]:
        byte = np.concatenate([first, third])[n, 1 + 1024 * channel + 32 * row + column]
        assert data.x[n, row, column, channel] == byte / np.float32(255)
    assert cifar.where(folder / "cache") is None  # there is no test batch
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: not on this machine"):
        load("cifar10", "test", cache=folder / "cache")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes of contents"),
        (records(2).tobytes()[:-1], "6,145 bytes of contents, which is not a positive multiple"),
        (records(5).tobytes(), "trailing data after the declared contents"),
        (records(100).tobytes(), "307,300 bytes, more than the 77,828 expected at most"),
        (gzip.compress(bytes(50 << 20)), "trailing data after the declared contents"),
        (gzip.compress(records(2).tobytes())[:-1], "the gzip data end early"),
        (b"\x0a" + records(1).tobytes()[1:], "label 10, expected 0 to 9"),
    ],
    ids=["empty", "cut", "one record too many", "far too big", "bomb", "cut gzip", "label"],
)
def test_bad_batches(tmp_path, data, message):
    (tmp_path / "batch").write_bytes(data)
    with pytest.raises(DataError, match=message):
        cifar.read_batch(tmp_path / "batch", batch=4)


def archive(path, members: dict[str, bytes]) -> str:
    """Write a .tar.gz of these files and return its SHA-256."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_cifar_archive(tmp_path):
    path, a, b = tmp_path / "a.tar.gz", records(4), records(4, seed=1)
    content = {
        "../../evil": b"x",
        "cifar-10-batches-bin/test_batch.bin": b.tobytes(),
        "cifar-10-batches-bin/data_batch_1.bin": a.tobytes(),
    }
    digest = archive(path, content)
    read = cifar.read_archive(path, ("data_batch_1.bin", "test_batch.bin"), digest, batch=4)
    np.testing.assert_array_equal(read[0], a)
    np.testing.assert_array_equal(read[1], b)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]

    with pytest.raises(DataError, match=r"SHA-256 of the file is"):
        cifar.read_archive(path, ("test_batch.bin",), batch=4)
    with pytest.raises(DataError, match=r"the archive has no cifar-10-batches-bin/data_batch_2.bin"):
        cifar.read_archive(path, ("data_batch_2.bin",), digest, batch=4)
    with pytest.raises(DataError, match=r"test_batch.bin has 12,292 bytes, expected a file of 15,365"):
        cifar.read_archive(path, ("test_batch.bin",), digest, batch=5)


@pytest.mark.parametrize("damage", [lambda data: data[:-2000], lambda data: data[5:], lambda data: b""])
def test_damaged_archive_of_the_right_checksum(tmp_path, damage):
    path = tmp_path / "a.tar.gz"
    archive(path, {"cifar-10-batches-bin/test_batch.bin": records(4).tobytes()})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"damaged archive|truncated"):
        cifar.read_archive(path, ("test_batch.bin",), hashlib.sha256(path.read_bytes()).hexdigest(), batch=4)
