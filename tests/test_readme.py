"""What the README and the docs say is run, or looked up."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pcmc
from pcmc.commands import text

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_example_of_the_readme_runs(tmp_chdir):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    scope: dict = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["logits"].shape == (1, 10)
    assert (tmp_chdir / "digits-cnn.pcmc").is_file()


@pytest.mark.slow
def test_the_output_in_the_readme_is_what_the_command_prints():
    from pcmc.models import zoo

    result = pcmc.compare("digits-cnn", data=zoo.test_data("digits-cnn"), seeds=5).as_dict()
    printed = text.comparison(result).splitlines()
    said = [
        line.strip()
        for line in README.split("$ pcmc compare digits-cnn\n")[1].split("\n\n`pcmc")[0].splitlines()
    ]
    said = [line for line in said if line]
    printed = [line for line in printed if line]
    assert len(said) == len(printed)
    for ours, theirs in zip(printed, said, strict=True):
        assert re.sub(r"[\d.e+-]+", "#", ours) == re.sub(r"[\d.e+-]+", "#", theirs)
    assert printed[0] == said[0]
    ideal = re.findall(r"[\d.]+", next(line for line in said if line.startswith("accuracy")))
    assert [round(result["metrics"]["accuracy"][k], 4) for k in ("onnxruntime", "ideal")] == [
        *map(float, ideal[:2])
    ]
    assert abs(result["metrics"]["accuracy"]["physics"]["mean"] - float(ideal[2])) < 0.005


def test_the_example_script_runs():
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "digits.py"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert re.search(r"^ideal +99\.33% of 450 digits right$", done.stdout, flags=re.M)
    assert len(done.stdout.splitlines()) == 4


PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.slow
def test_the_training_in_the_readme_is_what_the_command_prints(tmp_chdir):
    said = README.split("    $ pcmc train ")[1].split("\n\n")[0].splitlines()
    done = subprocess.run(
        [sys.executable, "-m", "pcmc", "train", *said[0].split()], capture_output=True, text=True, check=True
    )
    for ours, theirs in zip(done.stdout.splitlines(), said[1:], strict=False):
        assert re.sub(r"[\d.e+-]+", "#", ours) == re.sub(r"[\d.e+-]+", "#", theirs.strip())
    assert len(done.stdout.splitlines()) > len(said) == 5
