"""README and docs: code that runs, commands and options that exist, files and links that are there."""

import ast
import email
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml

import synthaug
from synthaug import BRATS18, InsertionPlan, LesionBank, TumorInsertion
from synthaug.adapters.nnunet.settings import Settings
from synthaug.cli.app import app
from synthaug.data.phantoms.phantom import write_phantom_dataset
from synthaug.frames import host_frame

ROOT = Path(__file__).parent.parent
PAGES = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md")))
    if "_build" not in file.parts and file.parent.name != "gallery"
}
ALL = "\n".join(PAGES.values())
SHOWN = re.findall(r"\(`examples/(\w+\.py)`(?:(?!```).)*?```python\n(.*?)```", ALL, re.S)
COMMANDS = [
    (page, line)
    for page, text in PAGES.items()
    for block in re.findall(r"```bash\n(.*?)```", text, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if re.search(r"(^|&& |\$\()synthaug ", line)
]


NEED_MORE = ("docs/fidelity.md", "docs/looks.md")
"""Pages whose code needs a profile, or low-grade patients in the bank: only what it imports is checked."""


def blocks(language: str) -> list[tuple[str, str]]:
    """Give page and text of each code block that is not of an example."""
    shown = {lines for _, lines in SHOWN}
    found = [(page, b) for page, text in PAGES.items() for b in re.findall(rf"```{language}\n(.*?)```", text, re.S)]
    return [(page, block) for page, block in found if block not in shown]


def test_every_framework_shows_its_lines():
    assert {name for name, _ in SHOWN} >= {
        "plain_pytorch.py",
        "monai_dict.py",
        "monai_supervised.py",
        "torchio_subjects.py",
        "torchio_batch.py",
        "lightning_module.py",
    }


@pytest.mark.parametrize(("name", "lines"), SHOWN, ids=[name for name, _ in SHOWN])
def test_lines_shown_are_lines_of_the_example(name, lines):
    example = (ROOT / "examples" / name).read_text(encoding="utf-8")
    for line in (line.strip() for line in lines.splitlines()):
        assert line in example or line in ("", "...", "...,", "def __init__(self):"), f"{name} has no line: {line}"


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the pages' code takes for given: a batch, donors, an insertion, a loop of one step."""
    folder = tmp_path_factory.mktemp("pages")
    write_phantom_dataset(folder / "path" / "to" / "brats", 4, size=(48, 48, 48))
    channels = ("flair", "t1", "t1ce", "t2")
    bank = LesionBank.from_folder(folder / "path" / "to" / "brats", classes=BRATS18)
    bank.save(folder / "bank.safetensors")
    image, label = torch.rand(2, 4, 48, 48, 48) + 1, torch.zeros(2, 1, 48, 48, 48, dtype=torch.int16)
    patients = ["a", "b"]
    return folder, {
        **{name: getattr(synthaug, name) for name in ("LesionShapes", "PaintedLesions", "ProceduralGenerator")},
        "LesionBank": LesionBank,
        "TumorInsertion": TumorInsertion,
        "InsertionPlan": InsertionPlan,
        "torch": torch,
        "bank": bank,
        "CHANNELS": channels,
        "image": image,
        "label": label,
        "patients": patients,
        "insert": TumorInsertion(bank, "paste", channels=channels, prob=1.0, scale=(0.3, 0.5)),
        "loader": [(image, label, patients, [host_frame(np.ones(image.shape[2:], bool))] * 2)],
        "device": "cpu",
        "model": lambda x: x,
        "criterion": lambda *_: 0.0,
        "transforms": [],
    }


@pytest.mark.parametrize(("page", "code"), blocks("python"), ids=lambda text: text.split("\n")[0][:60])
def test_code_runs(page, code, names, monkeypatch):
    ast.parse(code)
    folder, given = names
    if "..." in re.sub(r"#.*", "", code):
        pytest.skip("is an outline")
    if "adapters.batchgenerators" in code:
        pytest.importorskip("batchgeneratorsv2")
    if page in NEED_MORE:
        code = "\n".join(line for line in code.splitlines() if re.match(r"(from|import) ", line))
    monkeypatch.chdir(folder)
    exec(compile(code, page, "exec"), dict(given))


@pytest.mark.parametrize(("page", "text"), blocks("yaml"), ids=lambda text: text.split("\n")[0][:60])
def test_settings_are_read(page, text):
    Settings.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[line[:70] for _, line in COMMANDS])
def test_commands_parse(page, line):
    """Each command of synthaug is one that there is, with options that it has."""
    for text in re.split(r"&&|\$\(|\)\"?", line.split("  #")[0]):
        words = shlex.split(text, comments=True) if text.strip().startswith("synthaug ") else []
        command = typer.main.get_command(app)
        for word in words[1:]:
            if hasattr(command, "commands"):
                assert word in command.commands or word.startswith("--"), f"{page}: {line}: no command {word}"
                command = command.commands.get(word, command)
        known = {
            option
            for parameter in getattr(command, "params", [])
            for option in parameter.opts + parameter.secondary_opts
        }
        passes_on = getattr(command, "ignore_unknown_options", False)  # to accelerate
        unknown = [w for w in words if re.match(r"--?[a-z]", w) and w.split("=")[0] not in known]
        assert passes_on or not unknown, f"{page}: {line}: {command.name} has no {unknown}"


def test_files_that_pages_name_exist():
    named = set(re.findall(r"(?:examples|configs|benchmarks|trainers|tests)/[\w./-]*\.(?:py|yaml|txt|json|ipynb)", ALL))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert named and not missing


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Relative links of a page are files, as a browser of the repository follows them."""
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", re.sub(r"```.*?```|`[^`\n]*`", "", PAGES[page], flags=re.S))
    made = ("gallery/index", "reference/options.md", "reference/configuration.md", "reference/commands.md")
    lost = [link for link in links if not (ROOT / page).parent.joinpath(link).exists() and not link.endswith(made)]
    assert not lost


def test_what_an_index_shows_of_the_readme_needs_no_file_beside_it(tmp_path):
    """The wheel's metadata has its words and code, and neither picture nor link of the repository."""
    pytest.importorskip("hatchling")
    pytest.importorskip("hatch_fancy_pypi_readme")
    code = "import sys; from hatchling.build import prepare_metadata_for_build_wheel as make; print(make(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (file,) = tmp_path.glob("*.dist-info/METADATA")
    found = email.message_from_string(file.read_text(encoding="utf-8"))
    assert found["Description-Content-Type"] == "text/markdown"
    text, own = str(found.get_payload()), PAGES["README.md"]
    assert "![" in own and "![" not in text and "made by `python docs/picture.py`" not in text
    assert re.findall(r"\]\((?!https://)", own) and not re.findall(r"\]\((?!https://)", text)
    assert "Get started (`docs/start.md`), ten minutes" in text and "`CITATION.cff` |" in text
    assert "(https://arxiv.org/abs/2509.24973)" in text
    assert re.findall(r"```.*?```", text, re.S) == re.findall(r"```.*?```", own, re.S)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 8192
