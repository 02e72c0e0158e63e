import json

import pytest

from engine import record, run
from engine.run import Run, RunContext
from engine.settings import (
    TrainSettings,
    described,
    identity,
    known_settings,
    parse,
    parse_assignment,
    require_used,
)
from models.build import EMBEDDINGS
from studies.published import PRESETS
from utils.recorded import translate


@pytest.mark.parametrize(("key", "nearest"), [
    ("laten_dim", "latent_dim"), ("treshold_type", "threshold_type"), ("candidatep", "candidate_p"),
    ("reinit", "re_init"), ("evalinterval", "eval_interval")])
def test_an_unknown_setting_names_the_nearest_known_one(key, nearest):
    with pytest.raises(ValueError, match=f"unknown setting '{key}'; did you mean '{nearest}'"):
        parse({key: 1})


def test_an_unknown_setting_far_from_all_lists_the_known_ones():
    with pytest.raises(ValueError,
                       match=r"unknown setting 'qqqq'\. Known: .*latent_dim, .*with_linear"):
        parse({"qqqq": 1})


WRONG_TYPES = [
    ("latent_dim", True, "int"), ("latent_dim", 8.0, "int"), ("latent_dim", "8", "int"),
    ("latent_dim", None, "int"),
    ("latent_dim", [8], "int"), ("max_epochs", "ten", "int"), ("lr", "fast", "float"),
    ("lr", True, "float"),
    ("lr", [0.1], "float"), ("gk", "-15", "float"), ("with_ids", 1, "bool"),
    ("with_ids", "yes", "bool"),
    ("model", 3, "str"), ("budget", True, "str"), ("mlp_dims", 100, "a list of whole numbers"),
    ("mlp_dims", "100", "a list of whole numbers"),
    ("candidate_p", {500}, "a list of whole numbers"),
    ("retrain_emb_param", 1.5, "int or str"), ("retrain_emb_param", True, "int or str"),
    ("retrain_emb_param", None, "int or str"), ("table_update", False, "str"),
]


