"""The documentation site: it builds without a warning, its own links lead somewhere, and its reference is whole."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import synthaug

DOCS = Path(__file__).parent.parent / "docs"
sys.path.append(str(DOCS / "_ext"))


def test_every_key_of_every_configuration_has_a_meaning():
    import synthaug_keys as keys

    listed = {heading: keys.rows_of(model, keys.comments_of(config)) for heading, (model, config) in keys.ROOTS.items()}
    listed["options"] = keys.rows_of(synthaug.InsertionOptions, {})
    assert not [f"{heading}: {key}" for heading, rows in listed.items() for key, _, _, words in rows if not words]
    assert all(set(model.model_fields) <= {row[0] for row in listed[name]} for name, (model, _) in keys.ROOTS.items())


def test_every_page_is_in_the_contents():
    """Pages of these folders are listed by their names; docs/*.md and cards are by a pattern."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for file in DOCS.glob("howto/*.md"):
        assert f"howto/{file.stem}\n" in index
    for file in DOCS.glob("concepts/*.md"):
        assert f"concepts/{file.stem}\n" in index


@pytest.mark.slow
def test_the_site_builds_and_is_whole(tmp_path):
    pytest.importorskip("sphinx", reason='sphinx is not installed: pip install "synthaug[docs]"')
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-q",
        "-d",
        str(tmp_path / "trees"),
        str(DOCS),
        str(tmp_path / "site"),
    ]
    built = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert built.returncode == 0, built.stderr[-3000:]
    pages = {
        file.relative_to(tmp_path / "site"): file.read_text(encoding="utf-8")
        for file in tmp_path.rglob("site/**/*.html")
    }

    python = pages[Path("reference/python.html")]
    assert not [name for name in synthaug.__all__ if f'id="synthaug.{name}"' not in python]

    lost = []
    for page, text in pages.items():
        for link in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', text):
            target = (tmp_path / "site" / page).parent / link.split("?")[0]
            if not target.exists():
                lost.append(f"{page}: {link}")
    assert not lost
