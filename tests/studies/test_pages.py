"""The registry of pages: one way to build each."""

import numpy as np
import pytest
from made_results import WIDTH, lr, put, put_search, result, search, ticket

from studies.page import text, write
from studies.pages import PAGES, SYNTHETIC, every, redraw


@pytest.mark.parametrize("name", PAGES)
def test_every_page_can_be_written_from_nothing_and_from_bare_records(tmp_path, name):
    old = [put(tmp_path, made)
           for made in (lr("l"), search("s"), ticket("t", searched="s"), result("u"))]
    for made in old:
        for field in ("data", "sparsity", "inference_bytes", "commit"):
            made.pop(field, None)
    for results in ([], old):
        page = PAGES[name](results, tmp_path, "movielens", "fm")
        assert page.name == name
        assert all(path.exists() for path in write(page, tmp_path / "pages"))
        assert "Missing:" in text(page)


def test_redraw_writes_the_pages_that_are_there_and_new_ones_when_asked(tmp_path):
    put(tmp_path, lr("l"))
    for run in (result("u"), result("v", params=400, own={"latent_dim": 4})):
        put(tmp_path, run)
    assert redraw(tmp_path) == []
    assert redraw(tmp_path, ["table3"], new=True) == [
        f"written: {tmp_path / 'figures' / 'table3_movielens.md'}"]
    assert len(redraw(tmp_path)) == 1


def test_a_page_whose_files_are_gone_is_left_as_it_is(tmp_path):
    put_search(tmp_path, search("s1"), np.arange(100), np.ones((100, WIDTH)))
    redraw(tmp_path, ["fig6"], new=True)
    page = tmp_path / "figures" / "fig6_movielens_fm.md"
    before = page.read_text()
    (tmp_path / "runs" / "s1" / "popularity.npy").unlink()
    assert redraw(tmp_path)[0].startswith("left as it is: fig6_movielens_fm; not here: s1/")
    assert page.read_text() == before


def test_runs_from_a_synthetic_raw_file_have_pages_of_their_own(tmp_path):
    put(tmp_path, result("r", dataset="criteo"))
    put(tmp_path, result("s", dataset="criteo", manifest=next(iter(SYNTHETIC))))
    titles = [page.title for page in every(tmp_path, ["table3"])]
    assert [title.startswith("SYNTHETIC DATA") for title in titles] == [False, True]
