"""Reader studies: the page that readers get, driven in a browser where there is one, and what is made of their answers."""

import base64
import csv
import json
import re
import shlex
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from medjax.evaluation.answers import read_answers, read_key, summarise
from medjax.evaluation.compare import Sample
from medjax.evaluation.readers import Images, arrange, key_of, shown_cases, shown_images
from medjax.report.images import LEVELS
from medjax.report.readers import Picture, write
from medjax.types import Record, UserError
from tests.browser import Browser, chromium
from tests.commands import DRAWN, ROOT, command

METHODS = ("model", "tv")
WINDOW = (-1024.0, 3071.0)  # so that a step is 1 HU
QUESTION = 'Which <image> would "you" rather report from?'
SAMPLES = 6
needs_chromium = pytest.mark.skipif(chromium() is None, reason="no Chromium or Chrome is installed: apt install chromium")


def images(volumes: bool = False, colours: bool = False) -> Images:
    """Two samples of each of three patients, the second method brighter by 100 HU."""
    random, samples = np.random.default_rng(0), []
    for i in range(SAMPLES):
        shape = (5, 24, 30) if volumes else (24, 30)
        blocks = random.integers(-1000, 2900, (*shape[:-2], 4, 5, 3 if colours else 1))
        image = blocks.repeat(6, -3).repeat(6, -2).astype(np.float32)
        record = Record(image, f"pseudonym{i}", f"patient{i // 2}", spacing_mm=(2.0,) * (len(shape) - 2) + (2.0, 1.0))
        samples.append(Sample(f"pseudonym{i}", record, {"model": image, "tv": image + 100}, image[..., 0] > 0, {}))
    return Images(METHODS, samples, [sample.record.subject for sample in samples], WINDOW, "HU", 100)


def study_in(folder: Path, scale: str = "preference", repeats: int = 2, seed: int = 0, made: Images | None = None) -> Path:
    made = made or images()
    study = arrange(METHODS, SAMPLES, scale, repeats, seed)
    folder.mkdir(exist_ok=True)
    write(folder / "study.html", study=study.code, scale=scale, question=QUESTION, window=made.window, units=made.units,
          cases=shown_cases(study), images=shown_images(made, study))
    (folder / "key.json").write_text(json.dumps(key_of(Path("runs/one"), made, study, scale, QUESTION, seed)))
    return folder


def answers_in(folder: Path, reader: str, answer) -> Path:
    """A reader's file, of what `answer` says of a case of the key."""
    key = json.loads((folder / "key.json").read_text())
    path = folder / f"answers-{reader}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study", "reader", "case", "answer", "seconds"])
        for i, (code, case) in enumerate(key["cases"].items()):
            writer.writerow([key["study"], reader, code, answer(case), f"{i + 1}.0"])
    return path


def side(case, method: str) -> str:
    return ("left", "right")[case["methods"].index(method)]


@pytest.mark.parametrize("scale", ["preference", "rating"])
def test_cases_are_shuffled_with_balanced_sides_and_repeats_later(scale):
    study = arrange(METHODS, 20, scale, 6, 3)
    first = [case for case in study.cases if not case.repeat_of]
    assert sorted((case.sample, *sorted(case.methods)) for case in first) == (
        [(i, *METHODS) for i in range(20)] if scale == "preference" else [(i, m) for i in range(20) for m in METHODS])
    if scale == "preference":
        assert sum(case.methods[0] == "model" for case in first) == 10
    assert [case.sample for case in first] != sorted(case.sample for case in first)
    place = {case.code: i for i, case in enumerate(study.cases)}
    known = {case.code: case for case in study.cases}
    repeats = [case for case in study.cases if case.repeat_of]
    assert len({case.repeat_of for case in repeats}) == 6
    for case in repeats:
        assert case.methods == known[case.repeat_of].methods[::-1]
        assert case.sample == known[case.repeat_of].sample
        assert place[case.code] > place[case.repeat_of] + min(10, len(study.cases) - place[case.repeat_of] - 7)
    assert len({study.code, *place, *study.images.values()}) == 1 + len(study.cases) + 40
    assert arrange(METHODS, 20, scale, 6, 3) == study != arrange(METHODS, 20, scale, 6, 4)
    assert len(arrange(METHODS, 3, "preference", 99, 3).cases) == 6
    with pytest.raises(UserError, match="--repeats: -1; give 0 or more"):
        arrange(METHODS, 20, scale, -1, 3)


