import csv
import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from binaries import TINY, run
from reproduction import provenance

import lade_tf
from lade_tf import evaluation
from lade_tf.evaluation import SavedLogits
from lade_tf.files import read_json, write_json

RUN_FILES = {
    "config.json",
    "data.json",
    "history.csv",
    "tensorboard",
    "last.weights.h5",
    "previous.weights.h5",
    "best.keras",
    "test_logits.npz",
    "result.json",
    "saved_model",
}


def copy_of(run_folder, tmp_path):
    return shutil.copytree(run_folder, tmp_path / "run")


def test_a_run_folder_holds_everything(lade_run):
    assert {path.name for path in lade_run.iterdir()} == RUN_FILES
    with open(lade_run / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [1, 2, 3]
    result = json.loads((lade_run / "result.json").read_text())
    assert set(result["metrics"]) == {
        "accuracy", "accuracy_se", "many", "medium", "few", "ece", "classwise_ece", "brier", "nll",
    }  # fmt: skip
    assert {"config", "command", "versions", "hardware", "seconds", "commit"} <= set(result)
    assert result["config"]["dataset"] == "digits_lt" and result["config"]["estimator"] == "paper"


def test_a_result_names_the_variables_that_change_its_numbers(monkeypatch):
    for name in provenance.NUMERICAL:
        monkeypatch.delenv(name, raising=False)
    assert provenance.gather()["environment"] == {}
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    assert provenance.gather()["environment"] == {"TF_ENABLE_ONEDNN_OPTS": "1"}


def test_the_saved_logits_are_those_of_the_saved_model(lade_run):
    saved = SavedLogits.load(lade_run / "test_logits.npz")
    data = lade_tf.data.load("digits_lt", 20)
    model = keras.saving.load_model(lade_run / "best.keras")
    raw = model.network.predict(data.test.images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(saved.logits, raw, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(saved.labels, data.test.labels)
    np.testing.assert_array_equal(saved.counts, data.class_counts)
    np.testing.assert_allclose(saved.source_prior, 0.1)


def test_the_output_shows_accuracy_under_shifted_priors(lade_run):
    output = (lade_run.parent / "output.txt").read_text()
    for prior in ("test", "uniform", "forward:50", "backward:50"):
        assert any(line.startswith(prior) for line in output.splitlines())


def test_a_finished_run_is_shown_and_exported_if_it_was_not(lade_run, tmp_path):
    folder = copy_of(lade_run, tmp_path)
    shutil.rmtree(folder / "saved_model")
    run("train.py", *TINY, "--loss=lade", "--run_dir=run", "--export", cwd=tmp_path)
    assert (folder / "saved_model" / "saved_model.pb").exists()


def test_a_finished_run_is_shown_and_not_repeated(lade_run):
    before = {path: path.stat().st_mtime_ns for path in lade_run.iterdir()}
    output = run("train.py", *TINY, "--loss=lade", "--run_dir=lade", cwd=lade_run.parent)
    assert "is finished: shown as it is" in output and "backward:50" in output
    assert before == {path: path.stat().st_mtime_ns for path in lade_run.iterdir()}


def test_a_run_of_another_configuration_is_refused(lade_run):
    flags = ("--loss=lade", "--run_dir=lade", "--alpha=0.5", "--seed=3")
    errors = run("train.py", *TINY, *flags, cwd=lade_run.parent, fails=True)
    assert "holds a run of another configuration (alpha is 0.1 there and 0.5 now; seed is" in errors
    assert json.loads((lade_run / "config.json").read_text())["alpha"] == 0.1


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("all my work")
    errors = run("train.py", *TINY, "--loss=lade", "--run_dir=.", cwd=tmp_path, fails=True)
    assert "holds other files and no config.json" in errors
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    errors = run(
        "train.py", *TINY, "--loss=lade", "--run_dir=.", "--overwrite", cwd=tmp_path, fails=True
    )
    assert "isn't a run folder (thesis.txt)" in errors and (tmp_path / "thesis.txt").exists()


def test_evaluate_gives_the_numbers_of_the_run(lade_run, tmp_path):
    flags = (f"--run={lade_run}", f"--compare={lade_run}", "--output=metrics.json")
    assert "95 % interval" in run("evaluate.py", *flags, cwd=tmp_path)
    measured = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    result = json.loads((lade_run / "result.json").read_text())
    assert tuple(measured) == evaluation.STANDARD_PRIORS
    assert all(metrics.pop("accuracy_drawn") for metrics in measured.values())
    assert {name: measured[name] for name in result["metrics_shifted"]} == result["metrics_shifted"]
    assert measured["uniform"] == result["metrics"]
    errors = run(
        "evaluate.py", f"--run={lade_run}", "--output=metrics.json", cwd=tmp_path, fails=True
    )
    assert "--output=metrics.json exists already" in errors


@pytest.mark.parametrize("model", ["saved_model", "best.keras"])
def test_evaluate_measures_saved_models(lade_run, tmp_path, model):
    flags = (f"--model={lade_run / model}", "--dataset=digits_lt", "--output=metrics.json")
    told = ("--target_prior=uniform,backward:10", "--test_prior=uniform")
    run("evaluate.py", *flags, *told, cwd=tmp_path)
    measured = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    result = json.loads((lade_run / "result.json").read_text())
    drawn = measured["uniform"].pop("accuracy_drawn")
    assert drawn == measured["uniform"]["accuracy"]  # uniform: all images are drawn
    assert measured["uniform"] == pytest.approx(result["metrics"], rel=1e-4)
    assert measured["backward:10"]["nll"] > measured["uniform"]["nll"]


def test_evaluate_refuses_other_classes_and_other_images(lade_run, tmp_path):
    model = keras.saving.load_model(lade_run / "best.keras", compile=False)
    model.export(tmp_path / "named", class_names=list("abcdefghij"))
    flags = ("--model=named", "--dataset=digits_lt")
    errors = run("evaluate.py", *flags, cwd=tmp_path, fails=True)
    assert "class 0 is 'a' there and '0' here" in errors
    for path in (tmp_path / split / name for split in ("train", "test") for name in "abcdefghij"):
        path.mkdir(parents=True)
        pixels = np.full((8, 8, 3), 9, np.uint8)
        tf.io.write_file(str(path / "image.png"), tf.io.encode_png(pixels))
    flags = ("--model=named", "--dataset=folder", "--data_dir=.")
    errors = run("evaluate.py", *flags, cwd=tmp_path, fails=True)
    assert "takes images of shape [8, 8, 1]; those of --dataset=folder have [8, 8, 3]" in errors


def test_export_sets_the_target_prior_and_overwrites_nothing(lade_run, tmp_path):
    (tmp_path / "prior.json").write_text(json.dumps({"prior": [0.55] + [0.05] * 9}))
    flags = (f"--run={lade_run}", "--output=served", "--target_prior=prior.json")
    run("export.py", *flags, cwd=tmp_path)
    names = json.loads((tmp_path / "served" / "assets" / "class_names.json").read_text())
    assert names == list("0123456789")
    errors = run("export.py", *flags, cwd=tmp_path, fails=True)
    assert "=served exists already: give a new folder or --overwrite" in errors
    run("export.py", *flags[:2], "--target_prior=backward:50", "--overwrite", cwd=tmp_path)
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    assert served(images=tf.zeros([1, 8, 8, 1]))["probabilities"].shape == (1, 10)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "1.txt").write_text("all my work")
    flags = (flags[0], "--output=thesis", "--overwrite")
    errors = run("export.py", *flags, cwd=tmp_path, fails=True)
    assert "--output=thesis holds other things than an exported model" in errors
    assert (tmp_path / "thesis" / "1.txt").exists()


def test_export_calibrates_on_labelled_images(lade_run, tmp_path):
    test = lade_tf.data.load("digits_lt").test
    images, labels = test.images[:200], test.labels[:200]
    np.savez(tmp_path / "labelled.npz", images=images, labels=labels)
    flags = (f"--run={lade_run}", "--output=served", "--calibrate=labelled.npz")
    output = run("export.py", *flags, cwd=tmp_path)
    model = keras.saving.load_model(lade_run / "best.keras", compile=False)
    temperature = model.calibrate(images, labels)
    assert f"temperature {temperature:.3f}, from 200 labelled images" in output
    assert abs(temperature - 1) > 0.01
    assert "Warning" not in output
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    expected = tf.nn.softmax(model(images))
    found = served(images=tf.constant(images, tf.float32))["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_export_tells_of_labels_that_contradict_the_run(lade_run, tmp_path):
    test = lade_tf.data.load("digits_lt").test
    labels = test.labels[:200]
    # As if the run's logits favoured the rarer half of the classes.
    wrong = (labels >= 5) & (np.arange(200) % 2 < 1)
    labels = np.where(wrong, labels - 5, labels)
    np.savez(tmp_path / "labelled.npz", images=test.images[:200], labels=labels)
    flags = (f"--run={lade_run}", "--output=served", "--calibrate=labelled.npz")
    output = run("export.py", *flags, cwd=tmp_path)
    assert "Warning: the labelled data contradict the prior that the logits" in output


def test_an_export_of_training_gives_way_to_another(lade_run, tmp_path):
    folder = copy_of(lade_run, tmp_path)
    output = (lade_run.parent / "output.txt").read_text()
    assert output.endswith("\nThe SavedModel is in lade/saved_model\n")
    flags = (f"--run={folder}", "--target_prior=backward:50", "--overwrite")
    before = (folder / "saved_model" / "fingerprint.pb").read_bytes()
    run("export.py", *flags, cwd=tmp_path)
    assert (folder / "saved_model" / "fingerprint.pb").read_bytes() != before


def test_a_small_imbalanced_test_set_is_measured_under_every_prior(lade_run, tmp_path):
    folder = copy_of(lade_run, tmp_path)
    saved = SavedLogits.load(folder / "test_logits.npz")
    sizes = (0, 6, 6, 6, 6, 6, 6, 6, 6, 3)
    few = np.concatenate([np.flatnonzero(saved.labels == c)[:n] for c, n in enumerate(sizes)])
    small = dataclasses.replace(saved, logits=saved.logits[few], labels=saved.labels[few])
    small.save(folder / "test_logits.npz")
    result = read_json(folder / "result.json")
    write_json(folder / "result.json", {**result, "hashes": {}})
    flags = (f"--run={folder}", f"--compare={folder}")
    output = run("evaluate.py", *flags, cwd=tmp_path)
    assert output.startswith(
        "1 class without a test image, left out of every label distribution: 0\n"
        "1 class with fewer than 5 test images, whose accuracies say little: 9 (3)\n"
    )
    for name in evaluation.STANDARD_PRIORS:
        assert output.count(f"\n{name} ") == 2  # in the table, and in the comparison
    lines = [line.split() for line in output.splitlines()]
    (row,) = [line for line in lines if line[:1] == ["test"] and len(line) > 6]
    right = small.adapted_to(evaluation.prior_for(small, "test")).predicted == small.labels
    assert row[1] == f"{100 * right.mean():.2f}" and row[3] == "-"
    assert '"-" under drawn: the largest such set has under 100 images' in output  # it has 51


def test_a_run_cut_short_is_neither_evaluated_nor_exported(lade_run, tmp_path):
    unfinished = copy_of(lade_run, tmp_path)
    (unfinished / "result.json").unlink()
    for script in ("evaluate.py", "export.py"):
        flags = (f"--run={unfinished}",) + (("--output=x",) if script == "export.py" else ())
        errors = run(script, *flags, cwd=tmp_path, fails=True)
        assert "isn't finished: call its train.py command again" in errors


def cut_short(path):
    path.write_bytes(path.read_bytes()[:5000])
    return path.read_bytes()


def test_a_truncated_checkpoint_gives_way_to_the_one_before_it(lade_run, tmp_path):
    folder = copy_of(lade_run, tmp_path)
    (folder / "result.json").unlink()
    cut_short(folder / "last.weights.h5")
    run("train.py", *TINY, "--loss=lade", "--run_dir=run", cwd=tmp_path)
    logits = [np.load(path / "test_logits.npz")["logits"] for path in (folder, lade_run)]
    np.testing.assert_array_equal(*logits)


def test_without_any_whole_checkpoint_it_is_named_and_kept(lade_run, tmp_path):
    folder = copy_of(lade_run, tmp_path)
    (folder / "result.json").unlink()
    cut = [cut_short(folder / f"{name}.weights.h5") for name in ("last", "previous")]
    errors = run("train.py", *TINY, "--loss=lade", "--run_dir=run", cwd=tmp_path, fails=True)
    assert "previous.weights.h5 can't be read, it may be cut short or damaged" in errors
    assert [(folder / f"{name}.weights.h5").read_bytes() for name in ("last", "previous")] == cut


def test_nan_stops_the_run_naming_the_step(tmp_path):
    flags = ("--loss=lade", "--run_dir=run", "--learning_rate=1e30")
    errors = run("train.py", *TINY, *flags, cwd=tmp_path, fails=True)
    assert "the loss became" in errors and "at step" in errors and "(epoch 1, batch" in errors
    assert "There is no checkpoint yet" in errors and "Traceback" not in errors
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"config.json", "data.json", "tensorboard"}


def test_weights_ruined_by_the_last_step_of_an_epoch_are_not_kept(tmp_path):
    flags = ("--loss=lade", "--run_dir=run", "--learning_rate=1e38", "--batch_size=400")
    errors = run("train.py", *TINY[:2], *flags, cwd=tmp_path, fails=True)
    assert "the logits aren't finite after step 1 (the end of epoch 1)" in errors
    assert not (tmp_path / "run" / "last.weights.h5").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_runs(precision, tmp_path):
    flags = ("--loss=lade", "--run_dir=run", f"--precision={precision}")
    run("train.py", *TINY, *flags, cwd=tmp_path)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["config"]["precision"] == precision and np.isfinite(result["metrics"]["nll"])


DAMAGED = {
    "history.csv": ("epoch,loss\n1,0.5\n2", "history.csv can't be read, it may be cut short"),
    "config.json": ("[]", "config.json must hold a JSON object; it holds a list"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_before_anything_is_computed(name, lade_run, tmp_path):
    folder = copy_of(lade_run, tmp_path)
    (folder / "result.json").unlink()
    content, message = DAMAGED[name]
    (folder / name).write_text(content)
    errors = run("train.py", *TINY, "--loss=lade", "--run_dir=run", cwd=tmp_path, fails=True)
    assert message in errors and "Traceback" not in errors
    assert (folder / name).read_text() == content


def test_what_a_killed_write_left_is_no_obstacle(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tmp-123-config.json").write_text("{")
    run("train.py", *TINY, "--loss=lade", "--run_dir=run", cwd=tmp_path)
    assert not (tmp_path / "run" / "tmp-123-config.json").exists()


BAD_FLAGS = {
    "data set": (
        ["--dataset=imagenet", "--loss=lade"],
        "--dataset=imagenet --loss=lade isn't known",
    ),
    "loss": (["--dataset=digits_lt", "--loss=lad"], "Losses: softmax, balanced_softmax, logit_adj"),
    "epochs": (["--dataset=digits_lt", "--loss=lade", "--epochs=0"], "--epochs"),
    "number": (["--dataset=digits_lt", "--loss=lade", "--alpha=much"], "--alpha"),
    "data_dir": (
        ["--dataset=cifar100_lt", "--loss=lade", "--data_dir=nowhere"],
        "train.py: --data_dir must be an existing folder; got 'nowhere'\n",
    ),
    "needless data_dir": (
        ["--dataset=digits_lt", "--loss=lade", "--data_dir=x"],
        "train.py: leave out --data_dir for digits_lt, which comes with scikit-learn; got 'x'\n",
    ),
    "no data_dir": (
        ["--dataset=folder", "--loss=lade"],
        "train.py: --data_dir must be the folder that holds train/ and test/, or train.csv and "
        "test.csv; it isn't given\n",
    ),
    "one epoch": (
        ["--dataset=folder", "--loss=lade", "--epochs=1"],
        "the recipe of folder has --schedule=cosine, which ends at 0: it needs at least 2 --epochs",
    ),
    "empty data_dir": (
        ["--dataset=cifar100_lt", "--loss=lade", "--data_dir=."],
        "cifar100 is not prepared in .; this command downloads and prepares it: python -c",
    ),
    "alpha": (["--dataset=digits_lt", "--loss=lade", "--alpha=nan"], "alpha must be a finite"),
    "learning rate": (
        ["--dataset=digits_lt", "--loss=lade", "--learning_rate=0"],
        "learning_rate must be a finite number > 0",
    ),
    "seed": (["--dataset=digits_lt", "--loss=lade", "--seed=-1"], "--seed must be an integer >= 0"),
    "ratio": (
        ["--dataset=digits_lt", "--loss=softmax", "--imbalance_ratio=1000"],
        "imbalance_ratio must be at most 120",
    ),
    "argument": (["--dataset=digits_lt", "--loss=lade", "x"], "unexpected argument 'x'"),
}


@pytest.mark.parametrize("flags", BAD_FLAGS.values(), ids=BAD_FLAGS)
def test_bad_flags_are_refused_before_anything_is_written(flags, tmp_path):
    flags, message = flags
    errors = run("train.py", *flags, cwd=tmp_path, fails=True)
    assert message in errors and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_only_an_error_of_the_system_says_how_to_see_where(tmp_path):
    (tmp_path / "file").touch()
    flags = ("--loss=lade", "--run_dir=file/run")
    errors = run("train.py", *TINY, *flags, cwd=tmp_path, fails=True)
    assert errors.endswith("Not a directory: 'file/run' (--verbosity=1 shows where)\n")


BAD_EVALUATIONS = {
    "no run": (["--run=nowhere"], "nowhere isn't a run folder"),
    "SavedModel": (
        ["--run=lade/saved_model"],
        "a SavedModel: give --model=lade/saved_model --dataset=",
    ),
    "neither": ([], "give either --run or --model"),
    "typo": (["--run=lade", "--target_prior=unifrom"], "a prior must be uniform, train"),
    "empty": (["--run=lade", "--target_prior="], "--target_prior must name at least one prior"),
    "length": (["--run=lade", "--target_prior=prior.json"], "must have 10 entries, one a class"),
    "compare": (["--run=lade", "--compare=nowhere"], "nowhere isn't a run folder"),
    "output": (["--run=lade", "--output=no/x.json"], "must lie in an existing folder"),
    "data set": (["--run=lade", "--dataset=digits_lt"], "a run knows its data set"),
    "data seed": (
        ["--run=lade", "--data_seed=0"],
        "--data_seed is for --model: a run knows its data set",
    ),
    "missing": (["--model=nowhere", "--dataset=digits_lt"], "--model=nowhere doesn't exist"),
    "foreign": (
        ["--model=lade", "--dataset=digits_lt"],
        "isn't a SavedModel that lade_tf",
    ),
    "truncated": (["--model=cut.keras", "--dataset=digits_lt"], "cut.keras can't be read"),
}


@pytest.mark.slow
@pytest.mark.parametrize("flags", BAD_EVALUATIONS.values(), ids=BAD_EVALUATIONS)
def test_bad_evaluations_are_refused_in_one_message(flags, lade_run):
    folder = lade_run.parent
    (folder / "prior.json").write_text('{"prior": [0.5, 0.5]}')
    (folder / "cut.keras").write_bytes((lade_run / "best.keras").read_bytes()[:2000])
    flags, message = flags
    errors = run("evaluate.py", *flags, cwd=folder, fails=True)
    assert message in errors and "Traceback" not in errors
