"""Where a raw file is looked for, what tells it from another, and how it becomes blocks of whole
lines."""

import gzip
import io
import lzma
import os
import tarfile
import zipfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import avazu, criteo
from data.raw import source
from data.raw.layout import HEX, LABEL, Column, Layout
from data.raw.source import RawFile, find_file, fingerprint

TOY = Layout("toy", ",", (Column("y", LABEL), Column("c", HEX)), False, ("toy.txt", "toy"),
             "https://example.org/toy")
HEADED = replace(TOY, has_header=True)
TEXT = b"".join(b"%d,%08x\n" % (i % 2, i * 2_654_435_761 % 2**32) for i in range(4000))


def read(path, layout=TOY, block_bytes=1000):
    return b"".join(block.tobytes() for block in RawFile(path, layout, block_bytes).blocks())


def write(folder, content, name="toy.txt"):
    (folder / name).write_bytes(content)
    return folder / name


def zipped(members, compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in members.items():
            made.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


def refuse(path, words, layout=TOY, error=ValueError):
    """Reading is an error that names the file and says all these words."""
    with pytest.raises(error) as caught:
        read(path, layout)
    missing = [word for word in (str(path), *words) if word not in str(caught.value)]
    assert missing == [], str(caught.value)


# where the file is


@pytest.mark.parametrize("name", ["toy.txt", "toy", "toy.txt.gz", "toy.gz", "toy.txt.zip",
                                  "toy.zip"])
def test_the_folder_may_hold_the_file_under_each_of_its_names(tmp_path, name):
    path = write(tmp_path, TEXT, name)
    assert find_file(TOY, str(tmp_path)) == path


def test_the_plain_file_of_the_usual_name_comes_first(tmp_path):
    names = ["toy.txt", "toy", "toy.txt.gz", "toy.gz", "toy.txt.zip"]
    for name in names:
        write(tmp_path, TEXT, name)
    for name in names:
        assert find_file(TOY, str(tmp_path)).name == name
        (tmp_path / name).unlink()


def test_data_may_name_the_file_itself_whatever_it_is_called(tmp_path):
    path = write(tmp_path, TEXT, "day_0.tsv")
    assert find_file(TOY, str(path)) == path


def test_a_folder_named_like_the_file_is_not_taken_for_it(tmp_path):
    (tmp_path / "toy.txt").mkdir()
    path = write(tmp_path, TEXT, "toy")
    assert find_file(TOY, str(tmp_path)) == path


def test_data_comes_before_the_environment_and_that_before_the_data_folder(tmp_path, monkeypatch):
    for place in ("given", "pep/toy", "code/toy"):
        (tmp_path / place).mkdir(parents=True)
        write(tmp_path / place, TEXT)
    monkeypatch.setattr(source, "__file__", str(tmp_path / "code" / "raw" / "source.py"))
    monkeypatch.setenv("PEP_DATA", str(tmp_path / "pep"))
    assert find_file(TOY, str(tmp_path / "given")) == tmp_path / "given" / "toy.txt"
    assert find_file(TOY, None) == tmp_path / "pep" / "toy" / "toy.txt"
    monkeypatch.delenv("PEP_DATA")
    assert find_file(TOY, None) == tmp_path / "code" / "toy" / "toy.txt"


@pytest.mark.parametrize("origin", ["--data", "PEP_DATA", "the data folder"])
def test_nothing_there_is_an_error_that_names_the_place_the_names_the_url_and_the_planted_command(
        tmp_path, monkeypatch, origin):
    monkeypatch.setattr(source, "__file__", str(tmp_path / "raw" / "source.py"))
    monkeypatch.delenv("PEP_DATA", raising=False)
    if origin == "PEP_DATA":
        monkeypatch.setenv("PEP_DATA", str(tmp_path))
    folder = tmp_path / "criteo"
    folder.mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        find_file(criteo.LAYOUT, str(folder) if origin == "--data" else None)
    assert str(caught.value) == (
        f"{origin}: {folder} has none of train.txt, train.csv, train, dac.tar.gz (each also with "
        ".gz, .zip, .xz, .tar, .tar.gz, .tgz behind its name). Get the file from "
        "https://www.kaggle.com/c/criteo-display-ad-challenge, or make one with "
        f"`python -m data.synthetic.planted criteo --rows 1000000 --out {folder / 'train.txt'}`")


# what tells a file from another


def test_a_fingerprint_follows_size_head_and_tail_each_for_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "ENDS", 16)
    prints = [fingerprint(write(tmp_path, content)) for content in (
        b"a" * 100, b"a" * 101, b"b" + b"a" * 99, b"a" * 99 + b"b", b"a" * 15 + b"b" + b"a" * 84,
        b"a" * 84 + b"b" + b"a" * 15)]
    assert len({str(found) for found in prints}) == len(prints)
    assert fingerprint(write(tmp_path, b"a" * 100)) == prints[0]


