"""The text example needs the order of characters, learns it, and is not changed by padding."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from data_loader.collate import pad, stack
from data_loader.make_text import make_texts, write_texts
from data_loader.text import TextDataLoader, encoded
from example_runs import evaluate, train
from helpers import ROOT
from model.text import CharGRU
from utils import DataError


def test_counts_of_characters_do_not_tell_the_classes_apart() -> None:
    texts, labels = zip(*make_texts(3000))
    counts = CountVectorizer(analyzer="char").fit_transform(texts)
    model = LogisticRegression(max_iter=500).fit(counts[:2000], labels[:2000])
    assert model.score(counts[2000:], labels[2000:]) < 0.7
    assert Counter(labels) == {"praise": 1500, "blame": 1500}


def test_the_example_learns_what_it_was_not_trained_on(tmp_path: Path) -> None:
    config: dict[str, Any] = json.loads((ROOT / "configs" / "text.json").read_text())
    del config["$schema"]
    write_texts(tmp_path / "reviews.csv")
    config["data_loader"]["args"]["path"] = str(tmp_path / "reviews.csv")
    config["n_gpu"] = 0
    config["trainer"] |= {"save_dir": str(tmp_path / "saved")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of small products, more take longer beside other tests
    try:
        run_dir = train(config)
        assert evaluate("-r", str(run_dir))["accuracy"] > 0.95
    finally:
        torch.set_num_threads(threads)


def test_padding_changes_no_output() -> None:
    torch.manual_seed(0)
    model = CharGRU(97, 2).eval()
    samples = [(encoded(text), label) for text, label in zip(("good", "not at all bad!", "é", "x" * 60), range(4))]
    together = model(pad(samples)[0])
    alone = torch.cat([model(pad([sample])[0]) for sample in samples])
    other = model(pad(samples, value=96)[0])
    assert (together - alone).abs().max() < 1e-6
    assert (together - other).abs().max() < 1e-6


def test_pad_says_where_the_values_are() -> None:
    padded, targets = pad([(torch.tensor([1, 2, 3]), 0), (torch.tensor([4]), 1)], value=9)
    assert padded.values.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert padded.lengths.tolist() == padded.mask.sum(1).tolist() == [3, 1]
    assert targets.tolist() == [0, 1]
    assert stack([(torch.ones(2), 0), (torch.zeros(2), 1)])[0].tolist() == [[1, 1], [0, 0]]


def test_any_number_of_workers_gives_the_same(tmp_path: Path) -> None:
    write_texts(tmp_path / "reviews.csv", 100)
    epochs = []
    for num_workers in (0, 2):
        loader = TextDataLoader(str(tmp_path / "reviews.csv"), 16, num_workers=num_workers, max_length=20)
        batches = [microbatch.batch for [microbatch] in loader.epoch_steps(1, seed=3)]
        epochs.append([tensor for inputs, targets in batches for tensor in (*inputs, targets)])
    assert all(torch.equal(a, b) for a, b in zip(*epochs, strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,lable\na,b\n", "has no column 'label'; it has text, lable"),
        ("text,label\na,b\n,c\n", "row 2: its text or label is empty"),
        ("text,label\n", "has no rows"),
    ],
)
def test_mistakes_are_told(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        TextDataLoader(str(tmp_path / "a.csv"), 2)
