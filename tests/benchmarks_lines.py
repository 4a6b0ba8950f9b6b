"""Made-up lines, in the form of those of `fusemix bench`."""

import numpy as np

from fusemix_core.benchmark.hits import packed_bits, packed_labels

METHODS = {
    # label: (recipe, by gradient, R@1 at 1,000 pairs, points for each tenfold, seconds at 1,000)
    "auto": ("auto", False, 20, 12, 1.0),
    "linear CCA": ("cca", False, 18, 5, 0.3),
    "kcca": ("kcca", False, 19, 9, 4.0),
    "csa": ("csa", False, 15, 4, 0.1),
    "fusemix": ("fusemix", True, 12, 14, 60.0),
    "sail": ("sail", True, 8, 10, 40.0),
}
PLUGINS = {"csa": "fusemix-closed-form", "sail": "fusemix-sail"}
QUERIES = 400
GROUPS = {"image->text": np.arange(QUERIES), "text->image": np.arange(QUERIES) // 2}


def lines_of(sets=("icons",), sizes=(1000, 10000), seeds=(0, 1, 2), methods=METHODS, **changes):
    """A line for each; `changes` replace fields."""
    return [
        line(name, size, seed, method) | changes
        for seed in seeds
        for name in sets
        for size in sizes
        for method in methods
    ]


def line(name, size, seed, method, recall=None):
    """`recall` (0 to 1) replaces the method's own."""
    recipe, trained, at, slope, seconds = METHODS[method]
    r1 = (at + slope * np.log10(size / 1000)) / 100 if recall is None else recall
    seconds *= size / 1000
    random = np.random.default_rng([seed, size])  # a query is as hard for every method
    right = {d: random.random(len(groups)) < r1 for d, groups in GROUPS.items()}
    found = measured(right)
    return {
        "key": f"{name} {size} {seed} {method}",
        "set": name,
        "encoders": {"image": "efficientnet-lite0", "text": "minilm"},
        "views": {"image": "pooled", "text": "pooled"},
        "label": "efficientnet-lite0 + minilm",
        "size": size,
        "seed": seed,
        "method": method,
        "recipe": {"name": recipe, **({"training": {"epochs": 3}} if trained else {})},
        "test_items": f"{name} {seed}",
        "versions": {"fusemix": "0.1.0"} | {d: "0.1.0" for k, d in PLUGINS.items() if k == recipe},
        "pairs": {"train": size * 9 // 10, "validation": size // 10, "test": QUERIES},
        "seconds": 9 * seconds,  # the machine does other work
        "cpu_seconds": seconds,
        "steps": 100 * trained,
        "trajectory": [
            [9 * seconds * share, seconds * share, number, 100 * r1 * part, 100 * r1 * part]
            for number, (share, part) in enumerate([(0.01, 0.6), (0.1, 0.9), (1.0, 1.0)])
        ],
        "scorer": "cosine",
        "validation": {"cosine": found, "csls": found},
        "test": {"cosine": found, "csls": found},
        "queries": {
            d: {"count": len(groups), "groups": packed_labels(groups)}
            for d, groups in GROUPS.items()
        },
        "hits": {s: {d: packed_bits(v) for d, v in right.items()} for s in ("cosine", "csls")},
        "zero_shot": {"clothing10": {"cosine": {"top1": 100 * r1 + seed}}},
        "environment": {"cpu": "a processor", "cpus": 2},
    }


def measured(right):
    r1 = 100 * float(np.mean([v.mean() for v in right.values()]))
    each = {d: {"r1": 100 * float(v.mean())} for d, v in right.items()}
    return {"r1": r1, "r1_interval": [r1 - 2, r1 + 2], "directions": each}