@pytest.mark.parametrize(("name", "value", "wanted"), WRONG_TYPES)
def test_a_wrong_type_names_setting_wanted_type_and_value(name, value, wanted):
    with pytest.raises(ValueError, match=f"{name} must be {wanted}, got ") as caught:
        parse({name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [[100, 2.5], ["a"], [True, 100], [None], [[100]]])
def test_a_wrong_element_of_a_list_is_refused_with_the_whole_list(value):
    with pytest.raises(ValueError, match=r"mlp_dims must be") as caught:
        parse({"mlp_dims": value})
    assert repr(value) in str(caught.value)


OUT_OF_RANGE = [
    ("latent_dim", 0), ("latent_dim", -8), ("mlp_dims", [100, 0]), ("dropout", 1.0),
    ("dropout", -0.1),
    ("att_dropout", 1), ("num_heads", 0), ("num_layers", 0), ("gk", 0.0), ("batch_size", 1),
    ("lr", -1e-3),
    ("lr", float("nan")), ("l2_regularization", -1e-5), ("grad_clip", 0), ("max_epochs", 0),
    ("eval_interval", 0),
    ("early_stop", 0), ("log_interval", 0), ("checkpoint_seconds", -1), ("candidate_p", [500, 0]),
    ("mde_blocks", 0),
    ("mde_alpha", -0.1), ("mgqe_subspaces", 0), ("mgqe_centroids", 0), ("hash_rows", 0),
    ("qr_collisions", 1),
    ("tt_rank", 0), ("ema", 1.0), ("ema", -0.1),
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_names_setting_bound_and_value(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least .*, got "):
        parse({name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_start_value_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="threshold_init must be a finite number, got"):
        parse({"threshold_init": value})


@pytest.mark.parametrize(("name", "value", "nearest"), [
    ("threshold_type", "field_dims", "field_dim"), ("threshold_type", "column", ""),
    ("g_type", "sigmiod", "sigmoid"),
    ("threshold_decay", "decopled", "decoupled"),
    ("model", "deepfn", "deepfm"), ("embedding", "uniforn", "uniform"),
    ("dataset", "movielnes", "movielens"),
    ("vocabulary", "al", "all"), ("budget", "exactly", "exact"),
    ("rewind", "embeddings", "embedding"),
    ("early_stop_metric", "aux", "auc"), ("table_update", "laz", "lazy"),
    ("lr_schedule", "cosin", "cosine")])
def test_an_unknown_choice_names_the_nearest_and_all_known_ones(name, value, nearest):
    with pytest.raises(ValueError, match=f"unknown {name} '{value}'.*Known: ") as caught:
        parse({name: value})
    assert (f"did you mean '{nearest}'?" if nearest
            else "Known: dimension, feature, feature_dim") in str(caught.value)


@pytest.mark.parametrize("targets", [[100, 200], [200, 200], [300, 100, 200]])
def test_budgets_that_do_not_fall_are_refused(targets):
    with pytest.raises(ValueError, match=r"candidate_p must be strictly decreasing, got \["):
        parse({"candidate_p": targets})


def test_attention_width_must_be_a_multiple_of_the_heads():
    with pytest.raises(ValueError, match="atten_embed_dim 64 must be a multiple of num_heads 3"):
        parse({"model": "autoint", "num_heads": 3})
    assert parse({"model": "fm", "num_heads": 3}).own["autoint"].num_heads == 3


def test_plain_descent_knows_no_decoupled_decay():
    with pytest.raises(ValueError, match="threshold_decay=decoupled is a form of Adam's decay"):
        parse({"optimizer": "sgd", "threshold_decay": "decoupled"})
    assert parse({"optimizer": "sgd", "threshold_decay": "decoupled", "embedding": "uniform"})


def test_subspaces_must_divide_the_width():
    with pytest.raises(ValueError, match="mgqe_subspaces must divide latent_dim 24, got 16"):
        parse({"embedding": "mgqe", "latent_dim": 24, "mgqe_subspaces": 16})
    assert parse({"embedding": "uniform", "latent_dim": 24,
                  "mgqe_subspaces": 16}).own["mgqe"].mgqe_subspaces == 16


def test_all_settings_are_described_under_their_owner():
    text = described({**PRESETS["criteo"], "mde_blocks": 16})
    parts = {part.splitlines()[0]: part for part in text.split("\n\n")[1:]}
    assert next(iter(parts)) == "embedding pep"
    assert all(any(line.startswith(f"  {name} = ") and ": " in line for line in text.splitlines())
               for name in known_settings())
    assert ("  mde_blocks = 16 (default 8; >= 1): blocks of features with equal shares of all "
            "occurrences; 8 or 16 [PEP paper, A.4.4]") in parts["embedding mde"].splitlines()
    assert "dropout = 0.2 (default 0.2; >= 0; < 1): " in parts["model deepfm, autoint"]
    assert "threshold_init = -150.0 (default -15.0): " in parts["embedding pep"]
    [line] = [line for line in text.splitlines() if line.startswith("  embedding = ")]
    assert all(name in line for name in EMBEDDINGS)


@pytest.mark.parametrize(("given", "names", "message"), [
    ({}, ["lr", "mgqe_centroids"], "mgqe_centroids is a setting of embedding mgqe, and this run "
     "has model fm and embedding pep.* or add --embedding mgqe$"),
    ({"embedding": "uniform"}, ["threshold_init"], "of embedding pep, .* or add --embedding pep$"),
    ({"embedding": "mde"}, ["candidate_p"], "of embedding pep"),
    ({"model": "linear"}, ["threshold_init"], "this run has model linear and embedding none"),
    ({}, ["mlp_dims"], "of model deepfm and autoint, .* or add --model deepfm or autoint$"),
    ({}, ["re_init"], "of embedding masked, .* or use the retrain script$"),
    ({"embedding": "darts"}, ["latent_dim"], "changes nothing for model fm and embedding "
                                             "darts; leave it away"),
    ({"model": "linear"}, ["embedding"], "embedding changes nothing for model linear"),
    ({"model": "linear", "weight_decay": 0.1}, ["l2_regularization"], "changes nothing")])
def test_a_setting_of_another_scheme_is_told_whose_it_is(given, names, message):
    with pytest.raises(ValueError, match=message):
        require_used(parse(given), names)


def test_settings_of_the_chosen_scheme_and_of_every_run_may_be_set():
    require_used(parse({"embedding": "mgqe", "model": "autoint"}),
                 ["mgqe_centroids", "mlp_dims", "num_heads", "latent_dim", "log_interval"])
    require_used(parse({}), ["rewind", "threshold_init"], also=["masked"])
    require_used(parse({"model": "linear"}), ["l2_regularization"])  # of the weights, too


def test_a_setting_that_old_records_had_is_left_out():
    assert parse(translate({"popularity": "train", "weight_decay": None})) == parse({})


def test_whole_numbers_become_floats_and_lists_become_tuples():
    settings = parse({"lr": 1, "mlp_dims": [10, 20], "candidate_p": [5]})
    assert isinstance(settings.train.lr, float)
    assert settings.own["deepfm"].mlp_dims == settings.own["autoint"].mlp_dims == (10, 20)
    assert settings.search.candidate_p == (5,)


@pytest.mark.parametrize("value", [1.0, [1.0], "1.0"])
def test_a_number_among_names_is_the_text_that_stands_for_it(value):
    assert parse({"positive": value}).flat()["positive"] == ("1.0",)


@pytest.mark.parametrize("value", [True, [True], "true"])
def test_true_is_the_word_of_a_column_of_booleans(value):
    assert parse({"positive": value}).flat()["positive"] == ("true",)


def test_flat_settings_parse_to_the_same_settings_also_by_way_of_json():
    settings = parse({**PRESETS["criteo"], "lr": 0.01, "mlp_dims": [7]})
    assert parse(settings.flat()) == settings
    assert parse(json.loads(json.dumps(settings.flat()))) == settings


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        parse({}).train.lr = 1.0


@pytest.mark.parametrize(("text", "expected"), [
    ("latent_dim=8", ("latent_dim", 8)), ("lr=1e-3", ("lr", 1e-3)),
    ("threshold_init=-150", ("threshold_init", -150)),
    ("mlp_dims=[100, 100]", ("mlp_dims", [100, 100])), (" re_init = TRUE ", ("re_init", True)),
    ("with_ids=false", ("with_ids", False)), ("budget=as_reached", ("budget", "as_reached")),
    ("budget='exact'", ("budget", "exact")),
    ("retrain_emb_param=6541.magnitude", ("retrain_emb_param", "6541.magnitude")),
    ("a=b=c", ("a", "b=c")), ("a=", ("a", "")), ("mlp_dims=[100", ("mlp_dims", "[100")),
    ("mlp_dims={[1]}", ("mlp_dims", "{[1]}"))])
def test_parse_assignment(text, expected):
    key, value = parse_assignment(text)
    assert (key, value, type(value)) == (*expected, type(expected[1]))


@pytest.mark.parametrize("text", ["latent_dim", "=8", " =8", ""])
def test_an_assignment_without_key_or_sign_is_refused(text):
    with pytest.raises(ValueError, match=r"--set takes key=value, got"):
        parse_assignment(text)


def test_an_assignment_is_never_evaluated_as_code():
    assert parse_assignment("alias=__import__('os').getcwd()") == (
        "alias",
        "__import__('os').getcwd()",
    )


# identity


class FixedData:
    hash = "0123456789abcdef"


def run_id(given, seed=1, extra=None):
    return Run(parse(given), seed, RunContext(), FixedData(), "search", extra or {}).run_id


# Literal settings rather than a script's: a script may change what it asks for, an id may not
# change its meaning.
SEARCH = {"candidate_p": [100_000, 50_000, 23_675, 15_000, 10_000, 9_281, 8_604, 6_541]}
BUDGETS = '"candidate_p": [100000, 50000, 23675, 15000, 10000, 9281, 8604, 6541]'
PINNED = {
    "neutral": ({},
        '{}', "6a6e00cf66b8"),
    "movielens": (SEARCH,
        '{' + BUDGETS + '}', "7081b1d3f6b6"),
    "movielens deepfm": ({**SEARCH, "model": "deepfm", "mlp_dims": [50]},
        '{' + BUDGETS + ', "mlp_dims": [50], "model": "deepfm"}', "ec0ccb17d0e8"),
    "movielens autoint": ({**SEARCH, "model": "autoint", "att_dropout": 0.0},
        '{"att_dropout": 0.0, ' + BUDGETS + ', "model": "autoint"}', "a2b124fac085"),
    "movielens uniform": ({**SEARCH, "embedding": "uniform", "latent_dim": 8},
        '{"embedding": "uniform", "latent_dim": 8}', "399df8cd02e2"),
    "movielens linear": ({**SEARCH, "model": "linear", "weight_decay": 0.0},
        '{"l2_penalty": 0.0, "model": "linear"}', "2f6dd7294e83"),
    "movielens field": ({**SEARCH, "threshold_type": "field", "budget": "as_reached",
                         "with_ids": True},
        '{"budget": "as_reached", ' + BUDGETS + ', "threshold_type": "field", "with_ids": true}',
                        "1ec736a93fc5"),
    "retrain": ({"max_epochs": 150, "embedding": "masked", "re_init": True, "rewind": "embedding"},
        '{"embedding": "masked", "max_epochs": 150, "re_init": true}', "8ed5d5c1359f"),
    "all rewound": ({"max_epochs": 150, "embedding": "masked"},
        '{"embedding": "masked", "max_epochs": 150, "rewind": "all"}', "1bd0a1ac5dbb"),
    "decays apart": ({**SEARCH, "l2_regularization": 1e-4, "weight_decay": 1e-5},
        '{' + BUDGETS + ', "l2_regularization": 0.0001}', "207e9c5f6f96"),
    "one decay": ({**SEARCH, "l2_regularization": 1e-4},
        '{' + BUDGETS + ', "l2_penalty": 0.0001, "l2_regularization": 0.0001}', "5624aaae62db"),
    "penalty": ({**SEARCH, "l2_penalty": 1e-3},
        '{' + BUDGETS + ', "vector_penalty": 0.001}', "bf79c4f5c11a"),
}


@pytest.mark.parametrize("name", PINNED)
def test_identities_and_run_ids_are_pinned_so_that_old_runs_stay_reachable(name):
    given, text, number = PINNED[name]
    assert identity(parse(given)) == text
    assert run_id(given) == number


def test_run_id_follows_seed_data_and_extra(monkeypatch):
    ids = {run_id(SEARCH), run_id(SEARCH, seed=2), run_id(SEARCH, extra={"mask": "00"})}
    monkeypatch.setattr(FixedData, "hash", "other")
    assert len(ids | {run_id(SEARCH)}) == 4


CHANGES = {
    "dataset": None, "with_ids": True, "vocabulary": "train", "model": "deepfm",
    "embedding": "uniform",
    "latent_dim": 16, "mlp_dims": [9], "dropout": 0.1, "precision": "bfloat16",
    "num_heads": 4, "num_layers": 1,
    "att_dropout": 0.1,
    "atten_embed_dim": 32, "has_residual": False, "full_part": False, "with_linear": True,
    "att_layer": "paper",
    "threshold_type": "global", "threshold_init": -9.0, "g_type": "softplus", "gk": 2.0,
    "threshold_decay": "none", "threshold_gradient": False, "batch_size": 99, "lr": 0.5,
    "l2_regularization": 0.5, "weight_decay": 0.5, "l2_penalty": 0.5, "grad_clip": 1.0,
    "max_epochs": 9, "eval_interval": 9, "early_stop": 9,
    "early_stop_metric": "loss", "log_interval": 9, "table_update": "dense",
    "tensorboard": False, "checkpoint_seconds": 1.0,
    "candidate_p": [9], "budget": "as_reached", "retrain_emb_param": 9, "re_init": True,
    "rewind": "embedding", "split": f"ids:{__file__}",
    "mde_blocks": 9, "mde_alpha": 0.2, "mgqe_subspaces": 4,
    "mgqe_centroids": 64,
    "hash_rows": 9, "qr_collisions": 9, "tt_rank": 9, "darts_widths": [3, 4], "darts_epochs": 9,
    "darts_lr": 0.5,
    "label": "click", "name": "mine", "fields": ["a"], "dense": ["a"], "bucket": {"a": "log2"},
    "dates": {"a": "hour"}, "multi": {"a": "|"}, "ignore": ["a"], "positive": ["5"], "min_count": 9,
    "arch_mlp_bot": [9], "arch_mlp_top": [9], "arch_interaction_op": "dot", "optimizer": "sgd",
    "ema": 0.9, "lr_schedule": "cosine",
    "lanes": 4,
}
OWN_TABLE = {"label", "name", "fields", "dense", "bucket", "dates", "multi", "ignore", "positive",
             "min_count"}  # the data's hash tells their values apart
NEVER = {"split", "tensorboard", "checkpoint_seconds",
         "retrain_emb_param"} | OWN_TABLE
MDE, MGQE = {"mde_blocks", "mde_alpha"}, {"mgqe_subspaces", "mgqe_centroids"}
DARTS = {"darts_widths", "darts_epochs", "darts_lr"}
BASELINES = MDE | MGQE | DARTS | {"hash_rows", "qr_collisions", "tt_rank"}
THRESHOLDS = {"threshold_type", "threshold_init", "g_type", "gk", "threshold_decay",
              "threshold_gradient",
              "candidate_p", "budget", "log_interval"}
ATTENTION = {"num_heads", "num_layers", "att_dropout", "atten_embed_dim", "has_residual",
             "att_layer", "full_part", "with_linear"}
MLP, TICKET = {"mlp_dims", "dropout", "precision"}, {"re_init", "rewind"}
ARCH = {"arch_mlp_bot", "arch_mlp_top", "arch_interaction_op"}
WITHOUT_EFFECT = {
    ("fm", "pep"): NEVER | ARCH | BASELINES | ATTENTION | MLP | TICKET,
    ("fm", "uniform"): NEVER | ARCH | BASELINES | ATTENTION | MLP | TICKET | THRESHOLDS,
    ("fm", "masked"): NEVER | ARCH | BASELINES | ATTENTION | MLP | THRESHOLDS,
    ("deepfm", "pep"): NEVER | ARCH | BASELINES | ATTENTION | TICKET,
    ("autoint", "uniform"): NEVER | ARCH | BASELINES | TICKET | THRESHOLDS,
    ("linear", "pep"): NEVER | ARCH | BASELINES | ATTENTION | MLP | TICKET | THRESHOLDS | {
        "embedding", "latent_dim", "l2_penalty"},
    ("fm", "mde"): NEVER | ARCH | BASELINES - MDE | ATTENTION | MLP | TICKET | THRESHOLDS,
    ("fm", "mgqe"): NEVER | ARCH | BASELINES - MGQE | ATTENTION | MLP | TICKET | THRESHOLDS,
    ("fm", "darts"): NEVER | ARCH | BASELINES - DARTS | ATTENTION | MLP | TICKET | THRESHOLDS
    | {"latent_dim"},
    ("fm", "hash"): NEVER | ARCH | BASELINES - {"hash_rows"} | ATTENTION | MLP | TICKET
    | THRESHOLDS,
    ("fm", "qr"): NEVER | ARCH | BASELINES - {"qr_collisions"} | ATTENTION | MLP | TICKET
    | THRESHOLDS,
    ("fm", "tt"): NEVER | ARCH | BASELINES - {"tt_rank"} | ATTENTION | MLP | TICKET | THRESHOLDS,
    ("dlrm", "uniform"): NEVER | BASELINES | ATTENTION | MLP | TICKET | THRESHOLDS,
}


def test_every_setting_is_among_the_changes_below():
    assert set(CHANGES) == set(parse({}).flat())
    assert all(parse({name: value}).flat()[name] != parse({}).flat()[name]
               for name, value in CHANGES.items() if name != "dataset")


@pytest.mark.parametrize(("model", "embedding"), WITHOUT_EFFECT)
def test_identity_changes_with_just_the_settings_that_matter_to_model_and_embedding(
    model, embedding
):
    base = {"model": model, "embedding": embedding}
    # refused there
    fixed = {"dataset", "model", "embedding"}
    fixed |= {"l2_penalty"} if model == "linear" or embedding == "mgqe" else set()
    changed = {name for name, value in CHANGES.items() if name not in fixed
               and identity(parse({**base, name: value})) != identity(parse(base))}
    assert changed == set(CHANGES) - WITHOUT_EFFECT[model, embedding] - fixed


def test_forms_of_the_update_with_the_same_bits_are_one_run():
    forms = {form: run_id({"table_update": form}) for form in ("auto", "streamed", "lazy", "dense")}
    assert forms["auto"] == forms["streamed"] == forms["lazy"] == run_id({})
    assert forms["dense"] != forms["auto"]


def test_logistic_regression_is_the_same_run_under_any_embedding():
    assert run_id({"model": "linear", "embedding": "pep"}) == run_id({"model": "linear",
                                                                      "embedding": "uniform"})
    assert run_id({"model": "fm", "embedding": "pep"}) != run_id({"model": "fm",
                                                                  "embedding": "uniform"})


def test_a_setting_left_at_its_neutral_default_does_not_enter_the_identity():
    neutral = parse({}).flat()
    assert identity(parse({**neutral, "dataset": "movielens"})) == identity(parse({})) == "{}"


def test_neutral_defaults_are_pinned_because_changing_one_would_rename_every_run():
    assert TrainSettings() == TrainSettings(1024, 1e-3, 1e-5, None, 0.0, 100.0, 100, 2, 8, "auc",
                                            10, "auto", True, 60.0)
    flat = parse({}).flat()
    assert (flat["model"], flat["embedding"], flat["latent_dim"]) == ("fm", "pep", 64)
    assert (flat["threshold_type"], flat["threshold_init"],
            flat["g_type"]) == ("feature_dim", -15.0, "sigmoid")
    own = {name: flat[name] for name in ("darts_widths", "mde_blocks", "mde_alpha", "hash_rows",
                                         "mgqe_subspaces", "mgqe_centroids", "qr_collisions",
                                         "tt_rank", "mlp_dims", "num_heads", "att_dropout")}
    assert tuple(own.values()) == ((2, 4, 16), 8, 0.1, 1000, 8, 256, 4, 16, (100, 100), 2, 0.4)


def test_bfloat16_is_refused_before_any_data_is_read_where_the_processor_has_none(monkeypatch,
                                                                                 tmp_path):
    monkeypatch.setattr(record.torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(record.torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(record.platform, "machine", lambda: "x86_64")
    monkeypatch.setitem(run.DATASETS, "movielens", lambda *given: pytest.fail("data was read"))
    settings = parse({"model": "deepfm", "precision": "bfloat16"})
    with pytest.raises(ValueError, match="has no instructions for products of bfloat16"):
        run.open_data(settings, RunContext(out=tmp_path, device="cpu"))


def test_a_penalty_that_would_pull_centroids_twice_is_refused():
    with pytest.raises(ValueError, match="would pull mgqe's centroids to their rows twice a step"):
        parse({"embedding": "mgqe", "l2_penalty": 0.1})