@pytest.mark.parametrize("kind", ["slices", "volumes", "colours", "anatomical"])
def test_the_page_has_every_value_and_says_nothing_of_methods(tmp_path, kind):
    made = images(volumes=kind == "volumes", colours=kind == "colours")
    study = arrange(METHODS, SAMPLES, "preference", 2, 0)
    shown = [(code, Picture(p.values, p.spacing_mm, kind == "anatomical")) for code, p in shown_images(made, study)]
    write(tmp_path / "study.html", study=study.code, scale="preference", question=QUESTION, window=WINDOW, units="HU",
          cases=shown_cases(study), images=shown)
    html = (tmp_path / "study.html").read_text()
    content = json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', html, re.DOTALL)[1])
    for (sample, method), code in study.images.items():
        text = re.search(rf'id="image-{code}">(.*?)</script>', html)[1]
        high, low = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, -1).astype(np.uint16)
        values = WINDOW[0] + np.cumsum(high * 256 + low, dtype=np.uint16) / LEVELS * (WINDOW[1] - WINDOW[0])
        depth, height, width, channels = content["images"][code]["shape"]
        found = values.reshape(depth, height, width, channels)
        expected = made.samples[sample].images[method].reshape(found.shape)
        np.testing.assert_allclose(found, expected[:, ::-1, ::-1] if kind == "anatomical" else expected, atol=1e-6)
        assert content["images"][code]["spacing"] == [2.0, 1.0]
    assert [(case["code"], case["images"]) for case in content["cases"]] == shown_cases(study)
    assert list(content["images"]) == sorted(content["images"])
    without = re.sub(r'<script type="text/plain".*?</script>', "", html)
    without = re.sub(r"(--|\.)model", "", without)  # colours and classes of the style sheet
    assert not re.search(r"model|tv\b|pseudonym|patient|http:|https:|src=", without)
    assert "default-src 'none'" in html
    assert "&lt;image&gt;" in html
    assert "<image>" not in html


def test_too_large_a_page_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("medjax.report.readers.MOST_BYTES", 1000)
    with pytest.raises(UserError, match="--cases: the images take more than"):
        study_in(tmp_path)
    assert not list(tmp_path.iterdir())


def test_preferences_are_counted_by_method_whatever_the_side(tmp_path):
    folder = study_in(tmp_path / "study", repeats=4)

    def one(case):  # prefers the model but for the third patient
        return side(case, "tv" if case["patient"] == "patient2" else "model")

    def other(case):  # always left, but where there is no difference
        return "none" if case["patient"] == "patient2" else "left"

    key = read_key(folder)
    found = summarise(key, read_answers([answers_in(folder, "one", one), answers_in(folder, "other", other)], key), 0.1)
    assert (found.patients, found.samples, found.repeats) == (3, 6, 4)
    assert found.parts == ("model", "no difference", "tv")
    assert found.readers["one"].shares == pytest.approx((2 / 3, 0, 1 / 3))
    assert found.readers["one"].within == 1  # sides were swapped
    assert found.readers["other"].left == 1
    assert found.readers["other"].within < 0.5
    assert found.readers["other"].shares[1] == pytest.approx(1 / 3)
    times = np.percentile(np.arange(1, 11), [25, 50, 75])
    assert found.readers["one"].seconds == pytest.approx(tuple(times))
    assert found.means["model"] == pytest.approx((found.readers["one"].shares[0] + found.readers["other"].shares[0]) / 2)
    assert found.difference.low < found.difference.mean < found.difference.high
    assert found.difference.mean == pytest.approx(found.means["model"] - found.means["tv"])


