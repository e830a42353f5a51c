"""The page is used as a reader uses it: real keys and clicks in a headless Chromium."""

import base64
import dataclasses
import gzip
import json
import pathlib
import re
import shutil
import socket
import subprocess

import binaries
import numpy as np
import pytest
import report
from reproduction import finished_runs

from lade_tf import evaluation, priors
from lade_tf.evaluation import SavedLogits
from lade_tf.files import write_json
from lade_tf.metrics.accuracy import shot_groups

METRICS = ("accuracy", "many", "medium", "few", "ece", "classwise_ece", "brier", "nll")
HOSTILE = "</script><script>window.hacked = 1</script>{{DATA}}&amp;"
FEW_COUNTS, MANY_COUNTS = np.array([300, 120, 60, 10]), np.arange(250, 50, -2) // 2
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9}


def write_run(folder, counts, per_class, entangled=False, seed=0, names=None):
    """Writes the folder of a finished run with random logits that lean to the labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), per_class).astype(np.int32)
    logits = rng.normal(size=(len(labels), len(counts))) + 2 * np.eye(len(counts))[labels]
    prior = priors.class_prior(counts) if entangled else priors.uniform_prior(len(counts))
    folder.mkdir(parents=True)
    SavedLogits(
        logits=(logits + entangled * np.log(prior)).astype(np.float32),
        labels=labels,
        counts=counts,
        source_prior=prior,
        class_names=np.array(names or [f"class {c}" for c in range(len(counts))]),
    ).save(folder / "test_logits.npz")
    config = {"dataset": "made_up", "loss": "softmax", "estimator": None, "epochs": 3, "seed": seed}
    config |= {"data_seed": 0, "precision": "float32"}
    write_json(folder / "result.json", {"config": config, "command": "a <b> & c"})
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folders of two runs of 4 classes, 30 test images each, and their page."""
    folder = tmp_path_factory.mktemp("small")
    names = ["apple", HOSTILE, "pear", "ü"]
    paths = [
        write_run(folder / "entangled", FEW_COUNTS, 30, entangled=True, names=names),
        write_run(folder / "b<i>", FEW_COUNTS, 30, seed=1, names=names),
    ]
    report.write_report(paths, folder / "report.html")
    return paths, folder / "report.html"


def embedded(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*)</script>', text)[1]
    )


def test_the_page_holds_the_exact_logits_and_priors(small):
    paths, page = small
    data = embedded(page)
    assert [run["name"] for run in data["runs"]] == ["entangled", "b<i>"]
    for path, run in zip(paths, data["runs"], strict=True):
        saved = finished_runs.load_run(path).saved
        logits = np.frombuffer(gzip.decompress(base64.b64decode(run["logits"])), "<f4")
        np.testing.assert_array_equal(logits.reshape(saved.logits.shape), saved.logits)
        np.testing.assert_array_equal(run["source_prior"], saved.source_prior)
        np.testing.assert_array_equal(data["labels"], saved.labels)
    assert run["groups"] == [0, 0, 1, 2] and data["class_names"][1] == HOSTILE
    assert [stop["name"].replace(" ", ":") for stop in data["stops"]] == [*evaluation.SHIFTS[::-1]]
    np.testing.assert_array_equal(
        data["stops"][0]["prior"], evaluation.named_prior("backward:50", FEW_COUNTS, 30)
    )


