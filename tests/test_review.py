"""The viewer's server by plain HTTP, its decisions, and a cohort without the rejected cases."""

import gzip
import http.client
import json
import re
import shutil
import subprocess
import threading
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from synthaug.cli.app import app
from synthaug.cohort import CohortConfig, generate
from synthaug.config import ConfigError
from synthaug.data import write_phantom_dataset
from synthaug.review import Decisions, decisions_file, read_rejected

pytest.importorskip("ipyniivue", reason='ipyniivue is not installed: pip install "synthaug[view]"')
from synthaug.view.server import ViewServer
from synthaug.view.shown import described, find_shown, listed


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Hosts and a cohort of three cases in nnU-Net's layout."""
    folder = tmp_path_factory.mktemp("view")
    write_phantom_dataset(folder / "hosts", 2, size=(48, 48, 48), tumour_free=1)
    lesions = {"shapes": {"diameter_mm": (10, 14)}}
    config = CohortConfig(cases=folder / "hosts", count=3, layout="nnunet", classes="BRATS18", lesions=lesions)
    assert generate(config, folder / "cohort").complete
    return folder, config


@pytest.fixture
def served(cohort, tmp_path):
    folder, _ = cohort
    shown = find_shown(folder / "cohort", folder / "hosts")
    server = ViewServer(shown, Decisions(tmp_path / "review.json"))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def ask(server, path, body=None, host="localhost", token=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    address = f"/{server.token if token is None else token}/{path}"
    connection.request("GET" if body is None else "POST", address, body, {"Host": host})
    reply = connection.getresponse()
    return reply.status, reply.read(), reply.headers


def test_it_gives_out_the_page_and_the_cases_and_nothing_from_outside(served):
    status, page, headers = ask(served, "")
    assert status == 200 and b"app.js" in page and b"http" not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    status, script, _ = ask(served, "niivue.js")
    assert status == 200 and b" as Niivue," in script[-200:] and b" as NVImage}" in script[-200:]
    known = json.loads(ask(served, "cases.json")[1])
    assert known["cases"] == ["synth_000000", "synth_000001", "synth_000002"]

    case = json.loads(ask(served, "case/0")[1])
    status, content, _ = ask(served, case["channels"][0]["file"])
    assert status == 200 and nib.Nifti1Image.from_bytes(gzip.decompress(content)).shape == (48, 48, 48)
    assert ask(served, case["label"])[0] == ask(served, case["before"][0]["file"])[0] == 200


def test_a_case_is_described_before_its_label_is_read(cohort, tmp_path):
    shutil.copytree(cohort[0] / "cohort", tmp_path / "cohort")
    (tmp_path / "cohort" / "labelsTr" / "synth_000000.nii.gz").write_bytes(b"no NIfTI")
    shown = find_shown(tmp_path / "cohort")
    assert described(shown, 0)["label"] == "file/0/after/label.nii.gz"
    with pytest.raises(ValueError, match="synth_000000"):
        listed(shown, 0)


def test_lesions_lie_where_the_label_is(served, cohort):
    for number in range(3):
        case = json.loads(ask(served, f"case/{number}")[1]) | json.loads(ask(served, f"lesions/{number}")[1])
        image = nib.load(cohort[0] / "cohort" / "labelsTr" / f"{case['name']}.nii.gz")
        label = np.asarray(image.dataobj)
        total = float((label > 0).sum()) / 1000
        assert case["lesions"] and sum(row["ml"] for row in case["lesions"]) == pytest.approx(total, abs=0.05)
        assert sum(row["new"] is True for row in case["lesions"]) == 1
        for row in case["lesions"]:
            x, y, z = np.rint(np.linalg.inv(image.affine) @ [*row["mm"], 1])[:3].astype(int)
            assert label[x, y, z] > 0


@pytest.mark.parametrize(
    "path",
    [
        "file/0/after/../../../../etc/passwd",
        "file/0/after/adc.nii.gz",
        "file/9/after/label.nii.gz",
        "file/0/else/label.nii.gz",
        "case/-1",
        "case/x",
        "lesions/9",
        "..%2f..%2fpyproject.toml",
        "static/app.js",
        "manifest.jsonl",
    ],
)
def test_nothing_else_is_given_out(served, path):
    assert ask(served, path)[0] == 404


def test_without_the_token_or_by_another_name_it_refuses(served):
    assert ask(served, "", token="guess")[0] == ask(served, "cases.json", token="")[0] == 403
    assert ask(served, "", host="evil.example")[0] == 403
    assert ask(served, "decision", body=b"{}", token="guess")[0] == 403
    assert served.server_address[0] == "127.0.0.1"


def test_decisions_are_kept_and_taken_back(served):
    for decision in ("accept", "reject"):
        body = json.dumps({"case": "synth_000001", "decision": decision})
        assert json.loads(ask(served, "decision", body=body)[1]) == {"synth_000001": decision}
    assert read_rejected(served.decisions.file) == ("synth_000001",)
    assert Decisions(served.decisions.file).made == {"synth_000001": "reject"}
    for wrong in (
        b"{}",
        b"[]",
        json.dumps({"case": "else", "decision": "accept"}),
        b'{"case": "synth_000001", "decision": 1}',
    ):
        assert ask(served, "decision", body=wrong)[0] == 400
    ask(served, "decision", body=json.dumps({"case": "synth_000001", "decision": "none"}))
    assert read_rejected(served.decisions.file) == ()


def test_a_cohort_without_the_rejected_cases(cohort, tmp_path):
    folder, config = cohort
    decisions = Decisions(tmp_path / "review.json")
    decisions.decide("synth_000001", "reject")
    assert generate(config.model_copy(update={"exclude": decisions.file}), tmp_path / "second").complete
    names = sorted(path.name for path in (tmp_path / "second" / "labelsTr").iterdir())
    assert names == ["synth_000000.nii.gz", "synth_000002.nii.gz", "synth_000003.nii.gz"]
    for name in names[:2]:
        assert (tmp_path / "second" / "labelsTr" / name).read_bytes() == (
            folder / "cohort" / "labelsTr" / name
        ).read_bytes()
    other = Decisions(tmp_path / "other.json")
    other.decide("case_7", "reject")
    with pytest.raises(ConfigError, match=r"rejects case_7; the cases here are synth_000000"):
        generate(config.model_copy(update={"exclude": other.file}), tmp_path / "third")


def test_files_that_are_no_review_are_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"decisions": {"a": "maybe"}}')
    with pytest.raises(ValueError, match="expected accept or reject"):
        read_rejected(tmp_path / "x.json")
    with pytest.raises(ValueError, match="expected the decisions that `synthaug view` writes"):
        read_rejected(tmp_path / "none.json")
    assert decisions_file(tmp_path / "cohort").name == "cohort.review.json"


def test_the_command_says_what_is_missing(cohort, tmp_path):
    folder, _ = cohort
    result = CliRunner().invoke(app, ["view", str(folder / "cohort" / "synth_9"), "--no-browser"])
    assert result.exit_code == 2 and "expected one of its cases, such as synth_000000" in result.output
    result = CliRunner().invoke(app, ["view", str(folder / "cohort"), "--before", str(tmp_path), "--no-browser"])
    assert result.exit_code == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_page_shows_a_case(served):
    """In a real browser, with WebGL by software: the first case in slices, at its inserted lesion."""
    flags = ["--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    command = ["chromium", *flags, "--timeout=15000", "--virtual-time-budget=30000", "--dump-dom", served.address]
    page = subprocess.run(command, capture_output=True, text=True, timeout=90).stdout
    assert urlsplit(served.address).hostname == "localhost"
    assert 'data-ready="synth_000000"' in page and "data-lesion=" in page and "inserted" in page
    assert re.search(r'aria-pressed="true"[^>]*>slices<', page)
