"""Programs as people write them: no error of a healthy one, and what names a few mistakes."""

import pytest

from faults.unseen.data import FASHION
from faults.unseen.run import programs

PROGRAMS = {program.name: program for program in programs()}
HEALTHY = [
    "house_full_batch",
    "house_gaussian_likelihood",
    "ring_gan",
    "letters_masked",
    "ratings_sparse_embeddings",
    "pole_policy_gradient",
    "oscillator_informed_by_physics",
    "blobs_graph_of_nodes",
    "fashion_vae",
    "fashion_mixup",
    "fashion_probabilities_handed_on",
]
FAULTY = [
    "no_zero_grad",
    "integer_division_in_the_schedule",
    "loss_with_the_wrong_sign",
    "softmax_over_the_batch",
    "relu_on_the_output",
    "batch_first_forgotten",
    "columns_as_they_are",
    "every_label_the_same",
    "layers_in_a_plain_list",
    "sorted_by_class",
    "validation_not_normalised",
]
CLOTHES = {"layers_in_a_plain_list", "sorted_by_class", "validation_not_normalised"}


def program(name):
    needs = name.startswith("fashion") or name in CLOTHES
    if needs and not FASHION.exists():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    return PROGRAMS[name]


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_programs_are_left_alone(name):
    found = program(name).run()
    assert [(x.code, x.message) for x in found if x.severity != "info"] == []


@pytest.mark.parametrize("name", FAULTY)
def test_mistakes_are_named_first(name):
    found = program(name).run()
    assert program(name).is_first(found), [x.code for x in found]
    assert program(name).is_named(found)


def test_every_program_stands_once():
    names = [p.name for p in programs()]
    assert len(names) == len(set(names)) > 120
    assert sum(not p.causes for p in programs()) > 50
