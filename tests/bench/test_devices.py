"""Processes that share a machine take a device each."""

import functools
import multiprocessing
import os

import pytest
import torch

from p2p_bench.bench import devices
from p2p_bench.bench.devices import device_count, keep_to_one_device, on_device, take_device
from p2p_bench.errors import ConfigError


def take(folder, results, go):
    """What a process of a sweep does."""
    devices._held.clear()
    results.put(take_device(folder, 2))
    go.wait(60)


@pytest.fixture
def free(monkeypatch):
    """No device is held here, and none afterwards."""
    monkeypatch.setattr(devices, "_held", [])


def test_every_process_takes_a_device_of_its_own(tmp_path, free):
    context = multiprocessing.get_context("fork")
    results, go = context.Queue(), context.Event()
    processes = [context.Process(target=take, args=(tmp_path, results, go)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    assert sorted(found, key=str) == [0, 1, None]
    go.set()
    for process in processes:
        process.join()
    assert take_device(tmp_path, 2) == 0  # the system lets go of what a process held
    assert take_device(tmp_path, 2) == 0  # and a process keeps its own


@pytest.mark.parametrize(("visible", "expected"), [(None, "0"), ("4,6,7", "4")])
def test_a_process_sees_its_device_alone(tmp_path, free, monkeypatch, visible, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    keep_to_one_device(tmp_path)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
    devices._held[0][1].release()


def test_a_machine_with_one_device_is_left_as_it_is(tmp_path, free, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for count in (0, 1):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        keep_to_one_device(tmp_path)
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert not list(tmp_path.iterdir())


def test_numbers_of_devices(monkeypatch):
    assert [device_count("cpu", devices) for devices in ("auto", -1, 3, "2", [0, 1])] == [1, 1, 3, 2, 2]
    for wrong in (0, -2, True, "two", 1.5, None):
        with pytest.raises(ConfigError, match=r"trainer\.devices"):
            device_count("cpu", wrong)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_count("auto", "auto") == 2
    with pytest.raises(ConfigError, match="3 devices are asked for, and there are 2"):
        device_count("gpu", 3)


def test_each_process_works_on_its_own_device(monkeypatch):
    make = functools.partial(dict, accelerator="cpu", devices=3, strategy="ddp_spawn")
    assert on_device(make, 2)() == {"accelerator": "cpu", "devices": 1, "strategy": "auto", "num_nodes": 1}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    make = functools.partial(dict, accelerator="auto", devices="auto")
    assert [on_device(make, index)()["devices"] for index in range(4)] == [[0], [1], [2], [3]]
    make = functools.partial(dict, accelerator="gpu", devices=[1, 3])
    assert [on_device(make, index)()["devices"] for index in range(2)] == [[1], [3]]
