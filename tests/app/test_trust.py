"""Settings run no code but the package's own, whoever wrote them."""

import pickle

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from p2p_bench.app.compose import compose, group_options
from p2p_bench.app.schema import COMPONENT_GROUPS, SEVERAL
from p2p_bench.app.trust import stored_faults, target_faults
from tests.app.command import tiny_overrides, write_pairs

HARM = "{_target_: pathlib.Path.touch, self: {_target_: pathlib.Path, _args_: [harmed]}}"
"""A node that leaves a file where it is built."""

TYPED = {
    "a model": ["model._target_=torch.load", "+model.weights_only=false"],
    "a function through a module of the package": ["controller._target_=p2p_bench.controllers.Any"],
    "a module of the package's": ["controller._target_=p2p_bench.controllers.tau.math.sqrt"],
    "a class of another group": ["inversion._target_=p2p_bench.controllers.Replace"],
    "a helper of the group's package": ["dataset._target_=p2p_bench.data.images.load_image"],
    "inside a component": [f"tau.cross={HARM}"],
    "one of several": [f"+metrics.x={HARM}"],
    "a logger": [f"logger=csv,'+logger.x={HARM}'"],
    "positional arguments": ["+model._args_=[x]"],
    "half a component": ["+sampler._partial_=true"],
    "a whole trainer": ["trainer._partial_=false"],
    "conversion": ["+dataset._convert_=object"],
    "a callback": [f"+hydra.callbacks.x={HARM}"],
    "a launcher": ["hydra.launcher._target_=os.system"],
    "inside a launcher": ["-m", "seed=0,1", f"+hydra.launcher.x={HARM}"],
    "a reference in a launcher": ["-m", "seed=0,1", "+hydra.launcher.x=${tau.cross}"],
    "a sweeper": ["-m", "seed=0,1", "hydra.sweeper._target_=os.system"],
    "a handler of the log": ["hydra.job_logging.handlers.file.class=os.system"],
    "a stream of the log": ["+hydra.job_logging.handlers.file.stream=ext://os.environ"],
}


@pytest.mark.parametrize("overrides", TYPED.values(), ids=TYPED)
def test_typed_settings_run_no_foreign_code(command, overrides):
    outcome = command.bench("metrics=none", *overrides)
    assert outcome.code == 2, outcome.err
    assert "unexpected" not in outcome.err
    assert not (command.folder / "harmed").exists()
    assert not command.ran


def test_a_user_may_trust_classes_of_their_own(command):
    own = "+metrics.own._target_=tests.metrics_of_a_user.Own"
    outcome = command.bench("metrics=pixel", own)
    assert outcome.code == 2
    assert "run.trust=true takes any class" in outcome.err
    outcome = command.bench("metrics=pixel", own, "run.trust=true")
    assert "cannot be imported" in outcome.err  # it is looked for, as nothing else forbids


@settings(max_examples=60, deadline=None)
@given(
    target=st.sampled_from(["os.system", "torch.load", "builtins.eval", "p2p_bench.app.main.main", "x", ""]),
    path=st.lists(st.one_of(st.sampled_from(["a", "inner", "controllers"]), st.integers(0, 2)), max_size=4),
    group=st.sampled_from(COMPONENT_GROUPS),
)
def test_a_foreign_target_is_found_wherever_it_stands(target, path, group):
    node = {"_target_": target}
    for step in reversed(path):
        node = [None] * step + [node] if isinstance(step, int) else {step: node}
    assert list(target_faults({"x": node}, group, group, trusted=False))


@pytest.mark.parametrize("group", COMPONENT_GROUPS)
def test_what_is_shipped_may_be_named(group):
    for option in group_options(group):
        node = OmegaConf.to_container(compose([f"{group}={option}"])[group], resolve=False)
        for where, one in node.items() if group in SEVERAL else ((group, node),):
            assert not list(target_faults(one, where, group, trusted=False)), option


STORED = {
    "a pickle": ["model._target_=torch.load", "+model.f=evil.pkl", "+model.weights_only=false"],
    "options from elsewhere": ["hydra.searchpath=[file:///tmp/evil]"],
    "an option from elsewhere": ["+experiment=../../../../tmp/evil"],
    "trust": ["run.trust=true"],
    "trust in a node": ["run={trust: true}"],
    "the environment": ["run.name=${oc.env:HOME}"],
    "another resolver": ["seed=${oc.decode:'3'}"],
    "a log": ["hydra.job_logging.root.level=DEBUG"],
    "a callback": ["+hydra.callbacks.x.y=1"],
    "a shell command of a launcher": ["hydra/launcher=basic", "+hydra.launcher.setup=[reboot]"],
    "a folder to write to": ["run.cache=/tmp/elsewhere"],
    "a file to write to": ["logger=csv", "+logger.csv.filename=../../x"],
    "a flag": ["--config-dir=/tmp/evil"],
    "the environment of the job": ["+hydra.job.env_set.PATH=/tmp/evil"],
    "another folder of the job": ["hydra.sweep.subdir=/tmp/evil"],
}


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
def test_a_received_folder_runs_and_writes_nothing(command, stored, sweep):
    class Evil:
        def __reduce__(self):
            return (open, ("harmed", "w"))

    (command.folder / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    folder = command.folder / "received"
    folder.mkdir()
    tiny = tiny_overrides(write_pairs(command.folder / "pairs.jsonl"))
    settings_of_run = [*tiny, "logger=none", *stored]
    if sweep:
        sweeper = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"}
        hydra = {
            "sweeper": sweeper,
            "runtime": {"cwd": str(command.folder)},
            "overrides": {"task": settings_of_run, "hydra": ["hydra.mode=MULTIRUN"]},
        }
        (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    else:
        started = {"overrides": settings_of_run, "group": "", "job": "", "cwd": str(command.folder)}
        (folder / "config.yaml").write_text(yaml.safe_dump({"started": started}))
    outcome = command("resume", str(folder))
    assert outcome.code == 2, outcome.err
    assert "if it is your own, add --trust" in outcome.err
    assert "unexpected" not in outcome.err
    assert not (command.folder / "harmed").exists()
    assert not command.ran


def test_a_folder_of_ones_own_is_resumed_with_trust(command):
    settings_of_run = ("run.cache=kept", "logger=none", "run.images=0", "run.dir=out")
    assert command.bench(*settings_of_run).code == 0
    assert command("resume", "out").code == 2
    assert command("resume", "out", "--trust").code == 0


def test_usual_settings_are_resumed_without_trust():
    usual = [
        "experiment=demo", "tau.cross=[0.2,0.8]", "controller.cross=${tau.cross}", "model.path=/models/x y",
        "hydra/launcher=shared_joblib", "hydra.launcher.inner.n_jobs=2", "seed=1,2", "metrics=none",
        "++inversion.learning_rate=0.1", "run.optional=[inversion.learning_rate]",
    ]  # fmt: skip
    assert [str(fault) for fault in stored_faults(usual)] == []
