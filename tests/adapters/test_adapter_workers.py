"""What every adapter's loader workers share: refusal of GPU generators, one number per sample, counters of all."""

import copy
import multiprocessing

import pytest
import torch
from engine import toy_batch, toy_gan, toy_insertion
from loading import drained
from torch.utils.data import DataLoader, Dataset

from synthaug import LowInsertionRateWarning
from synthaug.adapters.workers import devices_of, drawn, in_worker, refuse_accelerator_in_worker
from synthaug.generators.paste import PasteGenerator


class OnCUDA(PasteGenerator):
    """Says that it is on a GPU, which no test machine needs to have."""

    device = torch.device("cuda:0")


class Samples(Dataset):
    """Inserts in `__getitem__`, as a plain data set would; the batch `empty` has no tissue."""

    def __init__(self, insertion, length, empty=False):
        self.insertion, self.length, self.empty = insertion, length, empty

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        refuse_accelerator_in_worker(self.insertion.generator)
        image, label = toy_batch(1, size=(24, 24, 24), labelled=False, seed=index)
        with drawn(self.insertion, index):
            return self.insertion(image * (not self.empty), label)[1].sum()


def test_a_gpu_generator_is_refused_in_a_worker_with_advice():
    insertion = toy_insertion(OnCUDA(), scale=0.4)
    refuse_accelerator_in_worker(insertion.generator)
    with pytest.raises(RuntimeError, match=r"OnCUDA is on cuda:0 and was called in a loader worker.*batch form"):
        drained(DataLoader(Samples(insertion, 2), num_workers=1))


def test_daemonic_children_are_workers_too():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(in_worker)
    assert not in_worker()


def test_devices_of_networks_tensors_and_attributes():
    assert set(devices_of(toy_gan())) == {torch.device("cpu")}
    gan = toy_gan()
    gan.painter.to("meta")
    assert torch.device("meta") in set(devices_of(gan))
    assert list(devices_of(OnCUDA())) == [torch.device("cuda:0")]
    assert not list(devices_of(PasteGenerator()))


def test_drawn_depends_on_the_number_alone_and_leaves_the_insertion_as_it_was():
    insertion = toy_insertion(scale=0.5, prob=0.3)
    batch = toy_batch(1)
    insertion(*batch)
    rows = []
    for number in (77, 78, 77):
        with drawn(insertion, number, prob=1.0):
            rows.append(insertion.plan(*batch).to_rows())
        assert insertion.number == 1 and insertion.prob == 0.3
    assert rows[0] == rows[2] and rows[0][0]["seed"] != rows[1][0]["seed"]
    with pytest.raises(ValueError, match="number: expected"), drawn(insertion, -1):
        pass


@pytest.mark.parametrize(("context", "workers", "epochs"), [("fork", 2, 2), ("spawn", 1, 1)])
def test_the_report_counts_what_workers_did(context, workers, epochs):
    insertion = toy_insertion(scale=0.4, second=1.0)
    for _ in range(epochs):
        list(DataLoader(Samples(insertion, 3), num_workers=workers, multiprocessing_context=context))
    report = insertion.report()
    assert (report.samples, report.asked) == (3 * epochs, 6 * epochs) and report.done > 0


def test_low_rates_spread_over_short_lived_workers_still_warn(monkeypatch):
    monkeypatch.setattr("synthaug.insertion.report.WINDOW_SAMPLES", 8)
    insertion = toy_insertion(scale=0.4)
    with pytest.raises(LowInsertionRateWarning, match=r"only 0 of \d+ insertions .* no host tissue"):  # made an error
        for _ in range(4):
            drained(DataLoader(Samples(insertion, 3, empty=True), num_workers=2))


def test_a_deep_copy_goes_on_counting_for_itself():
    insertion = toy_insertion(scale=0.5)
    insertion(*toy_batch(2))
    other = copy.deepcopy(insertion)
    other(*toy_batch(2))
    assert (insertion.report().samples, other.report().samples) == (2, 4)
