"""The nine features and the label, as matrices for the peers that take one."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FEATURES = [
    "dep_delay", "distance", "day_of_month", "day_of_week", "day_of_year",
    "carrier", "origin", "dest", "route",
]
CATEGORICAL = [5, 6, 7, 8]
SPLITS = [-15, 0, 30]  # of arr_delay, intervals closed on the left
HOLDOUT = 5  # every fifth day is held out: those whose number since 1970-01-01 it divides

FOREST_LIGHTGBM = {
    "boosting": "rf",
    "objective": "multiclass",
    "num_class": 4,
    "num_leaves": 32,
    "max_depth": 5,
    "max_bin": 255,
    "feature_fraction_bynode": 1 / 3,
    "bagging_fraction": 0.632,
    "bagging_freq": 1,
    "min_data_in_leaf": 1,
    "seed": 7,
    "verbose": -1,
}
TREES = 20

# Settings and rounds of LightGBM's random forests; a round is a tree for each of four classes.
LIGHTGBM = {
    "original": (FOREST_LIGHTGBM, TREES),
    # trees as large as those of Tarmac's default in `cargo bench --bench kernels`, about as many
    "default": (
        {
            **FOREST_LIGHTGBM,
            "num_leaves": 1747,
            "max_depth": 12,
            "feature_fraction_bynode": 5 / 9,
            "min_data_in_leaf": 20,
        },
        13,
    ),
}


def _codes(column):
    """Codes in alphabetical order of a string column, and their names."""
    column = column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names = column.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(names), np.int32)
    place[order] = np.arange(len(names), dtype=np.int32)
    return place[column.indices.to_numpy(zero_copy_only=False)], [names[i] for i in order]


def _index(codes, size, train):
    """Most frequent first, ties in order of the code; unseen in training comes last."""
    counts = np.bincount(codes[train], minlength=size)
    order = np.argsort(-counts, kind="stable")
    present = int((counts > 0).sum())
    place = np.empty(size, np.float32)
    place[order] = np.minimum(np.arange(size), present)
    return place[codes], present


def load(path):
    """(X float32 rows x 9, y int32, held-out mask, cardinalities)"""
    strings = ["carrier", "origin", "dest"]
    table = pq.read_table(
        path,
        columns=["year", "month", "day", "dep_delay", "arr_delay", "distance", *strings],
        read_dictionary=strings,
    )
    keep = None
    for name in ("dep_delay", "arr_delay"):
        valid = pc.is_valid(table[name])
        if pa.types.is_floating(table[name].type):
            valid = pc.and_(valid, pc.invert(pc.fill_null(pc.is_nan(table[name]), True)))
        keep = valid if keep is None else pc.and_(keep, valid)
    table = table.filter(keep).unify_dictionaries()

    def values(name, kind):
        return table[name].to_numpy().astype(kind)

    months = (values("year", np.int64) - 1970) * 12 + values("month", np.int64) - 1
    day = values("day", np.int64)
    date = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + day - 1
    new_year = (months // 12).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    day_of_year = date - new_year + 1
    held_out = date % HOLDOUT == 0
    train = ~held_out

    x = np.empty((table.num_rows, 9), np.float32)
    x[:, 0] = values("dep_delay", np.float32)
    x[:, 1] = values("distance", np.float32)
    x[:, 2] = day
    x[:, 3] = (date + 3) % 7 + 1  # 1970-01-01 was a Thursday, 4
    x[:, 4] = day_of_year
    carrier, carriers = _codes(table["carrier"])
    origin, origins = _codes(table["origin"])
    dest, dests = _codes(table["dest"])
    route = origin.astype(np.int64) * len(dests) + dest
    sizes = [len(carriers), len(origins), len(dests), len(origins) * len(dests)]
    cardinalities = []
    for i, (codes, size) in enumerate(zip((carrier, origin, dest, route), sizes)):
        x[:, 5 + i], present = _index(codes, size, train)
        cardinalities.append(present)
    y = np.digitize(values("arr_delay", np.float64), SPLITS).astype(np.int32)
    return x, y, held_out, cardinalities
