"""The registry of pages: one way to build each."""

from pathlib import Path

import pytest
from synthetic_results import lr, put, result, search, ticket

from studies import pages
from studies.curves import SHIPPED
from studies.figures import PAGES, build
from studies.page import text, write
from studies.pages import redraw


@pytest.mark.parametrize("name", PAGES)
def test_every_page_can_be_written_from_nothing_and_from_bare_records(tmp_path, name):
    old = [put(tmp_path, made)
           for made in (lr("l"), search("s"), ticket("t", searched="s"), result("u"))]
    for made in old:
        for field in ("data", "sparsity", "inference_bytes", "commit"):
            made.pop(field, None)
    for results in ([], old):
        page = build(name, results, tmp_path, "movielens", "fm")
        assert page.name == name
        assert results or page.figure is None
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


def test_the_shipped_folder_is_known_by_any_of_its_names(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "every", lambda *given: [])
    monkeypatch.setattr(pages, "existing", lambda *given: [])
    monkeypatch.setattr(pages, "results_in", lambda folder: [])
    monkeypatch.chdir(SHIPPED.parent)
    for folder in (SHIPPED, Path(SHIPPED.name)):
        assert redraw(folder, to=tmp_path) == [f"written: {tmp_path / 'scale_fm.png'}"]
