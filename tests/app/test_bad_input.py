"""Bad input: one clear message, the right exit code, and nothing run."""

import json

import pytest
from PIL import Image

from p2p_bench.app.main import run_verb
from tests.app.command import PAIRS

WRONG_SETTINGS = {
    "unknown option": (["controller=replce"], "no option 'replce'. Did you mean 'replace'?"),
    "unknown option in a list": (["logger=[csv,wndb]"], "no option 'wndb'. Did you mean 'wandb'?"),
    "unknown experiment": (["experiment=dmo"], "no option 'dmo'. Did you mean 'demo'?"),
    "unknown key": (["tau.cros=0.2"], "unknown key 'cros'. Did you mean 'cross'?"),
    "unknown key of a component": (["controller.crss=0.2"], "unknown key 'crss'. Did you mean 'cross'?"),
    "unknown key, forced": (["+controller.crss=0.2"], "takes no such argument. Did you mean 'cross'?"),
    "unknown group": (["contrller=none"], "unknown key 'contrller'. Did you mean 'controller'?"),
    "unknown root key, forced": (["+extra=3"], "extra: unknown key"),
    "unknown key of a typed node, forced": (
        ["+run.imges=3"],
        "unknown key. Did you mean 'images'?",
    ),
    "unknown key in a schedule": (["tau.sweep=[{cross: 1, slf: 0}]"], "unknown key 'slf'."),
    "wrong type": (["seed=x"], "seed=x: Value 'x' of type 'str' could not be converted to Integer"),
    "wrong type of a component": (
        ["dataset.limit=many"],
        "dataset.limit: expected an integer or null, got 'many'",
    ),
    "tau above one": (["tau.cross=1.5"], "tau.cross: expected values in [0, 1]"),
    "tau interval": (["tau.self_attn=[0.5,0.2]"], "ends before it starts"),
    "tau in a sweep": (
        ["tau.sweep=[{cross: 0.1}, {cross: -1}]"],
        "tau.sweep[1].cross: expected values in [0, 1]",
    ),
    "several values": (["tau.cross=0.2,0.4"], "add -m for a job each"),
    "no setting": (["tau.cross=0.2", "nonsense"], "'nonsense' is not a setting; expected KEY=VALUE"),
    "group set to a number": (["model=3"], "model=3"),
    "no pairs at a time": (["run.batch_size=0"], "run.batch_size: expected at least 1"),
    "missing value": (["controller=reweight"], "controller.weights: a value is required"),
    "no steps": (["sampler.steps=0"], "steps: expected at least 1"),
    "limit": (["dataset.limit=0", "metrics=none"], "dataset.limit: expected at least 1"),
    "a text from the environment": (["seed=${oc.env:PATH}"], "seed: expected an integer, got"),
    "a reference to nothing": (["run.name=${nope}"], "run.name: Interpolation key 'nope' not found"),
    "a reference in a component": (["sampler.steps=${nope}"], "sampler: Interpolation key 'nope' not found"),
    "a range without a step": (["-m", "seed=range(0,1,0)"], "the step of a range cannot be 0"),
    "a range without an end": (["-m", "seed=range(0,1000000000000)"], "expected at most"),
    "a glob": (["-m", "seed=glob(*)"], "glob() is not known here"),
    "half a trainer": (["trainer._partial_=false"], "trainer._partial_"),
    "a flag alone": (["--resolve"], "--resolve goes with --cfg"),
    "another configuration": (["--config-dir=/nowhere"], "--config-dir: there is no folder /nowhere"),
    "its short form": (["-cd", "/nowhere"], "--config-dir: there is no folder /nowhere"),
    "another root": (["--config-name", "x"], "--config-name: the benchmark has one configuration"),
    "a stored run": (["--experimental-rerun=x.pickle"], "p2p-bench resume DIR"),
    "several devices": (["trainer.devices=2", "trainer.accelerator=cpu"], "this trainer uses one device"),
    "a strategy": (["trainer.strategy=fsdp"], "trainer.strategy: expected auto"),
    "no accelerator": (["trainer.accelerator=foo"], "trainer: You selected an invalid accelerator"),
    "another precision": (["trainer.precision=16-mixed"], "model.dtype=bfloat16"),
    "half of the batches": (["trainer.limit_test_batches=0.5"], "dataset.limit=N"),
    "one batch": (["trainer.limit_test_batches=1"], "expected 1.0, all batches, got 1"),
    "a try": (["trainer.fast_dev_run=true"], "trainer.fast_dev_run: expected false"),
    "callbacks": (["trainer.callbacks=[1]"], "the run brings its own"),
    "a group without options": (["metrics=[]"], "metrics: expected an option's node"),
    "two models": (["model=[world,local]"], "expected one option of group 'model'"),
    "nothing before the sign": (["=3"], "'=3' is not a setting"),
    "nothing": ([""], "'' is not a setting"),
    "nothing after the sign": (["seed="], "seed=: Value ''"),
    "a key taken away": (["~seed"], "seed: is missing"),
    "a group taken away": (["~sampler"], "sampler: expected an option's node"),
    "a node taken away": (["~run"], "run: expected its settings"),
    "a quote that does not close": (['run.name="a'], "its value cannot be read"),
    "a large seed": (["seed=99999999999999999999999"], "seed: expected at least 0 and below"),
}


