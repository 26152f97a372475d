"""The YAML of the dataset group: each names a class with arguments that it takes, and a limit."""

import inspect
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_class, instantiate

from p2p_bench.data import PairDataset
from p2p_bench.resources import resource_path

FILES = sorted(resource_path("conf", "dataset").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_option_makes_a_dataset(path: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"source": "a", "target": "b"}\n{"source": "c", "target": "d"}\n')
    node = yaml.safe_load(path.read_text())
    assert node["limit"] is None
    if node.get("path") == "???":
        node["path"] = str(tmp_path / "pairs.jsonl")
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    inspect.signature(get_class(node["_target_"])).bind(**arguments)
    dataset = instantiate({**node, "limit": 2}, _convert_="all")
    assert isinstance(dataset, PairDataset)
    assert len(dataset.pairs()) == 2