def test_a_fingerprint_does_not_depend_on_name_and_time(tmp_path):
    one, other = write(tmp_path, TEXT), write(tmp_path, TEXT, "other")
    os.utime(other, (1, 1))
    assert fingerprint(one) == fingerprint(other)


# blocks of whole lines


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), min_size=1,
                max_size=20), st.integers(1, 60), st.booleans())
def test_blocks_are_whole_lines_and_together_the_file(tmp_path_factory, lines, block_bytes, ended):
    text = b"0," + b"\n".join(lines) + b"\n" * ended
    raw = RawFile(write(tmp_path_factory.getbasetemp(), text, "blocks"), TOY, block_bytes)
    blocks = [block.tobytes() for block in raw.blocks()]
    assert all(block.endswith(b"\n") for block in blocks)
    assert b"".join(blocks) == (text if text.endswith(b"\n") else text + b"\n")
    assert raw.cut_off == (b"" if text.endswith(b"\n") else text.split(b"\n")[-1])
    assert raw.position == raw.size == len(text)


def test_a_block_is_about_as_large_as_asked(tmp_path):
    blocks = [len(block) for block in RawFile(write(tmp_path, TEXT), TOY, 1000).blocks()]
    assert all(980 < size < 1020 for size in blocks[:-1])


@pytest.mark.parametrize("block_bytes", [1, 4, 5, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_header_is_left_out_and_nothing_else(tmp_path, block_bytes, end):
    path = write(tmp_path, b"y,c" + end + b"0,\ny,c\n1,\n")
    assert read(path, HEADED, block_bytes) == b"0,\ny,c\n1,\n"


@pytest.mark.parametrize("content", [b"y,c", b"y,c\n", b"y,c\r\n"])
def test_a_header_alone_has_no_lines(tmp_path, content):
    assert list(RawFile(write(tmp_path, content), HEADED).blocks()) == []


def tarred(members, mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as made:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return file.getvalue()


DAC = {"dac/readme.txt": b"hello\n" * 99, "dac/toy.txt": TEXT, "dac/test.txt": b"0" * 5000}
PACKED = {
    "xz": lzma.compress(TEXT), "tar": tarred(DAC), "tar of one": tarred({"toy.txt": TEXT}),
    "tar.gz": tarred(DAC, "w:gz"), "tar.xz": tarred(DAC, "w:xz"),
    "tar of a gzip": tarred({"toy.txt.gz": gzip.compress(TEXT), "readme.txt": b"hello"}),
    "plain": TEXT, "gzip": gzip.compress(TEXT), "gzip in parts": gzip.compress(TEXT[:999])
    + gzip.compress(TEXT[999:]),
    "gzip of a gzip": gzip.compress(gzip.compress(TEXT)),
    "gzip of a tar.gz": gzip.compress(tarred(DAC, "w:gz")),
    "zip": zipped({"toy.txt": TEXT}), "stored zip": zipped({"toy.txt": TEXT}, zipfile.ZIP_STORED),
    "zip of a gzip": zipped({"toy.gz": gzip.compress(TEXT)}, zipfile.ZIP_STORED),
    "zip of folders and others": zipped({"a/readme.txt": b"hello", "a/b/toy.txt": TEXT,
                                         "__MACOSX/._toy.txt": b"x"}),
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("block_bytes", [777, 1 << 25])
def test_packed_files_hold_the_same_lines_whatever_they_are_called(tmp_path, packing, block_bytes):
    raw = RawFile(write(tmp_path, PACKED[packing]), TOY, block_bytes)
    positions = []
    text = b"".join((positions.append(raw.position), block.tobytes())[1] for block in raw.blocks())
    assert text == TEXT
    assert positions == sorted(positions)
    assert positions[0] > 0
    assert 0.9 * raw.size < raw.position <= raw.size


# files that cannot be used


@pytest.mark.parametrize("layout", [TOY, HEADED], ids=["no header", "header"])
@pytest.mark.parametrize("content", [b"", b"  ", gzip.compress(b""), zipped({"toy.txt": b""})],
                         ids=["no bytes", "spaces", "gzip", "zip"])
def test_an_empty_file_is_an_error(tmp_path, layout, content):
    refuse(write(tmp_path, content), ["is empty", "fetch it again"], layout)


@pytest.mark.parametrize("line", [b"label,C1", b"y,c", b"Id"])
def test_a_header_where_none_belongs_is_an_error_that_shows_it(tmp_path, line):
    refuse(write(tmp_path, line + b"\n" + TEXT),
           [f"the first line looks like a header ('{line.decode()}')",
            "toy files have none, remove it"])


def test_a_header_in_a_criteo_file_is_an_error(tmp_path):
    path = write(tmp_path, b"label\t" + b"\t".join(b"I%d" % i for i in range(1, 14)) + b"\n0"
                 + b"\t" * 39 + b"\n")
    refuse(path, ["looks like a header ('label\\tI1\\tI2", "criteo files have none, remove it"],
           criteo.LAYOUT)


AVAZU_ROW = ("10000169349117863715,0,14102100,1005,0" + ",a99f214a" * 9
             + ",1,0,15704,320,50,1722,0,35,-1,79")


@pytest.mark.parametrize("first", [
    AVAZU_ROW.upper(), avazu.LAYOUT.header.replace("click,", ""), "", avazu.LAYOUT.header.upper(),
    avazu.LAYOUT.header + ",C22", avazu.LAYOUT.header + "\r"],
    ids=["another row", "the test file's", "blank", "capitals", "one more", "two returns"])
def test_another_header_than_avazus_is_an_error_that_shows_both(tmp_path, first):
    path = write(tmp_path, f"{first}\r\n{AVAZU_ROW}\r\n".encode())
    refuse(path, [f"the first line must be the header '{avazu.LAYOUT.header}'",
                  f"got {first[:80]!r}"], avazu.LAYOUT)


@pytest.mark.parametrize("layout", [TOY, HEADED], ids=["no header", "header"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_an_error_that_says_how_to_turn_it_into_plain_text(tmp_path, layout, encoding):
    text = ("y,c\n" * layout.has_header + TEXT.decode()).encode(encoding)
    refuse(write(tmp_path, text), ["is UTF-16 text", "iconv -f UTF-16"], layout)


@pytest.mark.parametrize("block_bytes", [1, 2, 1000])
@pytest.mark.parametrize("layout", [TOY, HEADED], ids=["no header", "header"])
def test_a_byte_order_mark_is_passed_over(tmp_path, layout, block_bytes):
    text = ("y,c\n" * layout.has_header + TEXT.decode()).encode("utf-8-sig")
    assert read(write(tmp_path, text), layout, block_bytes) == TEXT


@pytest.mark.parametrize("packing", [
    "gzip", "zip", "stored zip", "zip of a gzip", "xz", "tar.gz", "tar.xz"])
@pytest.mark.parametrize("left", [0.01, 0.5, 0.99])
def test_a_packed_file_that_is_cut_short_is_an_error(tmp_path, packing, left):
    whole = PACKED[packing]
    refuse(write(tmp_path, whole[:int(left * len(whole))]),
           ["is damaged or cut short", "fetch it again"])


def test_a_gzip_that_was_cut_short_inside_a_whole_zip_is_an_error(tmp_path):
    half = gzip.compress(TEXT)[:5000]
    refuse(write(tmp_path, zipped({"toy.txt.gz": half})),
           ["is damaged or cut short", "fetch it again"])


@pytest.mark.parametrize("left", [1000, 3000, 20_000])
def test_a_tar_that_is_cut_short_within_its_member_is_an_error(tmp_path, left):
    refuse(write(tmp_path, PACKED["tar"][:left]), ["is damaged or cut short", "fetch it again"])


@pytest.mark.parametrize("packing", ["gzip", "zip", "stored zip", "zip of a gzip", "xz", "tar.gz"])
@pytest.mark.parametrize("place", [0.1, 0.9])
def test_a_packed_file_with_wrong_bytes_is_an_error(tmp_path, packing, place):
    content = bytearray(PACKED[packing])
    at = int(place * len(content))
    content[at:at + 40] = b"\xff" * 40
    refuse(write(tmp_path, bytes(content)), ["is damaged or cut short", "fetch it again"])


def test_a_gzip_with_a_wrong_checksum_is_an_error(tmp_path):
    content = PACKED["gzip"]
    refuse(write(tmp_path, content[:-8] + b"wron" + content[-4:]),
           ["is damaged or cut short", "fetch it again"])


def in_directory(content, offset, value):
    """A zip file with one field of its (one) member's directory entry changed."""
    at = content.rindex(b"PK\x01\x02") + offset
    return content[:at] + bytes([value]) + content[at + 1:]


@pytest.mark.parametrize(("offset", "value", "why"), [
    (10, 9, "not supported"), (8, 1, "encrypted"), (42, 1, "Bad magic number")],
    ids=["packed by Windows with Deflate64", "encrypted", "another place"])
def test_a_zip_whose_member_cannot_be_opened_is_an_error_that_says_why(tmp_path, offset, value,
                                                                       why):
    content = in_directory(zipped({"toy.txt": TEXT}), offset, value)
    refuse(write(tmp_path, content), [": toy.txt cannot be unpacked (", why, "unpack it by hand"])


@pytest.mark.parametrize(("members", "shown"), [
    ({"readme.txt": b"a", "test.txt": b"b"}, "it holds readme.txt, test.txt"),
    ({"atoy.txt": TEXT}, "it holds atoy.txt"),
    ({"toy.txt": TEXT, "toy.gz": b""}, "it holds toy.txt, toy.gz"),
    ({f"{i}.txt": b"" for i in range(9)}, "it holds 0.txt, 1.txt, 2.txt, 3.txt, 4.txt")],
    ids=["no such member", "a longer name", "two", "many"])
def test_a_zip_without_exactly_one_suitable_member_is_an_error_that_shows_what_it_holds(
    tmp_path, members, shown
):
    path = write(tmp_path, zipped(members))
    with pytest.raises(ValueError, match="must hold") as caught:
        read(path)
    words = "must hold exactly one of toy.txt, toy.txt.gz, toy, toy.gz"
    assert str(caught.value) == f"{path} {words}; {shown}"
    for mode in ("w", "w:gz", "w:xz"):
        refuse(write(tmp_path, tarred(members, mode)), [words, shown])


FOREIGN = {"Zstandard": (b"\x28\xb5\x2f\xfd", "zstd -d"), "bzip2": (b"BZh9", "bzip2 -d"),
           "7-Zip": (b"7z\xbc\xaf\x27\x1c", "7z x"), "RAR": (b"Rar!\x1a", "unrar x"),
           "Parquet": (b"PAR1", "pandas.read_parquet(FILE)"),
           "Feather": (b"ARROW1", "read_feather"),
           "ORC": (b"ORC", "read_orc"), "HDF5": (b"\x89HDF", "read_hdf"),
           "Excel": (b"\xd0\xcf\x11\xe0", "as published"),
           "Git LFS": (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
           "web page": (b"\n<!DOCTYPE html>\n<html>", "log in"),
           "NUL bytes": (b"\0" * 100_000, "fetch it again")}


def zipped_toy(content):
    return zipped({"toy.txt": content})


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zipped_toy])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_an_error_that_names_it_and_says_what_to_do(tmp_path, name, pack):
    head, words = FOREIGN[name]
    path = write(tmp_path, pack(head + bytes(range(256)) * 300))
    refuse(path, [name, words])
    if name != "NUL bytes":
        with pytest.raises(ValueError, match="toy") as caught:
            read(path)
        assert "fetch it again" not in str(caught.value)


def test_an_excel_workbook_is_an_error_that_names_it(tmp_path):
    path = write(tmp_path, zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b"<workbook/>"}))
    refuse(path, ["is an Excel workbook", "As published"])


def test_a_zip_inside_of_something_else_is_an_error_that_says_so(tmp_path):
    refuse(write(tmp_path, gzip.compress(zipped_toy(TEXT))), ["holds a zip archive inside"])


def test_a_python_without_xz_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "lzma", None)
    refuse(write(tmp_path, PACKED["xz"]), ["is packed by xz", "xz -d"])


@pytest.mark.parametrize("name", ["toy.txt.xz", "toy.tar.gz", "toy.tgz", "toy.tar", "pack.tar",
                                  "toy.txt.zst", "toy.parquet"])
def test_a_folder_with_a_file_that_is_packed_or_of_another_kind_is_found(tmp_path, name):
    layout = replace(TOY, archives=("pack.tar",))
    assert find_file(layout, str(write(tmp_path, TEXT, name).parent)) == tmp_path / name


def test_criteos_and_avazus_archives_are_found_in_their_folders(tmp_path):
    for layout, name in ((criteo.LAYOUT, "dac.tar.gz"), (avazu.LAYOUT, "avazu-ctr-prediction.zip")):
        (tmp_path / layout.name).mkdir()
        write(tmp_path / layout.name, b"x", name)
        assert find_file(layout, str(tmp_path / layout.name)).name == name


@pytest.mark.parametrize("block_bytes", [1, 50, 1000])
def test_a_headerless_avazu_file_is_taken_from_its_first_line_on_and_said(
        tmp_path, caplog, block_bytes):
    text = f"{AVAZU_ROW}\n{AVAZU_ROW.replace(',0,', ',1,', 1)}\n".encode()
    path = write(tmp_path, text)
    raw = RawFile(path, avazu.LAYOUT, block_bytes)
    assert b"".join(block.tobytes() for block in raw.blocks()) == text
    assert raw.first_line == 1
    assert f"{path} has no header; its columns are taken to be those of avazu's file" in caplog.text


def test_a_separator_behind_the_header_changes_nothing(tmp_path):
    raw = RawFile(write(tmp_path, b"y,c,\r\n0,,\r\n"), HEADED)
    assert b"".join(block.tobytes() for block in raw.blocks()) == b"0,,\r\n"
    assert raw.first_line == 2


def test_a_file_that_grows_while_it_is_read_is_an_error_with_both_sizes(tmp_path):
    path = write(tmp_path, TEXT)
    raw = RawFile(path, TOY, 1000)
    blocks = raw.blocks()
    next(blocks)
    with path.open("ab") as file:
        file.write(b"0,\n")
    with pytest.raises(ValueError, match="changed") as caught:
        list(blocks)
    assert str(caught.value) == (f"{path} changed while it was read ({len(TEXT)} bytes before, "
                                 f"{len(TEXT) + 3} after); wait until it is complete")


def test_a_file_that_is_rewritten_to_the_same_size_while_it_is_read_is_an_error(tmp_path):
    path = write(tmp_path, TEXT)
    os.utime(path, (1, 1))
    blocks = RawFile(path, TOY, 1000).blocks()
    next(blocks)
    path.write_bytes(TEXT)
    with pytest.raises(ValueError, match="changed while it was read"):
        list(blocks)


@pytest.mark.parametrize("before", [b"", b"0,\n" * 999], ids=["none", "after some"])
def test_a_long_file_without_line_ends_is_refused_before_all_of_it_is_read(tmp_path, monkeypatch,
                                                                           before):
    monkeypatch.setattr(source, "LONGEST_LINE", 5000)
    raw = RawFile(write(tmp_path, before + TEXT.replace(b"\n", b"\r")), TOY, 1000)
    with pytest.raises(ValueError, match="has a line") as caught:
        list(raw.blocks())
    assert (str(caught.value)
            == f"{raw.path} has a line of more than 5000 bytes; line ends must be LF or CRLF")
    assert 5000 < raw.position <= len(before) + 6000


def test_a_line_of_the_greatest_length_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "LONGEST_LINE", 5000)
    assert read(write(tmp_path, b"0" * 5000 + b"\n")) == b"0" * 5000 + b"\n"
    refuse(write(tmp_path, b"0" * 5001), ["a line of more than 5000 bytes"])


def test_a_path_that_is_not_there_is_an_error_of_its_own(tmp_path):
    with pytest.raises(FileNotFoundError,
                       match=f"--data: there is no file or folder {tmp_path / 'train.txt'}"):
        find_file(criteo.LAYOUT, str(tmp_path / "train.txt"))


def test_the_real_layouts_name_the_published_files():
    assert (criteo.LAYOUT.file_names[0], avazu.LAYOUT.file_names[0]) == ("train.txt", "train")
    assert (len(criteo.LAYOUT.fields), len(criteo.LAYOUT.dense),
            len(criteo.LAYOUT.columns)) == (39, 13, 40)
    assert (len(avazu.LAYOUT.fields), len(avazu.LAYOUT.dense),
            len(avazu.LAYOUT.columns)) == (22, 0, 24)
    assert avazu.LAYOUT.fields[0] == "hour"
    assert "id" not in avazu.LAYOUT.fields