def test_the_page_is_self_contained_and_has_a_table_without_javascript(small):
    paths, page = small
    text = page.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|\bsrc\s*=|@import|url\(", text)
    assert "default-src 'none'" in text and text.count("</script>") == 2
    table = re.search(r"<pre>(.*?)</pre>", text, re.DOTALL)[1]
    uniform = priors.uniform_prior(4)
    accuracy = evaluation.evaluate(finished_runs.load_run(paths[1]).saved, uniform, uniform)
    assert re.search(rf"^b&lt;i&gt; +{100 * accuracy['accuracy']:.2f} ", table, re.MULTILINE)


def test_bad_input_is_refused(small, tmp_path):
    (first, _), page = small
    output = tmp_path / "report.html"
    other = write_run(tmp_path / "other", MANY_COUNTS, 2)
    reversed_ranks = write_run(
        tmp_path / "ranks", FEW_COUNTS[::-1], 30, names=embedded(page)["class_names"]
    )
    no_config = shutil.copytree(first, tmp_path / "no_config")
    (no_config / "result.json").write_text("{}")
    cases = {
        "--runs must name at least one run folder": ([], output),
        "nowhere must hold a finished run": (["nowhere"], output),
        "must lie in an existing folder": ([first], tmp_path / "no" / "report.html"),
        "exists already: give a new file or --overwrite": ([first], page),
        "must be tested on the same images": ([first, other], output),
        "must rank the classes alike": ([first, reversed_ranks], output),
        "result.json must hold the run's config": ([no_config], output),
    }
    for message, arguments in cases.items():
        with pytest.raises(ValueError, match=message):
            report.write_report(*arguments)
    assert not output.exists()


def test_the_binary_overwrites_when_told(small, tmp_path):
    (first, second), _ = small
    (tmp_path / "report.html").write_text("another page")
    flags = (f"--runs={first},{second}", "--output=report.html", "--overwrite")
    binaries.run("report.py", *flags, cwd=tmp_path)
    assert len(embedded(tmp_path / "report.html")["runs"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


class Browser:
    """A headless Chromium, spoken to in the DevTools protocol over its debugging pipe."""

    def __init__(self, program, home):
        self.pipe, theirs = socket.socketpair()
        self.pipe.settimeout(60)
        # Chromium reads commands from descriptor 3 and answers on 4.
        redirect = f'exec "$@" 3<&{theirs.fileno()} 4<&3'
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ]
        command += ["--remote-debugging-pipe", f"--user-data-dir={home}", "--window-size=1100,1000"]
        self.process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", *command],
            pass_fds=[theirs.fileno()],
            env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
            stderr=subprocess.DEVNULL,
        )
        theirs.close()
        self.unread, self.sent, self.events, self.session = b"", 0, [], {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Returns the answer to one command; what is reported meanwhile goes to `events`."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params, **self.session}
        self.pipe.sendall(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.unread:
                received = self.pipe.recv(1 << 20)
                assert received, f"Chromium ended, exit code {self.process.wait()}"
                self.unread += received
            line, self.unread = self.unread.split(b"\0", 1)
            answer = json.loads(line)
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def evaluate(self, expression):
        options = {"awaitPromise": True, "returnByValue": True}
        result = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def open(self, page):
        self.events.clear()
        self.call("Page.navigate", url=pathlib.Path(page).resolve().as_uri())
        self.evaluate(
            "new Promise(done => document.readyState === 'complete' ? done() : "
            "window.addEventListener('load', done)).then(() => ladeReport.ready)"
        )

    def press(self, *keys):
        for key in keys:
            options = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            self.call("Input.dispatchKeyEvent", type="rawKeyDown", **options)
            self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def click(self, element_id):
        rectangle = f"document.getElementById('{element_id}').getBoundingClientRect()"
        x, y = self.evaluate(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({rectangle})")
        for kind in ("mousePressed", "mouseReleased"):
            options = {"x": x, "y": y, "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **options)

    def metrics(self):
        return self.evaluate("ladeReport.metrics()")

    def screenshot(self, path):
        image = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        pathlib.Path(path).write_bytes(image)
        return image

    def close(self):
        self.call("Browser.close")
        self.pipe.close()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    programs = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, programs)), None)
    if program is None:
        pytest.skip(f"needs a Chromium; none of {', '.join(programs)} is installed")
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def group_confusion(saved, target, test):
    """Returns [3, 3] shares of the images: true group, group of the predicted class."""
    with np.errstate(divide="ignore"):  # a target prior may be 0
        logits = saved.logits - np.log(saved.source_prior) + np.log(target)
    group = np.argmax(list(shot_groups(saved.counts).values()), axis=0)
    confusion = np.zeros((3, 3))
    weights = test[saved.labels] / np.bincount(saved.labels)[saved.labels]
    np.add.at(confusion, (group[saved.labels], group[logits.argmax(axis=1)]), weights)
    return confusion


def check_numbers(shown, paths, prior):
    """The page's numbers are those of evaluate.py, to 4 digits, for every run on it."""
    for run, path in zip(shown["runs"], paths, strict=True):
        saved = finished_runs.load_run(path).saved
        told = prior if shown["told"] else saved.source_prior
        expected = evaluation.evaluate(saved, told, prior)
        for name in METRICS:
            assert run[name] == pytest.approx(expected[name], abs=5e-5), name
        np.testing.assert_allclose(run["confusion"], group_confusion(saved, told, prior), atol=1e-6)


def test_every_stop_of_the_control_shows_the_numbers_of_evaluate(small, browser, tmp_path):
    paths, page = small
    browser.open(page)
    assert browser.metrics()["stop"] == "uniform" and browser.metrics()["told"]
    before = browser.screenshot(tmp_path / "before.png")
    browser.evaluate("document.getElementById('stop').focus()")
    browser.press("Home")
    for stop in embedded(page)["stops"]:
        shown = browser.metrics()
        assert shown["stop"] == stop["name"]
        prior = evaluation.named_prior(stop["name"].replace(" ", ":"), FEW_COUNTS, 30)
        check_numbers(shown, paths, prior)
        browser.press("ArrowRight")
    assert browser.screenshot(tmp_path / "after.png") != before
    browser.click("told")
    shown = browser.metrics()
    assert shown["stop"] == "forward 50" and not shown["told"]
    check_numbers(shown, paths, evaluation.named_prior("forward:50", FEW_COUNTS, 30))
    cell = browser.evaluate("document.querySelector('#metrics tbody td').textContent")
    assert cell == f"{100 * shown['runs'][0]['accuracy']:.2f}"
    assert cell in browser.evaluate("document.getElementById('status').textContent")
    browser.click("uniform")
    assert browser.metrics()["stop"] == "uniform"


def test_the_test_set_is_shown_as_it_is(browser, tmp_path):
    folder = write_run(tmp_path / "run", FEW_COUNTS, 30)
    saved = SavedLogits.load(folder / "test_logits.npz")
    kept = np.flatnonzero((saved.labels != 3) & (np.arange(120) >= 25))  # 5, 30, 30 and 0 images
    images = dataclasses.replace(saved, logits=saved.logits[kept], labels=saved.labels[kept])
    images.save(folder / "test_logits.npz")
    report.write_report([folder], tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    check_numbers(browser.metrics(), [folder], np.array([1, 1, 1, 0]) / 3)
    browser.click("as-it-is")
    shown = browser.metrics()
    assert shown["stop"] == "the test set as it is"
    np.testing.assert_allclose(shown["prior"], np.array([5, 30, 30, 0]) / 65)
    check_numbers(shown, [folder], np.array(shown["prior"]))
    weights = "[...document.querySelectorAll('#weights input')]"
    assert browser.evaluate(f"{weights}.map((input) => input.disabled)") == [False] * 3 + [True]
    assert browser.evaluate(f"{weights}.map((input) => input.value)") == ["17", "100", "100", "0"]


def test_the_prior_is_set_class_by_class(small, browser):
    paths, page = small
    browser.open(page)
    browser.evaluate("document.getElementById('weight-1').focus()")
    browser.press("Home")  # a class that does not occur any more
    shown = browser.metrics()
    assert shown["stop"] == "set class by class"
    np.testing.assert_allclose(shown["prior"], [1 / 3, 0, 1 / 3, 1 / 3])
    assert shown["runs"][0]["classAccuracy"][1] is None
    check_numbers(shown, paths, np.array([1 / 3, 0, 1 / 3, 1 / 3]))
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.id") == "weight-2"
    browser.press(*["ArrowLeft"] * 20)
    check_numbers(browser.metrics(), paths, np.array([100, 0, 80, 100]) / 280)
    for c in (0, 2, 3):
        browser.evaluate(f"document.getElementById('weight-{c}').focus()")
        browser.press("Home")
    assert browser.metrics()["prior"] == [0, 0, 0, 1]  # the last weight stays in force
    status = browser.evaluate("document.getElementById('status').textContent")
    assert status == "Give at least one class a weight: nothing was changed."


def test_names_are_text_and_nothing_is_loaded(small, browser):
    _, page = small
    browser.open(page)
    assert browser.evaluate("window.hacked") is None
    label = "document.querySelector('label[for=weight-1]').textContent"
    assert browser.evaluate(label) == HOSTILE
    heading = browser.evaluate(
        "document.querySelector('#figures section:nth-child(2) h2').innerHTML"
    )
    assert heading == "b&lt;i&gt;"
    urls = {
        event["params"]["request"]["url"]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert urls == {page.resolve().as_uri()}
    assert not [e for e in browser.events if e["method"] == "Runtime.exceptionThrown"]


def test_the_edges_of_the_bins_are_those_of_the_metrics(small, browser):
    edges = np.arange(21) / 20
    values = np.concatenate([edges, np.nextafter(edges[1:], 0), np.nextafter(edges[:-1], 1)])
    expected = np.minimum(np.searchsorted(edges, values, side="right") - 1, 19)
    browser.open(small[1])
    assert browser.evaluate(f"{values.tolist()}.map(binOf)") == expected.tolist()


def test_a_hundred_classes(browser, tmp_path):
    folder = write_run(tmp_path / "run", MANY_COUNTS, 50, entangled=True)
    report.write_report([folder], tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert browser.evaluate("document.getElementById('classes').hidden")
    browser.evaluate("document.getElementById('stop').focus()")
    for key, name in (("Home", "backward:50"), ("End", "forward:50"), ("ArrowLeft", "forward:25")):
        browser.press(key)
        shown = browser.metrics()
        assert shown["stop"] == name.replace(":", " ")
        check_numbers(shown, [folder], evaluation.named_prior(name, MANY_COUNTS, 50))