def test_ratings_are_compared_within_samples(tmp_path):
    folder = study_in(tmp_path / "study", "rating", repeats=3)
    step = {"one": 0, "two": 1}  # a reader who is milder, always

    def rate(reader):
        return lambda case: str(2 + (case["methods"] == ["model"]) + (case["patient"] == "patient0") + step[reader])

    key = read_key(folder)
    found = summarise(key, read_answers([answers_in(folder, name, rate(name)) for name in step], key), 0.5)
    assert found.means == pytest.approx({"model": 3 + 1 / 3 + 0.5, "tv": 2 + 1 / 3 + 0.5})
    assert found.difference.mean == pytest.approx(1)
    assert np.isnan(found.difference.low)  # the same in every patient
    assert found.noninferior is None
    assert found.between_consistency == pytest.approx(1)
    assert 0 < found.between < 1
    assert found.readers["one"].within == pytest.approx(1)
    assert found.shares["tv"] == pytest.approx((0, 1 / 3, 1 / 2, 1 / 6, 0))


DAMAGED = {
    "no header": (lambda lines: lines[1:], "is no file of answers: its first line is not study,reader"),
    "another study": (lambda lines: [lines[0], *("ffffff" + line[6:] for line in lines[1:])], "answers of the study ffffff"),
    "missing": (lambda lines: lines[:-2], "2 of 8 cases have no answer"),
    "doubled": (lambda lines: [*lines, lines[1]], "line 10: the case .* is answered twice"),
    "unknown case": (lambda lines: [*lines[:-1], re.sub(r"^(\w+,\w+),\w+", r"\1,zzz", lines[-1])], "no case zzz"),
    "answer": (lambda lines: [*lines[:-1], re.sub("left|right", "up", lines[-1])], "the answer 'up' is none of left, right"),
    "seconds": (lambda lines: [*lines[:-1], lines[-1].rpartition(",")[0] + ",-1"], "'-1' is no number of seconds"),
    "fields": (lambda lines: [*lines[:-1], lines[-1] + ",1"], "line 9 has 6 fields"),
    "two readers": (lambda lines: [*lines[:-1], lines[-1].replace("one", "two")], "has the answers of 2 readers"),
    "quotes": (lambda lines: [*lines[:-1], '"' + lines[-1]], "is damaged"),
    "empty": (lambda lines: [], "is no file of answers"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_answers_are_named_in_one_line(tmp_path, name):
    change, message = DAMAGED[name]
    folder = study_in(tmp_path / "study")
    path = answers_in(folder, "one", lambda case: side(case, "model"))
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(UserError, match=message) as error:
        read_answers([path], read_key(folder))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_other_mistakes_are_named_too(tmp_path):
    folder = study_in(tmp_path / "study")
    key, path = read_key(folder), answers_in(folder, "one", lambda case: "none")
    copy = folder / "copy.csv"
    shutil.copy(path, copy)
    with pytest.raises(UserError, match=r"copy\.csv: has the answers of one, as .*answers-one\.csv has"):
        read_answers([path, copy], key)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as Excel saves it
    assert read_answers([path], key)[0].reader == "one"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"answers-one\.csv: is damaged"):
        read_answers([path], key)
    with pytest.raises(UserError, match="no such file"):
        read_answers([folder / "absent.csv"], key)
    with pytest.raises(UserError, match="--margin: 2"):
        summarise(key, [], 2.0)
    (folder / "key.json").write_text('{"study": 1}')
    with pytest.raises(UserError, match=r"key\.json: is damaged"):
        read_key(folder)
    with pytest.raises(UserError, match="holds no study"):
        read_key(tmp_path)


def test_answers_are_summarised_by_a_command(tmp_path):
    folder = study_in(tmp_path / "study")
    files = [answers_in(folder, "Anna, MD", lambda case: side(case, "model")),
             answers_in(folder, "Ben", lambda case: "none")]
    code, said, err = command("-m", "medjax.readers", "summarise", folder, *files, "--margin=0.2")
    assert code == 0, err
    assert "Anna, MD" in said
    assert "preferred: model 50 %, tv 0 %; difference +50 % (95 % interval" in said
    assert "with a margin of 20 %" in said
    assert "agreement between readers: weighted kappa 0.00" in said
    assert said.rstrip().endswith("next: python -m medjax.apply --workdir=runs/one --input=FILE_OR_FOLDER --output=RESULT")
    found = json.loads((folder / "summary.json").read_text())
    assert found["difference"]["mean"] == 0.5
    assert found["noninferior"] == (found["difference"]["low"] > -0.2)
    with (folder / "summary.csv").open() as file:
        assert [line[0] for line in csv.reader(file)] == ["reader", "Anna, MD", "Ben", "all"]
    html = (folder / "summary.html").read_text()
    assert html.count("<svg") == 1
    assert not re.search(r"https?:|url\(|@import", html)


@pytest.mark.skipif(shutil.which("node") is None, reason="no node is installed, which the page's logic is tested in")
def test_the_pages_logic(tmp_path):
    folder = study_in(tmp_path / "study")
    key = read_key(folder)
    (tmp_path / "page.js").write_text("".join((ROOT / "medjax" / "report" / name).read_text()
                                              for name in ("images.js", "readers.js")))
    script = """
        const page = require(process.argv[1]), codes = JSON.parse(process.argv[2]);
        const study = {study: process.argv[3], window: [-1000, 1000], levels: 4000, cases: codes.map(code => ({code}))};
        const answers = Object.fromEntries(codes.map(code => [code, {answer: "left", seconds: 1.26}]));
        const table = page.brightness(study.window, study.levels, {level: 0, width: 500});
        console.log(JSON.stringify({
          csv: page.toCsv(study, 'Anna "A", MD', answers), file: page.fileName(study, "Anna Ö., MD"),
          levels: [...page.unpacked(new Uint8Array([0, 1, 255, 5, 0, 250]))],
          shades: [0, 1500, 2000, 2250, 2500, 4000].map(level => table[level]),
          view: page.firstView(study, 5),
          keys: ["ArrowLeft", "ArrowDown", "1", "5", "6", "x"].map(
            key => [page.answerOf(key, "preference"), page.answerOf(key, "rating")]),
        }));"""
    done = subprocess.run(["node", "-e", script, str(tmp_path / "page.js"), json.dumps(list(key.cases)),
                           key.study], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    (tmp_path / "saved.csv").write_text(found["csv"])
    (read,) = read_answers([tmp_path / "saved.csv"], key)
    assert read.reader == 'Anna "A", MD'
    assert set(read.seconds.values()) == {1.3}
    assert found["file"] == f"answers-{key.study}-Anna_Ö_MD.csv"
    assert found["levels"] == [5, 261, 255]
    assert found["shades"] == [0, 0, 128, 191, 255, 255]
    assert found["view"] == {"level": 0, "width": 2000, "zoom": 1, "x": 0, "y": 0, "slice": 2}
    assert found["keys"] == [["left", None], ["none", None], [None, "1"], [None, "5"], [None, None], [None, None]]


STATE = "document.getElementById('window').textContent + ' ' + document.getElementById('slice').textContent"


@pytest.fixture
def browser(tmp_path):
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.close()


def complaints(page: Browser) -> list[str]:
    """But for that of reading the canvas, which only tests do."""
    return [text for text in page.complaints if "willReadFrequently" not in text]


def begin(page: Browser, path: Path, name: str) -> None:
    page.open(path)
    page.run(f"document.getElementById('name').value = {json.dumps(name)}")
    page.run("document.querySelector('#form button').click()")
    case_shown(page, 1)


def case_shown(page: Browser, number: int) -> None:
    page.until(f"document.getElementById('count').textContent === 'case {number} of 8' && document.querySelector('canvas')"
               ".width > 1")
    page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def pixels(page: Browser) -> list[int]:
    """The red of the middle row of every pane."""
    return page.run("""[...document.querySelectorAll('canvas')].flatMap(canvas => [...canvas.getContext('2d').getImageData(
        0, canvas.height >> 1, canvas.width, 1).data].filter((_, i) => i % 4 === 0))""")


@pytest.mark.slow
@needs_chromium
def test_a_reader_reads_a_study_in_a_browser(tmp_path, browser):
    folder = study_in(tmp_path / "study", made=images(volumes=True))
    downloads = tmp_path / "downloads"
    browser.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
    browser.open(folder / "study.html")
    browser.run("document.getElementById('name').value = ' '; document.querySelector('#form button').click()")
    assert browser.run("document.getElementById('problem').hidden") is False
    begin(browser, folder / "study.html", "Anna, MD")
    left, top, width, height = browser.run("(({x, y, width, height}) => [x, y, width, height])"
                                           "(document.querySelector('.pane').getBoundingClientRect())")
    middle = (left + width / 2, top + height / 2)
    start, seen = browser.run(STATE), [pixels(browser)]
    assert "level 1024, width 4095 HU · zoom 1.0 slice 3 of 5" in start

    def changed() -> str:
        browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        now = pixels(browser)
        assert now != seen[-1]
        seen.append(now)
        return browser.run(STATE)

    for act, text in (
            (lambda: browser.key("w"), "width 4709"), (lambda: browser.key("n"), "width 4095"),
            (lambda: browser.key("b"), "level 819"), (lambda: browser.key("d"), "level 1024"),
            (lambda: browser.key("+"), "zoom 1.3"),
            (lambda: browser.drag(middle, (middle[0] + 40, middle[1]), modifiers=8), "zoom 1.3"),
            (lambda: browser.key("r"), "zoom 1.0"), (lambda: browser.key("j"), "slice 4 of 5"),
            (lambda: browser.key("PageUp"), "slice 3 of 5"),
            (lambda: browser.mouse("mouseWheel", *middle, deltaX=0, deltaY=100), "slice 4 of 5"),
            (lambda: browser.mouse("mouseWheel", *middle, deltaX=0, deltaY=-100, modifiers=2), "zoom 1.3"),
            (lambda: browser.drag(middle, (middle[0] - 100, middle[1] + 20)), "level 1228, width 3071"),
            (lambda: browser.run("document.querySelector('[data-window=bone]').click()"), "level 400, width 1800"),
            (lambda: browser.run("document.querySelector('[data-do=\"zoom-out\"]').click()"), "zoom 1.0"),
            (lambda: browser.run("document.querySelector('[data-do=reset]').click()"), "level 1024, width 4095"),
            (lambda: browser.run("slider.value = 0; slider.dispatchEvent(new Event('input'))"), "slice 1 of 5")):
        act()
        assert text in changed()
    browser.run("document.querySelector('[data-window=lung]').click()")
    browser.key("+")
    browser.key("ArrowLeft")
    case_shown(browser, 2)
    assert browser.run(STATE) == "level −600, width 1500 HU · zoom 1.0 slice 3 of 5"  # the window stays, the rest does not
    browser.key("r")
    browser.until(f"({STATE}) === {json.dumps(start)}")
    browser.key("Backspace")
    case_shown(browser, 1)
    assert browser.run("document.querySelector('[aria-pressed=true]').dataset.answer") == "left"
    browser.key("ArrowDown")
    case_shown(browser, 2)
    browser.run("document.querySelector('[data-answer=right]').click()")
    case_shown(browser, 3)
    browser.open(folder / "study.html")  # closed, and opened again
    assert browser.run("document.querySelector('#readers button').textContent") == "Anna, MD (2 of 8)"
    browser.run("document.querySelector('#readers button').click()")
    case_shown(browser, 3)
    assert browser.run("document.getElementById('progress').value") == 2
    browser.resize(390, 844, phone=True, dark=True)
    browser.until("innerWidth === 390")
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("[...document.querySelectorAll('#reading button')].map(button => button.getBoundingClientRect())"
                       ".every(({bottom, right}) => bottom <= innerHeight && right <= innerWidth)")
    browser.touch("touchStart", (60, 300), (120, 300))
    browser.touch("touchMove", (30, 300), (150, 300))
    browser.touch("touchEnd")
    browser.until(f"({STATE}).includes('zoom 2.0')")  # fingers twice as far apart
    for number in range(3, 9):
        case_shown(browser, number)
        browser.run("document.querySelector('[data-answer=left]').click()")
    browser.until("!document.getElementById('finish').hidden")
    browser.run("document.getElementById('save').click()")
    browser.until("document.getElementById('saved').textContent !== ''")
    key = read_key(folder)
    path = downloads / f"answers-{key.study}-Anna_MD.csv"
    for _ in range(100):
        if path.exists() and path.read_text().count("\n") == 9:
            break
        browser.run("new Promise(done => setTimeout(done, 50))")
    (read,) = read_answers([path], key)
    assert read.reader == "Anna, MD"
    assert list(read.given.values()) == ["none", "right", *["left"] * 6]
    assert 0 < max(read.seconds.values()) < 300
    assert complaints(browser) == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data", "blob", "about"}
    assert {url for url in browser.requests if url.startswith("file")} == {(folder / "study.html").as_uri()}


@pytest.mark.slow
@needs_chromium
def test_the_browser_shows_true_values_and_takes_ratings(tmp_path, browser):
    folder = study_in(tmp_path / "study", "rating")
    browser.open(folder / "study.html")
    browser.run("document.getElementById('name').value = 'b'; document.querySelector('#form button').click()")
    browser.until("document.getElementById('count').textContent === 'case 1 of 14'")
    browser.until("document.getElementById('window').textContent !== ''")
    study = arrange(METHODS, SAMPLES, "rating", 2, 0)
    case, made = study.cases[0], images()
    image = made.samples[case.sample].images[case.methods[0]][..., 0]
    wide = browser.run("(({width, height}) => [width, height])(document.querySelector('canvas'))")
    scale = min(wide[0] / (30 * 1.0), wide[1] / (24 * 2.0))
    row, column = 8, 14  # in the middle of a block: between pixels there is interpolation
    x = wide[0] / 2 + (column + 0.5 - 15) * scale
    y = wide[1] / 2 + (row + 0.5 - 12) * 2 * scale
    shade = browser.run(f"document.querySelector('canvas').getContext('2d').getImageData({int(x)}, {int(y)}, 1, 1).data[0]")
    expected = 255 * (image[row, column] - WINDOW[0]) / (WINDOW[1] - WINDOW[0])
    assert shade == pytest.approx(float(expected), abs=1)
    browser.key("4")
    browser.until("document.getElementById('count').textContent === 'case 2 of 14'")
    browser.key("ArrowLeft")
    browser.key("6")
    assert browser.run("document.getElementById('count').textContent") == "case 2 of 14"
    assert complaints(browser) == []


@pytest.mark.slow
def test_the_commands_of_the_documentation(tmp_path):
    """As docs/readers.md has them, on a small run, and its errors."""
    text = (ROOT / "docs" / "readers.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    wanted = [shlex.split(line) for line in lines if "medjax.readers" in line]
    assert [words[3] for words in wanted] == ["make", "summarise", "make"]
    for name in ("quickstart", "other"):
        code, _, err = command("train.py", *DRAWN, f"--workdir={tmp_path / 'runs' / name}")
        assert code == 0, err
    for words in wanted:
        given = [word.replace("runs/", f"{tmp_path}/runs/").replace("=nlm", "=median") for word in words[1:]]
        if words[3] == "summarise":
            folder = Path(given[3])
            files = [answers_in(folder, name, lambda case: "none") for name in ("a", "b")]
            given = [*given[:4], *map(str, files), *(word for word in given if word.startswith("--"))]
        code, said, err = command(*given)
        assert code == 0, err
        assert "next: python -m medjax." in said
    made = json.loads((tmp_path / "runs" / "quickstart" / "readers" / "key.json").read_text())
    assert made["methods"] == ["model", "median"]
    assert all(re.fullmatch("[0-9a-f]{20}", case["patient"]) for case in made["cases"].values())
    again = json.loads((tmp_path / "runs" / "quickstart" / "readers_other" / "key.json").read_text())
    assert again["methods"] == ["model", "other"]
    code, said, err = command("-m", "medjax.readers", "make", f"--workdir={tmp_path / 'runs' / 'quickstart'}", "--cases=1",
                              f"--output={tmp_path / 'best'}")
    assert code == 0, err
    assert "model and median" in said  # the best reference
    assert "one patient: nothing will be said of others" in said
    run, out = f"--workdir={tmp_path / 'runs' / 'quickstart'}", f"--output={tmp_path / 'out'}"
    for given, message in (
            (("make", run, out, "--against=magic"), "error: --against: unknown 'magic'; choose from input, "),
            (("make", run, out, "--margin=0.1"), "error: --margin: is no flag of make"),
            (("make", run, f"--output={tmp_path / 'runs' / 'quickstart' / 'readers'}"), "holds a study, whose answers"),
            (("judge",), "error: medjax.readers: unknown command 'judge'")):
        code, _, err = command("-m", "medjax.readers", *given)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1