@pytest.mark.parametrize(("overrides", "message"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_wrong_settings_stop_with_one_message(command, overrides, message):
    outcome = command(*overrides)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("error:") == 1
    assert "Traceback" not in outcome.err
    assert not command.ran


def test_all_faults_are_listed_at_once(command):
    outcome = command("tau.cros=1", "controller=replce", "seed=x")
    assert outcome.code == 2
    assert "3 faults" in outcome.err
    assert all(word in outcome.err for word in ("'cros'", "'replce'", "seed=x"))
    outcome = command("tau.cross=2", "seed=-1", "sampler.steps=0")
    assert "3 faults" in outcome.err
    assert all(word in outcome.err for word in ("tau.cross", "seed:", "steps:"))


def test_faults_of_all_parts_are_listed_together(command):
    outcome = command(
        "seed=${nope}", "trainer.fast_dev_run=3", "run.batch_size=0", "model._target_=os.system"
    )
    assert outcome.code == 2
    assert "4 faults" in outcome.err


def test_every_choice_of_a_sweep_is_checked_before_a_job_starts(command):
    outcome = command("-m", "tau.cross=0.2,1.7", "controller=auto,refin")
    assert outcome.code == 2
    assert "'refin'" in outcome.err
    outcome = command("-m", "tau.cross=0.2,1.7", "seed=0,1")
    assert outcome.code == 2
    assert "tau.cross: expected values in [0, 1] (a share of the steps), got 1.7" in outcome.err
    assert not list(command.folder.glob("outputs/*"))


def test_debug_shows_the_stack_trace(command):
    assert "Traceback" in command("run", "controller=replce", debug=True).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rn"], "neither a verb nor KEY=VALUE. Did you mean 'run'?"),
        (["--unknown"], "unrecognized arguments"),
        (["edit", "--source", "a cat"], "--target"),
        (["edit", "--source", "a cat", "--target", "a dog", "--imge", "x.png"], "--imge"),
        (["edit", "--source", "a cat", "--target", "a dog", "controller=nne"], "Did you mean 'none'?"),
        (["report", "nowhere"], "no such directory"),
        (["report"], "dir"),
    ],
)
def test_wrong_usage(command, arguments, message):
    outcome = command(*arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_absent_models_leave_with_three(command):
    outcome = command("model=sd14", "metrics=none")
    assert outcome.code == 3
    assert "hf download" in outcome.err
    outcome = command("model=local", "model.path=/nowhere", "metrics=none")
    assert outcome.code == 3
    assert "/nowhere" in outcome.err


BAD_PROMPTS = {
    "too long": (
        {"source": "a cat", "target": "a cat and a dog and a cat and a dog and a cat and a dog"},
        [],
        "3 tokens too long",
    ),
    "empty": ({"source": "a cat", "target": "  "}, [], "target_prompt: is empty"),
    "unequal word counts": (
        {"source": "a cat", "target": "a red cat"},
        ["controller=replace"],
        "equally many words",
    ),
    "missing word": (
        {"source": "a cat", "target": "a dog", "word_weights": {"dg": 2}},
        [],
        "word 'dg' is not in the prompt 'a dog'. Did you mean 'dog'?",
    ),
    "missing image": ({"source": "a cat", "target": "a dog", "image": "none.png"}, [], "none.png"),
    "image outside the root": (
        {"source": "a cat", "target": "a dog", "image": "../x.png"},
        [],
        "leaves the root",
    ),
}


@pytest.mark.parametrize(("pair", "overrides", "message"), BAD_PROMPTS.values(), ids=BAD_PROMPTS)
def test_a_data_set_of_bad_pairs_stops_before_the_model_is_loaded(command, pair, overrides, message):
    outcome = command.bench(*overrides, pairs=[pair])
    assert outcome.code == 2
    assert message in outcome.err
    assert "loading" not in outcome.err
    assert not command.ran


def test_truncate_cuts_long_prompts(command):
    pair = {"source": "a cat", "target": "a dog and a cat and a dog and a cat and a dog and a cat"}
    assert command.bench("run.truncate=true", pairs=[pair]).code == 0


def test_broken_lines_are_all_named(command):
    (command.folder / "broken.jsonl").write_text('{"source": "a cat"\n{"source": 3, "target": "a dog"}\n')
    outcome = command.bench("dataset.path=broken.jsonl")
    assert outcome.code == 2
    assert "broken.jsonl, line 1: broken JSON" in outcome.err
    assert "broken.jsonl, line 2: source_prompt: expected text" in outcome.err


def test_a_bad_pair_becomes_a_row_and_the_others_are_edited(command):
    Image.new("RGB", (16, 16), "red").save(command.folder / "good.png")
    (command.folder / "damaged.png").write_bytes(b"no image")
    bad = [
        {
            "id": "long",
            "source": "a cat",
            "target": "a cat and a dog and a cat and a dog and a cat and a dog",
        },
        {"id": "absent", "source": "a cat", "target": "a dog", "image": "absent.png"},
        {"id": "damaged", "source": "a cat", "target": "a dog", "image": "damaged.png"},
        {"id": "good", "source": "a cat", "target": "a dog", "image": "good.png"},
    ]
    outcome = command.bench("run.dir=out", pairs=[*PAIRS, *bad])
    assert outcome.code == 1
    assert "3 of 8 edits failed" in outcome.err
    assert all(name in outcome.err for name in ("'long'", "'absent'", "'damaged'"))
    summary = json.loads((command.folder / "out" / "summary.json").read_text())
    assert summary["variants"]["auto"]["count"] == 5
    assert summary["variants"]["auto"]["failed"] == 3


def test_an_unexpected_error_is_one_line(monkeypatch, capsys):
    def fail(arguments, debug):
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr("p2p_bench.app.verbs.doctor.main", fail)
    assert run_verb(["doctor"]) == 1
    assert "unexpected RuntimeError: the disk is on fire" in capsys.readouterr().err
