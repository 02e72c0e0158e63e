"""Synthetic result folders, in the form in which runs leave them."""

import json

import numpy as np
from safetensors.numpy import save_file

from studies.pooling import DEPARTURES, ROWS

SIZES = {"age": 7, "zip": 60, "year": 20, "genre": 13}  # 100 features
WIDTH = 8
DENSE = sum(SIZES.values()) * WIDTH
BUDGET = 72  # 9 % of 800
GROUPS = [{"features": 50, "least": 0, "most": 9}, {"features": 50, "least": 10, "most": 4000}]


def result(run_id, stage="train", seed=1, model="fm", dataset="movielens", embedding="uniform",
           params=DENSE, auc=0.8,
           own=None, **more):
    """A result.json. `own` holds the settings that depart from the neutral ones, other keywords are
    fields of it."""
    own = own or {}
    published = {name: value for name, value in DEPARTURES.get(dataset, {}).items()
                 if name != "latent_dim"}
    settings = {"dataset": dataset, "model": model, "embedding": embedding,
                "latent_dim": DEPARTURES.get(dataset, {}).get("latent_dim", WIDTH),
                "re_init": False,
                "threshold_type": "feature_dim", "with_linear": False, "max_epochs": 20,
                "rewind": "all",
                **published, **own}
    rows = ROWS.get(dataset, 1000)
    return {"run_id": run_id, "stage": stage, "seed": seed, "settings": settings,
            "identity": {"settings": {"embedding": embedding, **own}}, "manifest": "m",
            "commit": "c" * 40,
            "num_embedding_params": params, "num_embedding_params_dense": DENSE,
            "inference_bytes": 4 * params,
            "test_auc": auc, "test_logloss": 1.2 - auc, "validation_auc": auc,
            "train_loss": 1.1 - auc,
            "published_protocol": {"best_test_auc": auc + 0.001, "best_test_logloss": 1.2 - auc},
            "stop_reason": "budgets_met" if stage == "search" else "early_stop", "epochs": 18,
            "data": {"rows": rows, "positives": 3 * rows // 4, "fields": list(SIZES),
                     # sorted, as a file has them
                     "field_sizes": dict(sorted(SIZES.items()))}, **more}


def lr(run_id, seed=1, **more):
    return result(run_id, seed=seed, model="linear", embedding="pep", params=0, auc=0.77, **more)


def search(run_id, seed=1, **more):
    lines = [{"epoch": epoch, "mean": [min(1, epoch / 20), min(1, epoch / 80)], "std": [0.1, 0.2]}
             for epoch in range(0, 42, 2)]
    about = {"sparsity": {"groups": GROUPS, "lines": lines}, "alias": f"alias_{run_id}",
             "snapshots": [str(BUDGET)],
             "params": 60, "embedding": "pep", **more}
    return result(run_id, "search", seed, **about)


def ticket(run_id, seed=1, budget=BUDGET, source="cut", searched="s1", re_init=False, **more):
    snapshot = {"source": source, "budgets": [budget], "run_id": searched,
                "without_retraining": {"test_auc": 0.79, "test_logloss": 0.41}}
    own = {**more.pop("own", {}), **({"re_init": True} if re_init else {})}
    return result(run_id, "retrain", seed, embedding="masked", params=budget, snapshot=snapshot,
                  own=own, **more)


def factored(run_id, method="afm", seed=1, epochs=1, auc=0.8, size=200, layers=None, **choice):
    made = result(run_id, "finetune", seed, params=size, auc=auc, own={"max_epochs": epochs},
                  without_finetuning={"test_auc": auc - 0.02, "test_logloss": 0.45,
                                      "validation_auc": auc - 0.02})
    made["identity"]["extra"] = {"compression": {"method": method, **choice}}
    made["compression"] = {
        "method": method, "source": f"dense{seed}",
        "parameters": {"embedding": size, "linear": 101},
        "file_bytes": 4 * size + 700,
        "multiply_adds": {"embedding": 30, "mlp": 70},
        "structure": {"ranks": [2] * 4, "layers": layers or {}},
        "spectra": {"fields": {"age": [2.0, 1.0, 0.0], "zip": [0.0, 0.0]}, "layers": {}},
        "samples_per_second": {"dense": {"1": 100, "64": 1000}, "factored": {"1": 80, "64": 3000}}}
    return made


def curve(end=0.8, epochs=20, first=DENSE, last=DENSE):
    """Lines of a curve.jsonl, every second epoch."""
    return [{"epoch": epoch, "step": 100 * epoch, "train_loss": 0.3 + 0.3 / epoch,
             "validation_auc": end - 0.1 / epoch,
             "num_embedding_params": round(first + (last - first) * epoch / epochs),
             "test_auc": end - 0.1 / epoch,
             "test_logloss": 1.2 - end + 0.1 / epoch} for epoch in range(2, epochs + 2, 2)]


def put(out, made, lines=None, table=None, mask=None):
    """Write a run's folder; returns its result."""
    folder = out / "runs" / made["run_id"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(made))
    if lines is not None:
        (folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if table is not None:
        put_weights(folder / "model.safetensors", table, mask)
    return made


def put_weights(path, table, mask=None):
    """model.safetensors as the engine writes it: nested content as JSON, tensors beside it."""
    tensors = {"t.model.embedding.weight": table}
    if mask is not None:
        tensors["t.model.embedding.mask"] = mask
    names = {name.removeprefix("t.model."): {"$tensor": name} for name in tensors}
    save_file(tensors, path, metadata={"content": json.dumps({"model": names})})


def put_search(out, made, frequencies, table, budget=BUDGET):
    """A search's folder with popularity.npy, and one snapshot in its alias folder."""
    put(out, made, curve(epochs=40, last=60))
    np.save(out / "runs" / made["run_id"] / "popularity.npy", frequencies)
    folder = out / "embedding" / made["settings"]["model"] / made["alias"]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{budget}.npz", table=table,
                        meta=np.array(json.dumps({"run_id": made["run_id"]})))
    return made


def put_times(out, dataset):
    """The benchmark's record of Table 2; 100 steps an epoch."""
    times = {"base": [1.0, 2.0, 3.0], "darts": [4.5, 4.5, 4.5], "pep": [2.5, 2.0, 9.0]}
    record = {"manifest": "m", "commit": "c" * 40, "device": "d", "threads": 1, "batches": 100,
              "rounds": 3,
              "steps_per_round": 5,
              "ms_per_step_of_rounds": dict.fromkeys(("fm", "deepfm", "autoint"), times)}
    path = out / "benchmarks" / f"epoch_{dataset}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path
