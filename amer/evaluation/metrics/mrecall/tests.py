"""Small cases with their results: examples for the Space, and test cases for AMER's test suite."""

test_cases = [
    {  # two targets, one of which is found at k = 2
        "predictions": [["a", "x", "b"]],
        "references": [[["a", "c"], ["b"]]],
        "k": 2,
        "result": {"mrecall": 0.0, "recall": 0.5},
    },
    {  # both found at k = 3
        "predictions": [["a", "x", "b"]],
        "references": [[["a", "c"], ["b"]]],
        "k": 3,
        "result": {"mrecall": 1.0, "recall": 1.0},
    },
    {  # more targets than k: two documents can cover only two of three targets
        "predictions": [["a", "b"], ["x", "y"]],
        "references": [[["a"], ["b"], ["c"]], [["z"], ["y"]]],
        "k": 2,
        "result": {"mrecall": 0.5, "recall": (2 / 3 + 1 / 2) / 2},
    },
    {  # one document in the clusters of two targets finds both
        "predictions": [["a"]],
        "references": [[["a", "b"], ["a"]]],
        "k": 1,
        "result": {"mrecall": 1.0, "recall": 1.0},
    },
]
