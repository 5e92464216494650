"""Nearest training lesions in the features of a classifier that learned to tell the training patients apart."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from synthaug.evaluation.fidelity.classifier import Classifier, ClassifierOptions, batch_of, crop_of, visible
from synthaug.evaluation.fidelity.statistics import Specimen
from synthaug.memory_format import channels_last
from synthaug.progress import shown


def patient_similarity(
    training: Sequence[Specimen],
    asked: Sequence[Sequence[Specimen]],
    options: ClassifierOptions | None = None,
    seed: int = 0,
) -> list[Tensor]:
    """Compute how alike lesions are to training lesions for a classifier that tells the training patients apart.

    Args:
        training: M lesions, of two patients or more, on which it is trained.
        asked: groups of N lesions.
        options: training of the network; folds do not count.
        seed: seed of weights and crops.

    Returns:
        For each group (N, M), cosines of the features, which are means over crops, about the training lesions' mean.

    Raises:
        ValueError: training lesions of one patient.
    """
    options = options or ClassifierOptions()
    patients = sorted({s.group for s in training})
    if len(patients) < 2:
        raise ValueError(f"patients: expected training lesions of two or more, got {len(patients)}")
    rng = torch.Generator().manual_seed(seed)
    items = [visible(s, "lesion") for s in training]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = channels_last(Classifier(len(items[0][0]), len(patients))).to(options.device)
    truth = torch.tensor([patients.index(s.group) for s in training], device=options.device)
    optimizer = torch.optim.AdamW(network.parameters(), options.lr, weight_decay=1e-2)
    for step in shown(range(options.steps), "features", "step"):
        optimizer.param_groups[0]["lr"] = options.lr * (1 - step / options.steps)
        drawn = torch.randint(len(items), (options.batch,), generator=rng).tolist()
        x = batch_of([crop_of(items[n], options.size, rng) for n in drawn], truth.device)
        loss = F.cross_entropy(network(x, x[:, -1:]), truth[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    known = _features(network, items, options, rng)
    middle = known.mean(0)
    directions = F.normalize(known - middle, dim=1)
    found = [_features(network, [visible(s, "lesion") for s in group], options, rng) for group in asked]
    return [F.normalize(features - middle, dim=1) @ directions.T for features in found]


@torch.no_grad()
def _features(network: Classifier, items: Sequence[tuple], options: ClassifierOptions, rng: torch.Generator) -> Tensor:
    """Average the features of some crops of each lesion, (N, 64)."""
    device, found = next(network.parameters()).device, [torch.zeros(0, network.last.in_features)]
    for item in items:
        x = batch_of([crop_of(item, options.size, rng) for _ in range(options.crops)], device)
        found.append(network.features(x, x[:, -1:]).mean(0, keepdim=True).cpu())
    return torch.cat(found)
