"""Learn embedding sizes on a table of your own (the search), or train a baseline.

    python train_table.py --data clicks.csv --label click --encode-only  # what the table becomes
    python train_table.py --data clicks.csv --label click                # FM, the search
    python train_table.py --data clicks.csv --label click --embedding uniform --set latent_dim=8
    python train_table.py --settings                                     # all settings

CSV or TSV (plain, gzip, bzip2, zip, zstd), Parquet, or a folder of parts of one of them;
docs/own-data.md says how columns are read.
"""

from studies import scripts

SETTINGS = {
    # the table
    "label": "",  # the column to predict, of two values
    "positive": [],  # the label's values that count as 1; empty: 1, true, yes
    "fields": [],  # columns that are fields; empty: all that nothing else is said of
    "ignore": [],  # columns that are left out
    "dense": [],  # columns of numbers that DLRM reads as they are, and others as buckets
    # rule of columns of numbers: quantiles, quantiles:N, log2 (floor(ln(v)^2)), none; one rule for
    # all columns whose numbers have a fraction, or {column: rule}
    "bucket": "quantiles",
    "dates": {},  # {column: [parts]} of hour, weekday, day, month, year
    # {column: separator} of columns with several values in a cell, such as {"genres": "|"}
    "multi": {},
    "min_count": 10,  # rarer values share their field's unknown id; 1 keeps all
    # auto: three files named train, valid and test, else random; random:SEED; time:COLUMN;
    # column:COLUMN; files:TRAIN,VALIDATION,TEST; ids:FILE
    "split": "auto",
    "vocabulary": "all",  # rows whose values get an id of their own; all, or train
    # what is trained
    "model": "fm",  # linear, fm, deepfm, autoint, dlrm
    "embedding": "pep",  # or a baseline: uniform, mde, mgqe, darts, hash, qr, tt
    "latent_dim": 64,  # width d of a vector
    # PEP: thresholds s, a vector's entry V is kept where |V| > g(s)
    "threshold_type": "feature_dim",  # global, dimension, feature, field, feature_dim, field_dim
    "threshold_init": -15.0,  # every s starts here
    "candidate_p": [],  # budgets, in parameters, falling; empty: 50, 20, 10, 5, 2 and 1 % of all
    # the MLP of DeepFM and AutoInt
    "mlp_dims": [100, 100],  # hidden layers
    "dropout": 0.2,
    # training
    "batch_size": 1024,  # rows
    "lr": 1e-3,  # Adam's
    # weight decay, coupled, of table and thresholds: it is what moves the thresholds
    "l2_regularization": 1e-5,
    "weight_decay": None,  # the same of all other parameters; None: l2_regularization
    "max_epochs": 100,
    "eval_interval": 2,  # epochs
    "early_stop": 8,  # evaluations without gain; a search is never stopped early
    # running; none of these changes a result
    "tensorboard": True,
    "checkpoint_seconds": 60.0,
}

if __name__ == "__main__":
    scripts.search(__doc__, SETTINGS)
