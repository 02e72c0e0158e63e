"""Models at the width of a public leaderboard, in the training that validation rows chose, beside
the test AUC that the leaderboard has for them."""

from pathlib import Path

from studies import choice, pooling, recipes
from studies.kinds import Results
from studies.page import OPEN, RUNS, Page, number, runs_of, shown, with_sampling_error
from studies.table import Table, spread
from studies.tuning import describe

NEAR = 0.002  # of AUC: what counts as reached
NAMES = {"deepfm_wide": "DeepFM, MLP 400-400-400", "attention": "AutoInt",
         "autoint": "AutoInt and MLP", "dlrm": "DLRM"}
HEAD = ("model", "parameters", "bytes", "test AUC", "test log-loss", "seeds", "leaderboard",
        "settings")


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set with all its models; `model` is not looked at.

    Args:
        results: of any data sets and models.
        out: the folder that holds tuned/, with the settings that were chosen.
    """
    page = Page("leaderboard", dataset, None, f"Models on {shown(dataset)} at the leaderboard's "
                                              f"width")
    if not recipes.published(dataset):
        page.missing.append(f"a leaderboard of {shown(dataset)}: none is known")
        return page
    found = choice.of(page, results, *{recipe.model for recipe
                                       in recipes.RECIPES[dataset].values()}, tuned=True)
    by_id, lines = pooling.by_run(found), []
    for name, recipe in recipes.RECIPES[dataset].items():
        words = NAMES.get(name, shown(name))
        trial = recipes.chosen(out, dataset, name)
        own = by_id.get(trial["run_id"]) if trial else None
        if trial is None or own is None:
            page.missing.append(f"{words}: " + ("its settings are not chosen" if trial is None else
                                                f"the chosen run {trial['run_id']} is not here"))
            continue
        runs = pooling.one_a_seed([run for run in found
                                   if pooling.key(run, by_id) == pooling.key(own, by_id)])
        choice.list_absent(page, words, runs)
        page.behind += runs
        auc = number(f"test AUC, {words}", runs, lambda run: run["test_auc"])
        auc = with_sampling_error(auc._replace(paper=recipe.published), runs[0].get("data"))
        if abs(auc.difference or 0.0) > NEAR:
            auc = auc._replace(why=OPEN)
        page.numbers.append(auc)
        lines.append((words, f"{runs[0]['num_embedding_params']:,}",
                      f"{runs[0]['inference_bytes']:,}",
                      spread([run["test_auc"] for run in runs]),
                      spread([run["test_logloss"] for run in runs]), str(len(runs)),
                      f"{recipe.published:.4f}", describe(trial["settings"])))
        page.rows += [{"model": words, "seed": run["seed"],
                       "parameters": run["num_embedding_params"],
                       "bytes": run["inference_bytes"], "test_auc": run["test_auc"],
                       "test_logloss": run["test_logloss"], "leaderboard_auc": recipe.published,
                       RUNS: runs_of([run])} for run in runs]
    page.notes.append("The leaderboard is BARS, Frappe_x1 (one seed each), on the same split. Ours "
                      "is the test AUC of the epoch that validation chose, with the settings that "
                      f"validation chose of {recipes.TRIALS} trials. Parameters are those of the "
                      "embedding, without the first-order weights.")
    page.tables.append(Table(HEAD, lines))
    return page
