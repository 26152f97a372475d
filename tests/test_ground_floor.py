"""Errors, hashes, means and resources."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

from p2p_bench.errors import ConfigError, ErrorList, MissingWeightsError, nearest
from p2p_bench.hashing import digest, noise_seed, sha256_file
from p2p_bench.resources import resource_path
from p2p_bench.stats import mean_interval


def test_nearest_names_the_misspelt_option_and_nothing_far_off() -> None:
    assert nearest("replce", ["refine", "replace"]) == " Did you mean 'replace'?"
    assert nearest("xyzzy", ["refine", "replace"]) == ""


def test_error_list_tells_all_and_takes_the_highest_code() -> None:
    error = ErrorList([ConfigError("tau.cross is 2"), MissingWeightsError("no weights")])
    assert error.exit_code == 3
    assert "tau.cross is 2" in str(error)
    assert "no weights" in str(error)
    assert str(ErrorList([ConfigError("one")])) == "one"


def test_noise_seed_is_pinned_and_depends_on_both_parts() -> None:
    assert noise_seed(0, "a") == noise_seed(0, "a")
    assert len({noise_seed(seed, name) for seed in range(20) for name in "abc"}) == 60
    assert noise_seed(1, "2") != noise_seed(12, "")
    assert all(0 <= noise_seed(seed, "x") < 2**63 for seed in range(100))


def test_digest_ignores_the_order_of_keys_only() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_sha256_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_mean_leaves_undefined_values_out_and_counts_the_rest() -> None:
    mean = mean_interval([1.0, math.nan, 3.0])
    assert (mean.mean, mean.count) == (2.0, 2)
    assert mean.low <= mean.mean <= mean.high
    empty = mean_interval([math.nan])
    assert empty.count == 0
    assert math.isnan(empty.mean)


def test_interval_by_group_is_wider_when_rows_of_a_group_agree() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    groups = np.repeat(np.arange(20), 10)
    alone, grouped = mean_interval(values.tolist()), mean_interval(values.tolist(), groups.tolist())
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        mean = mean_interval(rng.normal(size=40).tolist(), resamples=300)
        inside += mean.low <= 0.0 <= mean.high
    assert 0.88 <= inside / 200 <= 0.99


def test_resources_are_found_and_a_missing_one_is_named() -> None:
    assert (resource_path("conf") / "config.yaml").is_file()
    with pytest.raises(MissingWeightsError, match="conf/nothing-here"):
        resource_path("conf", "nothing-here")


def test_our_datasets_folder_is_not_taken_for_a_package() -> None:
    assert importlib.util.find_spec("datasets") is None
